"""How much a prediction has to do and how far it is, over all processes.

Owns the reading of the journal while others write it: no process is asked, and none waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from unet_dist.config.options import PredictOptions
from unet_dist.prediction.journal import Done
from unet_dist.prediction.run import Totals
from unet_dist.prediction.work import Work
from unet_dist.terminal import ProgressBar
from unet_dist.wording import counted, duration

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
        """Say megapixels per second since the start, and the time left."""
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


def announce(
    work: Work, done: Done, options: PredictOptions, tile_size: int, scaled: Sequence[int] | None
) -> Iterator[str]:
    """Say how much is ahead, and what differs from what one might expect."""
    total, jobs = Totals.of(work), work.jobs
    images = f"{counted(len(jobs), 'image')}"
    kind = "blended windows" if options.blend else "windows"
    tiles = f"{counted(total.tiles, 'tile')} from {kind} of at most {tile_size} px" if tile_size else "each as a whole"
    if tile_size and total.tiles == len(jobs):
        tiles = "each in one window"
    scale = "" if scaled is None else f", scaled to {scaled[0]}x{scaled[1]} as the network was trained"
    yield f"{images}, {total.pixels / 1e6:.3g} Mpx, {tiles}{scale}"
    if options.blend:
        yield "Blended: the labels depend on the tile size."
    if options.overlay and (num_without := sum(job.overlay is None for job in jobs)):
        yield f"No overlay for {counted(num_without, 'image')} too large to be made in memory."
    if done.batches or done.images:
        num_done = Totals.of(work, sorted(done.batches)).tiles
        yield f"Resuming: {num_done} tiles and {len(done.images)} of the images were finished before."
