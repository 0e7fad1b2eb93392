"""What a run tells: metrics.jsonl, trackers, the progress bar and the dated lines.

Owns every line that a run prints and every number that it records. Must not know how a number is made.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from unet_dist.files import write_whole, writing_failed
from unet_dist.metrics import Scores


class MetricsLog:
    """metrics.jsonl: one object a line, each with step and split.

    Lines are flushed as they come. A resumed run drops those after its checkpoint: they will be written again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rewind(self, step: int) -> None:
        """Keep the lines up to a step, and drop a last line that a kill cut short."""
        kept = [record for record in read_metrics(self.path) if record["step"] <= step]
        write_whole(self.path, "".join(_line(record) for record in kept).encode())

    def append(self, record: dict[str, Any]) -> None:
        """Write one object.

        Raises:
            DataError: the disk is full or read-only, or the run's folder is gone.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(record))
        except OSError as error:
            raise writing_failed(self.path, error) from error


def _line(record: dict[str, Any]) -> str:
    """JSON as everybody reads it: a number that is none is null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
    return json.dumps(clean) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The objects of a metrics.jsonl up to the first line that is none: a kill cut it short, or the file is damaged."""
    records = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except (json.JSONDecodeError, RecursionError):
                break
            if not isinstance(record, dict) or not isinstance(record.get("step"), int):
                break
            records.append(record)
    return records


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


def scores_table(title: str, scores: Scores, class_names: Sequence[str], ignore_index: int | None) -> Table:
    """The per-class IoU as a table: class, IoU, share of the valid pixels."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("class")
    table.add_column("IoU", justify="right")
    table.add_column("pixels", justify="right")
    total = max(1, int(scores.confusion.sum()))
    for index, name in enumerate(class_names):
        if index == ignore_index:
            continue
        iou = scores.iou[index]
        share = int(scores.confusion[index].sum()) / total
        table.add_row(name, "-" if iou is None else f"{iou:.4f}", f"{share:.2%}")
    table.add_section()
    table.add_row("mean IoU", f"{scores.miou:.4f}", "")
    table.add_row("pixel accuracy", f"{scores.pixel_accuracy:.4f}", "")
    return table


def duration(seconds: float) -> str:
    """Seconds as people read them: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
