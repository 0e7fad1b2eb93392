"""The terminal: dated lines, the progress bar and tables.

Owns every line that a run prints. Must not know how a number is made.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


class Teller:
    """Talks to the person at the terminal or to the log of a job; the other processes' tellers are silent.

    On a terminal there is a progress bar; elsewhere dated lines.
    """

    def __init__(self, *, speaks: bool, console: Console | None = None) -> None:
        self.speaks = speaks
        self.console = console or Console(soft_wrap=True, highlight=False)
        self._progress: Progress | None = None

    def say(self, text: str) -> None:
        """Say one line."""
        if not self.speaks:
            return
        if self.console.is_terminal:
            self.console.print(text, markup=False)
        else:
            self.console.print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}", markup=False)

    @contextmanager
    def progress(self, what: str, total: int, done: int = 0) -> Iterator[ProgressBar]:
        """Show how far something is, while it goes on."""
        if not (self.speaks and self.console.is_terminal):
            yield ProgressBar(self, what, total, done)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(what, total=total, completed=done, detail="")
            yield ProgressBar(
                self, what, total, done, lambda done, detail: bar.update(task, completed=done, detail=detail)
            )

    def table(self, table: Table) -> None:
        """Print a table."""
        if self.speaks:
            self.console.print(table)


class ProgressBar:
    """Progress of one thing; without a terminal it speaks only when asked to."""

    def __init__(self, teller: Teller, what: str, total: int, done: int, show: Any = None) -> None:
        self._teller, self._what, self._total, self._show = teller, what, total, show
        self.done = done

    def advance(self, count: int = 1, detail: str = "") -> None:
        """Move the bar on."""
        self.done += count
        if self._show:
            self._show(self.done, detail)

    def tell(self, detail: str) -> None:
        """Say a dated line where there is no bar."""
        if not self._show:
            self._teller.say(f"{self._what} {self.done}/{self._total}  {detail}")
