"""Measure the prose of the pages: sentences by their words, table cells by their characters, and habits to drop; these in the
docstrings, help texts, messages and comments of the package, and in the docstrings of tests, too.

python -m tests.docs.prose
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "unet_dist").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SCRIPTS = sorted(
    path
    for folder in ("launch", "configs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".sh", ".sbatch", ".yaml")
)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MOST_WORDS = 18
"""The median sentence of the pages has at most so many words."""
MOST_CHARACTERS = 60
"""In a table cell, as a reader sees it: the words of a link, not its address."""
_PER = (
    r"(?:\b(?:one|once|twice|ids?|logits|operations|crops|units|megapixels|images|tensor|launcher|threads|bits|integers"
    r"|launches|faults|marks?|rows?|deviation|pixels|px|work|characters|shares|\d+)|\}) an? "
    r"(?:second|class|pixel|process|step|window|channel|layer|node|sample|value|line|object|split|term|image|run|row|record|side"
    r"|epoch)\b"
)
HABITS = re.compile(
    r"\b(?:is|are|was|were|be|been) (?:said|told)\b|\bgo(?:es)? on\b|\bgoing on\b|\bwent on\b|\bof such\b"
    r"|\bwhat (?:is|are|was|were)\b(?! (?:wrong|expected)\b)(?![^.?\n]*\?)|" + _PER,
    re.IGNORECASE | re.MULTILINE,
)
"""Turns of phrase that a reader stumbles over."""


def main() -> None:
    """Print the medians by page, and the cells and habits beyond the limits."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lengths = [len(sentence.split()) for sentence in sentences(text)]
        if lengths:
            print(f"{statistics.median(lengths):5.1f} {max(lengths):4d} {len(lengths):4d}  {page.relative_to(ROOT)}")
        for cell in long_cells(text):
            print(f"      {len(cell)} characters: {cell}")
        for habit in habits(text):
            print(f"      habit: {habit}")
    for path in MODULES:
        for habit in code_habits(path):
            print(f"{path.relative_to(ROOT)}:{habit}")
    for path in TESTS:
        for habit in docstring_habits(path):
            print(f"{path.relative_to(ROOT)}:{habit}")
    print(f"median of all: {median_words():.1f} words")


def median_words() -> float:
    """The median length of all sentences."""
    return statistics.median(
        len(sentence.split()) for page in PAGES for sentence in sentences(page.read_text(encoding="utf-8"))
    )


def without_code(text: str) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def as_seen(text: str) -> str:
    """The words of a page, without addresses and marks."""
    return re.sub(r"[`*]", "", re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text))


def sentences(text: str) -> list[str]:
    """The sentences of paragraphs and list items; headings, tables and code are none."""
    lines = [line for line in without_code(text).splitlines() if not re.match(r"\s*(?:#|\||    )", line)]
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.)\s)", as_seen("\n".join(lines)))
    joined = (re.sub(r"^\s*(?:[-*]|\d+\.)\s+", "", " ".join(block.split())) for block in blocks)
    return [part for block in joined for part in re.split(r"(?<=[.!?])\s+", block) if len(part.split()) > 1]


def long_cells(text: str) -> list[str]:
    """The cells of tables that are too long to read at a glance."""
    rows = [line for line in without_code(text).splitlines() if line.startswith("|")]
    cells = [as_seen(cell).strip() for row in rows for cell in re.split(r"(?<!\\)\|", row)]
    return [cell for cell in cells if len(cell) > MOST_CHARACTERS]


def code_habits(path: Path) -> list[str]:
    """The turns of phrase to drop in the strings and comments of a module, each with its line."""
    source = path.read_text(encoding="utf-8")
    strings = [
        (node.lineno, node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
    ]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [(token.start[0], token.string.lstrip("# ")) for token in tokens if token.type == tokenize.COMMENT]
    found = [(line, match) for line, text in strings + comments for match in HABITS.finditer(" ".join(text.split()))]
    return [f"{line}: {match.group(0)[:60]}" for line, match in sorted(found, key=lambda each: each[0])]


def docstring_habits(path: Path) -> list[str]:
    """The turns of phrase to drop in the docstrings of a module, each with the line where its docstring starts."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = " ".join((ast.get_docstring(node) or "").split())
            found += [(node.body[0].lineno, match.group(0)) for match in HABITS.finditer(text)]
    return [f"{line}: {turn}" for line, turn in sorted(found)]


def habits(text: str) -> list[str]:
    """The turns of phrase to drop."""
    return [match.group(0) for match in HABITS.finditer(without_code(text))]


if __name__ == "__main__":
    main()
