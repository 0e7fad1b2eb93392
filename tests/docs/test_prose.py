"""Proves that pages, docstrings, help and messages are easy to read, and that every figure of the benchmarks has its record."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs import prose
from tests.docs.prose import PAGES, ROOT
from tests.measure.pages import EVIDENCE, pages


def test_prose_is_short() -> None:
    assert prose.median_words() <= prose.MOST_WORDS
    long = {
        str(page.relative_to(ROOT)): cells for page in PAGES if (cells := prose.long_cells(page.read_text("utf-8")))
    }
    assert long == {}
    found = {str(page.relative_to(ROOT)): turns for page in PAGES if (turns := prose.habits(page.read_text("utf-8")))}
    assert found == {}


def test_docstrings_help_messages_and_comments_are_free_of_habits() -> None:
    found = {str(path.relative_to(ROOT)): turns for path in prose.MODULES if (turns := prose.code_habits(path))}
    assert found == {}
    scripts = {path.name: turns for path in prose.SCRIPTS if (turns := prose.habits(path.read_text("utf-8")))}
    assert scripts == {}
    assert len(prose.SCRIPTS) > 20


def test_docstrings_of_tests_are_free_of_habits() -> None:
    assert {str(path.relative_to(ROOT)): turns for path in prose.TESTS if (turns := prose.docstring_habits(path))} == {}


def test_changes_of_the_next_release_are_a_list_to_read() -> None:
    """Git merges the list by union, which can bring back lines that were merged or deleted."""
    unreleased = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ")[1]
    assert len(unreleased.splitlines()) <= 150, "join related lines, delete superseded ones"
    headings = re.findall(r"^### (.+)$", unreleased, re.MULTILINE)
    assert headings == [name for name in ("Changed", "Added", "Removed", "Security", "Fixed") if name in headings]


def test_a_habit_is_found_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(
        '"""What is told here."""\n\n# a second comment of such a kind\n'
        'help = "see what is wrong, not what was read. What is it?"\n'
        'raise ValueError(f"{1} goes on at 3 crops\\n a step")\n'
    )
    assert prose.code_habits(tmp_path / "module.py") == [
        "1: What is",
        "3: of such",
        "4: what was",
        "5: goes on",
        "5: crops a step",
    ]
    assert prose.docstring_habits(tmp_path / "module.py") == ["1: What is"]


def test_pages_of_figures_are_those_of_the_records() -> None:
    expected = pages(EVIDENCE)
    assert {name: (EVIDENCE / name).read_text(encoding="utf-8") for name in expected} == expected
    assert 6 <= len(re.findall(r"^\| (?!what|-)", expected["benchmarks.md"], re.MULTILINE)) <= 10, (
        "a page that anyone can read"
    )
