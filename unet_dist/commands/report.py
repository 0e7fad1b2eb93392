"""`unet-dist report`: a page of a run, or a comparison of several."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.cells import cell_len
from rich.table import Table

from unet_dist.command_line.command import Command
from unet_dist.config.options import ReportOptions
from unet_dist.errors import ConfigError
from unet_dist.processes.launcher import is_first
from unet_dist.report.comparison import Column, columns_of, compare
from unet_dist.report.contents import RunContents, read_run
from unet_dist.report.page import comparison_page, run_page
from unet_dist.report.plots import draw_plots
from unet_dist.report.summary import missing, missing_together
from unet_dist.storage.files import require_writable, write_whole
from unet_dist.terminal import Teller
from unet_dist.wording import one_line

COMMAND = Command(
    about="write one self-contained HTML page about a run, or comparing several",
    usage="RUN [RUN ...] [--output FILE.html] [--key value ...]",
    place=90,
    needs="the folders of runs",
    options="config.options:ReportOptions",
)


def run(words: Sequence[str], options: ReportOptions) -> None:
    """Report on RUN, or compare RUN RUN ..."""
    if not is_first(os.environ):
        return  # nothing to share out: the first process writes the page
    started = time.perf_counter()
    teller = Teller(speaks=True)
    runs = _named_apart([read_run(word) for word in words])
    page = Path(options.output) if options.output else _default_output(runs)
    if page.is_dir():
        raise ConfigError(f"output: got the folder {page}, expected a file. Set --output {page / 'report.html'}.")
    require_writable(page.parent, "output")
    splits = [found.shown_split(options.split) for found in runs]
    if len(runs) == 1 and not runs[0].is_run:
        raise ConfigError(
            f"report: got {words[0]}, which holds an evaluation and no run, expected a run or several to compare. "
            f"Name a run beside it: unet-dist report RUN {words[0]}."
        )
    if len(runs) == 1:
        html = run_page(runs[0], split=options.split, max_pictures=options.pictures)
        for text, command in missing(runs[0], splits[0], options.split):
            teller.say(text if command is None else f"{text} {command}")
        if options.figures:
            for path in draw_plots(runs[0], splits[0], page.parent / "figures"):
                teller.say(f"Written: {path}")
    else:
        html = comparison_page(runs, split=options.split, max_pictures=options.pictures)
        teller.table(_comparison_table(runs, splits, teller.console.width))
        for text, names, commands in missing_together(runs, splits, options.split):
            teller.say(" ".join([f"{', '.join(names)}:", text, "; ".join(commands)]).strip())
    content = html.encode()
    write_whole(page, content)
    seconds = time.perf_counter() - started
    teller.say(
        f"Written: {page} ({len(content) / 1e6:.1f} MB, {seconds:.1f} s). Open it in a browser; it needs no network."
    )


def _default_output(runs: Sequence[RunContents]) -> Path:
    return runs[0].folder / "report.html" if len(runs) == 1 else Path("report.html")


def _named_apart(runs: list[RunContents]) -> list[RunContents]:
    """Give runs whose folders have one name their parents' names too."""
    import dataclasses

    names = [found.name for found in runs]
    if len({found.folder.resolve() for found in runs}) < len(runs):
        raise ConfigError("report: got the same run twice, expected different ones. Name each once.")
    return [
        dataclasses.replace(found, name="/".join(found.folder.resolve().parts[-2:]))
        if names.count(found.name) > 1
        else found
        for found in runs
    ]


_SHOWN = (
    Column.RUN,
    Column.MODEL,
    Column.INPUT,
    Column.STEPS,
    Column.MIOU,
    Column.PUBLISHED,
    Column.TIME,
    Column.MEMORY,
)

_PIECE = re.compile(r"\S{3,}?[-_/:]+(?=\w)|\S+\s*")
"""What a line may end after: a word, or a joint of a name. U-Net stays whole."""

_GAP = 2


def _comparison_table(runs: Sequence[RunContents], splits: Sequence[str | None], width: int) -> Table:
    """The table for a terminal of that many characters per line, in which no word is broken while its pieces fit."""
    columns = columns_of(runs, splits)
    table_rows = compare(runs, splits)
    is_published = any(row[columns.index(Column.PUBLISHED)].key is not None for row in table_rows)
    shown = [column for column in _SHOWN if is_published or column is not Column.PUBLISHED] + columns[len(Column) :]
    rows = [[one_line(row[columns.index(column)].text) for column in shown] for row in table_rows]
    headings = [column.value for column in shown]
    widths = _widths(list(zip(headings, *rows, strict=True)), width - _GAP * (len(shown) - 1))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for column, side in zip(shown, widths, strict=True):
        name = _folded(column.value, side)
        table.add_column(name, justify="right" if column.is_number else "left", overflow="fold", width=side)
    for row in rows:
        table.add_row(*(_folded(text, side) for text, side in zip(row, widths, strict=True)))
    return table


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """What each column, a heading above values, needs for its longest piece; the rest goes to values, then to headings."""
    widths = [max(cell_len(piece.rstrip()) for text in texts for piece in _PIECE.findall(text)) for texts in columns]
    left = room - sum(widths)
    for first in (1, 0):
        wishes = [max(map(cell_len, texts[first:])) - least for texts, least in zip(columns, widths, strict=True)]
        for index in sorted(range(len(columns)), key=wishes.__getitem__):  # the most columns whole
            more = max(0, min(wishes[index], left))
            widths[index] += more
            left -= more
    return widths


def _folded(text: str, width: int) -> str:
    lines = [""]
    for piece in _PIECE.findall(text):
        if lines[-1] and cell_len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)
