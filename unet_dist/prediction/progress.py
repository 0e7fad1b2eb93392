"""How far a prediction is, over all processes.

Owns the reading of the journal while others write it: no process is asked, and none waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from unet_dist.prediction.journal import Done
from unet_dist.prediction.run import Totals
from unet_dist.prediction.work import Work
from unet_dist.terminal import ProgressBar
from unet_dist.wording import duration

_LOOK_S = 1.0
_TELL_S = 30.0


class TileProgress:
    """Counts tiles and pixels of the batches in the journal, each once."""

    def __init__(self, work: Work, before: Done) -> None:
        self._work = work
        self._counted = set(before.batches)
        self.total = Totals.of(work)
        self.at_start = Totals.of(work, sorted(before.batches))
        self.now = self.at_start

    def look(self) -> int:
        """Return the number of tiles that have come since the last look."""
        new = self._work.journal.done().batches - self._counted
        self._counted |= new
        more = Totals.of(self._work, sorted(new))
        self.now = Totals(self.now.tiles + more.tiles, self.now.pixels + more.pixels)
        return more.tiles

    def detail(self, seconds: float) -> str:
        """Say megapixels a second since the start, and the time left."""
        done = self.now.pixels - self.at_start.pixels
        if not done or seconds <= 0:
            return ""
        rate = done / seconds
        left = (self.total.pixels - self.now.pixels) / rate
        return f"{rate / 1e6:.3g} Mpx/s, {duration(left)} left"


@contextmanager
def show_progress(progress: TileProgress, bar: ProgressBar) -> Iterator[None]:
    """Move the bar, or say a dated line now and then, from a thread of its own."""
    started_s, over = time.monotonic(), threading.Event()

    def watch() -> None:
        told_s = started_s
        while not over.wait(_LOOK_S):
            now_s = time.monotonic()
            detail = progress.detail(now_s - started_s)
            bar.advance(progress.look(), detail)
            if now_s - told_s > _TELL_S:
                told_s = now_s
                bar.tell(detail)

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
