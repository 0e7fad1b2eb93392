"""The terminal: dated lines, the progress bar and tables.

Owns every line that a run prints. Must not know how a number is made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.color import Color
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.style import Style
from rich.table import Table
from rich.text import Text

from unet_dist.wording import hanging, one_line, shorten

_PICTURE_COLUMNS = 96
_ROUTINE_S = 1.0
"""Between two lines of one thing's progress: a log of faster ones is hard to read."""
_MOST_NAMED = 60
"""Classes of a legend."""


class Teller:
    """Talks to the person at the terminal or to the log of a job; the other processes' tellers are silent.

    On a terminal there is a progress bar; elsewhere dated lines.
    """

    def __init__(self, *, speaks: bool, console: Console | None = None) -> None:
        self.speaks = speaks
        self.console = console or make_console(soft_wrap=True)
        self._progress: Progress | None = None

    def is_low(self, num_lines: int) -> bool:
        """Whether this number of lines exceeds the terminal; a log has room for any."""
        return self.console.is_terminal and self.console.height < num_lines

    def say(self, text: str) -> None:
        """Say one line."""
        if not self.speaks:
            return
        text = hanging(text)
        if self.console.is_terminal:
            self.console.print(text, markup=False)
        else:
            self.console.print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}", markup=False)

    @contextmanager
    def progress(self, what: str, total: int, done: int = 0) -> Iterator[ProgressBar]:
        """Show how far something is, while it runs."""
        if not (self.speaks and self.console.is_terminal):
            bar = ProgressBar(self, what, total, done)
            try:
                yield bar
            finally:
                bar.catch_up()
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
        )
        # Of the description, the bar, the counts, the time left and what stands between them.
        room = self.console.width - len(what) - 12 - (2 * len(str(total)) + 1) - 8 - 4
        with Progress(*columns, console=self.console, transient=True) as shown:
            task = shown.add_task(what, total=total, completed=done, detail="")
            yield ProgressBar(
                self,
                what,
                total,
                done,
                lambda done, detail: shown.update(task, completed=done, detail=fitting(detail, room)),
            )

    def table(self, table: Table) -> None:
        """Print a table."""
        if self.speaks:
            self.console.print(table)

    def legend(self, names: Sequence[str], colours: np.ndarray) -> None:
        """Print names, each behind its colour, in a terminal that has colours; elsewhere nothing.

        Args:
            colours: (len(names), 3) uint8.
        """
        if not (self.speaks and self.console.is_terminal and self.console.color_system in ("truecolor", "256")):
            return
        line = Text("Colours: ")
        for name, colour in zip(names[:_MOST_NAMED], colours.tolist(), strict=False):
            line.append("\u25a0 ", Style(color=Color.from_rgb(*colour)))
            line.append(f"{shorten(one_line(name), 40)}  ")
        if len(names) > _MOST_NAMED:
            line.append(f"and {len(names) - _MOST_NAMED} more")
        self.console.print(line)

    def picture(self, path: Path) -> None:
        """Show a picture in a terminal that has the colours for it; elsewhere nothing."""
        if not (self.speaks and self.console.is_terminal and self.console.color_system in ("truecolor", "256")):
            return
        with Image.open(path) as file:
            image = file.convert("RGB")
        image.thumbnail((min(self.console.width, _PICTURE_COLUMNS), 10 * _PICTURE_COLUMNS))
        pixels = np.asarray(image)
        for upper, lower in zip(
            pixels[0::2], pixels[1::2], strict=False
        ):  # the upper half block shows two rows per line
            line = Text()
            for top, bottom in zip(upper.tolist(), lower.tolist(), strict=True):
                line.append("\u2580", Style(color=Color.from_rgb(*top), bgcolor=Color.from_rgb(*bottom)))
            self.console.print(line)


def make_console(*, soft_wrap: bool = False, quiet: bool = False) -> Console:
    """A console that takes words as they are: nothing in a name is markup or an emoji."""
    return Console(soft_wrap=soft_wrap, quiet=quiet, highlight=False, markup=False, emoji=False)


def fitting(detail: str, room: int) -> str:
    """As many parts of a detail as fit, the first ones; two spaces stand between them."""
    parts = detail.split("  ")
    while parts and len("  ".join(parts)) > room:
        parts.pop()
    return "  ".join(parts)


class ProgressBar:
    """Progress of one thing; without a terminal it speaks only when asked to."""

    def __init__(self, teller: Teller, what: str, total: int, done: int, show: Any = None) -> None:
        self._teller, self._what, self._total, self._show = teller, what, total, show
        self.done = done
        self._told_s, self._pending = -math.inf, ""

    def advance(self, count: int = 1, detail: str = "") -> None:
        """Move the bar on."""
        self.done += count
        if self._show:
            self._show(self.done, detail)

    def tell(self, detail: str, *, is_routine: bool = False) -> None:
        """Say a dated line where there is no bar.

        Args:
            is_routine: the next one says the same of later: at most one per second is printed, and the last one.
        """
        if self._show:
            return
        line, now_s = f"{self._what} {self.done}/{self._total}  {detail}".rstrip(), time.monotonic()
        if is_routine and now_s - self._told_s < _ROUTINE_S:
            self._pending = line
            return
        if is_routine:
            self._pending, self._told_s = "", now_s
        self.catch_up()
        self._teller.say(line)

    def catch_up(self) -> None:
        """Say the last line that was held back, if one was."""
        line, self._pending = self._pending, ""
        if line:
            self._teller.say(line)
