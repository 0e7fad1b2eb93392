"""Proves that the pages are easy to read, and that every figure on the pages of benchmarks comes from a record."""

from __future__ import annotations

import re

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


def test_pages_of_figures_are_those_of_the_records() -> None:
    expected = pages(EVIDENCE)
    assert {name: (EVIDENCE / name).read_text(encoding="utf-8") for name in expected} == expected
    assert 6 <= len(re.findall(r"^\| (?!what|-)", expected["benchmarks.md"], re.MULTILINE)) <= 10, (
        "a page that anyone can read"
    )
