"""Write the pages of figures from docs/evidence/*.json: benchmarks.md, and one page for each topic.

    python -m tests.measure.pages

A test compares the pages with the records, so nobody edits them by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.measure.figures import FIGURES, TOPICS
from tests.measure.record import EVIDENCE
from unet_dist.wording import counted

Record = Mapping[str, Any]


def main() -> None:
    """Write all pages."""
    for name, text in pages(EVIDENCE).items():
        (EVIDENCE / name).write_text(text, encoding="utf-8")


def pages(evidence: Path) -> dict[str, str]:
    """The pages by the names of their files."""
    records = {topic: read_topic(evidence / f"{topic}.json") for topic in TOPICS}
    records = {topic: rows for topic, rows in records.items() if rows}
    return {
        "benchmarks.md": first_page(records),
        **{f"{topic}.md": topic_page(TOPICS[topic], rows) for topic, rows in records.items()},
    }


def read_topic(file: Path) -> dict[str, Record]:
    """The records of a topic, in the order of the list of figures."""
    stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {name: stored[name] for name in FIGURES if name in stored}


def first_page(records: Mapping[str, Mapping[str, Record]]) -> str:
    """The headlines of all topics, and the way to each."""
    rows = [row for rows in records.values() for name, row in rows.items() if FIGURES[name].is_headline]
    links = [f"- [{TOPICS[topic]}]({topic}.md): {counted(len(rows), 'figure')}" for topic, rows in records.items()]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "Each figure is read from the output of a command. The pages by topic name the command, machine, date and commit.",
            "",
            *table(rows),
            "",
            *links,
            "",
            "```{toctree}",
            ":hidden:",
            "",
            *records,
            "```",
            "",
            "To measure one again: `python -m tests.measure.record NAME`, then `python -m tests.measure.pages`.",
            "",
        ]
    )


def topic_page(title: str, records: Mapping[str, Record]) -> str:
    """The figures of a topic, and how each was measured."""
    lines = [f"# {title}", "", *table(list(records.values())), "", "## How they were measured", ""]
    for name, row in records.items():
        machine = row["machine"]
        lines += [
            f"**{name}**: {row['date']}, commit {row['commit']}, {counted(machine['cores'], 'core')} of {machine['device']}, "
            f"{machine['memory_bytes'] / 2**30:.0f} GiB, torch {machine['torch']}; {row['seconds']} s.",
            "",
            "```bash",
            row["command"],
            "```",
            "",
        ]
    return "\n".join(lines)


def table(rows: list[Record]) -> list[str]:
    """A table of figures."""
    head = ["| what | figure | against |", "|---|---|---|"]
    return head + [f"| {row['what']} | {row['figure']} | {row['against']} |" for row in rows]


if __name__ == "__main__":
    main()
