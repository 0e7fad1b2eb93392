"""A prediction: many images of any size, by any number of processes, through being killed.

Owns the order of things: agree on what there is to do, compute one's share, wait for the others, finish. Reading, computing
and writing overlap, each at most a few batches ahead of the next; the first failure of one of them ends all. Must not know
how pixels become values.

Batches are formed over all images, and given to processes whole, so that the files do not depend on their number. The
processes talk twice: at the start they agree on the journal, at the end they wait for each other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from unet_dist.errors import DataError, LaunchError
from unet_dist.files import sync_folder
from unet_dist.imaging.image import ImageReader
from unet_dist.imaging.palette import class_palette
from unet_dist.imaging.raster import write_raster
from unet_dist.imaging.scratch import Scratch
from unet_dist.imaging.writer import write_overlay
from unet_dist.prediction.exact import Piece
from unet_dist.prediction.jobs import Job, OpenReader
from unet_dist.prediction.journal import Done, DoneList, Journal
from unet_dist.prediction.shares import Share, share_finishing, share_out
from unet_dist.prediction.values import Recipe, blank
from unet_dist.tiling.batches import BatchPlan, plan_batches
from unet_dist.tiling.geometry import Tile, TilePlan

_AHEAD = 2
"""Batches read ahead, and batches computed and not yet written."""
_COMMIT_S = 2.0
"""Work that a kill may cost: batches go into the journal this often, as each time waits for the disk."""

Values = dict[str, Tensor]


class Tiles(Protocol):
    """How tiles are planned, read and computed: exactly or blended."""

    def plan(self, image_shape: tuple[int, int], tile_size: int) -> TilePlan: ...
    def read(self, image: int, reader: ImageReader, plan: TilePlan, tile: Tile) -> Piece: ...
    def compute(self, pieces: Sequence[Piece], halo: int) -> list[Values]: ...


class Work:
    """What there is to do, the same on every process.

    Args:
        window_batch: windows computed at once.
        recipe: which rasters are made.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        journal: Journal,
        tiles: Tiles,
        recipe: Recipe,
        *,
        num_classes: int,
        tile_size: int,
        window_batch: int,
        open_reader: OpenReader,
    ) -> None:
        self.jobs = jobs
        self.journal = journal
        self.tiles = tiles
        self.num_classes = num_classes
        self.rasters = recipe.rasters(num_classes)
        self.open_reader = open_reader
        self.plans = [tiles.plan(job.shape, tile_size) for job in jobs]
        self.batches: BatchPlan = plan_batches(self.plans, window_batch)

    def without_lost(self, done: Done) -> Done:
        """Take out of the journal what somebody has deleted since: outputs, or rasters in the making."""
        images = {i for i in done.images if all(path.exists() for path in self.jobs[i].outputs.values())}
        batches = {
            number
            for number in done.batches
            if all(image in images or self._has_scratch(image) for image in {r.image for r in self.batches[number]})
        }
        return Done(batches, images)

    def _has_scratch(self, image: int) -> bool:
        return all(self.journal.scratch_path(image, kind).exists() for kind in self.rasters)


def compute_share(
    work: Work,
    share: Share,
    done: Done,
    rank: int,
    *,
    is_stopped: Callable[[], bool] = lambda: False,
    around_forward: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> None:
    """Compute one process's share and finish the images that are its own; returns early when stopped.

    Args:
        done: what was done before this launch.
        is_stopped: asked before each batch.
        around_forward: context of the forward pass.

    Raises:
        DataError, ConfigError: the first failure of reading, computing or writing.
    """
    with ExitStack() as stack:
        stack.enter_context(_short_of_memory())
        reader = stack.enter_context(_Reading(work))
        writer = stack.enter_context(_Writing(work, share, done, rank))
        # Left in reverse: first the threads stop, then what they use is closed.
        reads = stack.enter_context(_Stopping(ThreadPoolExecutor(1, thread_name_prefix="reader")))
        writes = stack.enter_context(_Stopping(ThreadPoolExecutor(1, thread_name_prefix="writer")))
        writing: deque[Future[None]] = deque(writes.submit(writer.finish, image) for image in share.finish_now)
        reading: deque[tuple[int, Future[list[Piece]]]] = deque()
        numbers = iter(share.batches)
        while True:
            while len(reading) < _AHEAD and (number := next(numbers, None)) is not None:
                reading.append((number, reads.submit(reader.read, number)))
            if not reading or is_stopped():
                break
            number, future = reading.popleft()
            pieces = future.result()
            with around_forward():
                values = _compute(work, number, pieces)
            writing.append(writes.submit(writer.write, number, pieces, values))
            while len(writing) > _AHEAD:
                writing.popleft().result()
        for written in writing:
            written.result()
        writes.submit(writer.end).result()


def _compute(work: Work, number: int, pieces: Sequence[Piece]) -> list[Values | None]:
    """Compute the pieces that have pixels; None for those that are all background."""
    asked = [piece for piece in pieces if piece.straight is not None]
    halo = work.plans[work.batches[number][0].image].halo
    values = iter(work.tiles.compute(asked, halo) if asked else [])
    return [None if piece.straight is None else next(values) for piece in pieces]


@contextmanager
def _short_of_memory() -> Iterator[None]:
    """Say in a sentence that reading or writing found no memory; computing helps itself with smaller windows."""
    try:
        yield
    except MemoryError as error:
        raise DataError(
            f"Memory ran out while pixels were read or written: {str(error) or 'no more to be had'}. Free memory, or lower "
            "--window_batch or --tile_size."
        ) from error


class _Stopping(AbstractContextManager[ThreadPoolExecutor]):
    """A thread that drops what it was not asked in time, so that a failure elsewhere ends it."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def __enter__(self) -> ThreadPoolExecutor:
        self._pool.submit(int).result()  # the thread starts now: when memory is short it could not
        return self._pool

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Reading(AbstractContextManager["_Reading"]):
    """Reads batches; keeps open the images of the last batch only, as batches come in the order of images."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._readers: dict[int, ImageReader] = {}

    def read(self, number: int) -> list[Piece]:
        work, refs = self._work, self._work.batches[number]
        images = {ref.image for ref in refs}
        for image in self._readers.keys() - images:
            self._readers.pop(image).close()
        for image in images - self._readers.keys():
            self._readers[image] = work.open_reader(work.jobs[image].source)
        return [
            work.tiles.read(image, self._readers[image], work.plans[image], work.plans[image][tile])
            for image, tile in refs
        ]

    def __exit__(self, *_: object) -> None:
        for reader in self._readers.values():
            reader.close()


class _Writing(AbstractContextManager["_Writing"]):
    """Writes values into rasters in the making, keeps the journal, and finishes the images of this process."""

    def __init__(self, work: Work, share: Share, done: Done, rank: int) -> None:
        self._work = work
        self._remaining = dict(share.remaining)
        self._finished = done.images  # rewritten by nobody: their rasters in the making are gone
        self._list = DoneList(work.journal, rank)
        self._scratches: dict[tuple[int, str], Scratch] = {}
        self._uncommitted: list[int] = []
        self._has_new_files = False
        self._committed_s = time.monotonic()

    def write(self, number: int, pieces: Sequence[Piece], values: Sequence[Values | None]) -> None:
        """Write a batch."""
        for piece, entry in zip(pieces, values, strict=True):
            if piece.image in self._finished:
                continue
            for kind in self._work.rasters:
                scratch = self._scratch(piece.image, kind)
                if entry is None:
                    part = np.zeros((*scratch.shape[:-2], piece.tile.height, piece.tile.width), scratch.dtype)
                else:
                    part = entry[kind].cpu().numpy()  # here the device is waited for
                scratch.write(piece.tile.row, piece.tile.col, blank(kind, part, piece.seen))
        self._uncommitted.append(number)
        complete = []
        for image in {piece.image for piece in pieces}:
            if image in self._remaining:
                self._remaining[image] -= 1
                if self._remaining[image] == 0:
                    complete.append(image)
        if complete or time.monotonic() - self._committed_s > _COMMIT_S:
            self._commit()
        for image in sorted(complete):
            self.finish(image)

    def finish(self, image: int) -> None:
        """Make the outputs of an image whose rasters are complete."""
        for kind in self._work.rasters:
            if (image, kind) in self._scratches:
                self._scratches.pop((image, kind)).close()
        finish_image(self._work, image)
        self._list.append(images=[image])
        remove_scratches(self._work, image)

    def end(self) -> None:
        """Say that nothing more comes."""
        self._commit()
        self._list.append(is_end=True)

    def __exit__(self, *_: object) -> None:
        for scratch in self._scratches.values():
            scratch.close()

    def _scratch(self, image: int, kind: str) -> Scratch:
        if (image, kind) not in self._scratches:
            planes, dtype = self._work.rasters[kind]
            path = self._work.journal.scratch_path(image, kind)
            self._has_new_files |= not path.exists()
            self._scratches[image, kind] = Scratch(path, (*planes, *self._work.jobs[image].shape), dtype)
        return self._scratches[image, kind]

    def _commit(self) -> None:
        """Put what is written into the journal, once it is on the disk."""
        if self._uncommitted:
            for scratch in self._scratches.values():
                scratch.flush()
            if self._has_new_files:
                sync_folder(self._work.journal.folder)
                self._has_new_files = False
            self._list.append(batches=self._uncommitted)
            self._uncommitted.clear()
            self._close_idle()
        self._committed_s = time.monotonic()

    def _close_idle(self) -> None:
        """Keep a few rasters open: those of images shared with other processes are not closed by finishing."""
        for key in list(self._scratches)[: -4 * len(self._work.rasters)]:
            self._scratches.pop(key).close()


def finish_image(work: Work, image: int) -> None:
    """Make the outputs of an image from its rasters, each whole or not at all.

    Raises:
        DataError: an output cannot be written.
    """
    job, palette = work.jobs[image], class_palette(work.num_classes)
    with ExitStack() as stack:
        reader = stack.enter_context(work.open_reader(job.source))
        for kind, (planes, dtype) in work.rasters.items():
            path = work.journal.scratch_path(image, kind)
            scratch = stack.enter_context(Scratch(path, (*planes, *job.shape), dtype))
            values = scratch.values()
            colours = palette if kind == "labels" else None
            write_raster(job.outputs[kind], values, palette=colours, placement=reader.placement)
            if kind == "labels" and job.overlay is not None:
                write_overlay(job.overlay, reader.read(0, job.shape[0], 0, job.shape[1]), values, palette)


def remove_scratches(work: Work, image: int) -> None:
    """Delete the rasters in the making of a finished image."""
    for kind in work.rasters:
        work.journal.scratch_path(image, kind).unlink(missing_ok=True)


def finish_shared(work: Work, share: Share, rank: int, world_size: int) -> bool:
    """Finish one's part of the images that several processes computed; False where the prediction is not complete.

    All processes must have ended their shares, and none may read on before all have.

    Raises:
        DataError: an output cannot be written.
    """
    if len(work.journal.done().batches) < len(work.batches):
        return False
    sizes = [work.jobs[image].shape[0] * work.jobs[image].shape[1] for image in share.shared]
    finished = DoneList(work.journal, rank)
    for image in share_finishing(share.shared, sizes, rank, world_size):
        finish_image(work, image)
        finished.append(images=[image])
        remove_scratches(work, image)
    return True


def wait_for_others(
    journal: Journal, world_size: int, timeout_s: float, *, is_stopped: Callable[[], bool], pause_s: float = 0.2
) -> None:
    """Wait until every process has ended its share, as long as the journal grows: shares may take hours longer than another.

    Args:
        timeout_s: without any growth.

    Raises:
        LaunchError: nothing has come for so long.
    """
    grown_s, before = time.monotonic(), -1
    while (done := journal.done()).num_ended < world_size and not is_stopped():
        now = len(done.batches) + len(done.images) + done.num_ended
        if now != before:
            grown_s, before = time.monotonic(), now
        elif time.monotonic() - grown_s > timeout_s:
            raise LaunchError(
                f"{world_size - done.num_ended} of {world_size} processes have finished nothing for {timeout_s:.0f} s. See "
                "why; then start the same command again: it goes on where it was. --collective_timeout_s sets how long to wait."
            )
        time.sleep(pause_s)


@dataclass(frozen=True)
class Totals:
    """How much there is: tiles and pixels of each batch are counted once they are done."""

    tiles: int
    pixels: int

    @classmethod
    def of(cls, work: Work, batches: Sequence[int] | None = None) -> Totals:
        """Count some batches, or all images."""
        if batches is None:
            return cls(sum(map(len, work.plans)), sum(job.shape[0] * job.shape[1] for job in work.jobs))
        refs = [ref for number in batches for ref in work.batches[number]]
        sizes = (work.plans[image][tile] for image, tile in refs)
        return cls(len(refs), sum(tile.height * tile.width for tile in sizes))


def share_of(work: Work, done: Done, rank: int, world_size: int) -> Share:
    """Give a process its part of what is not done."""
    return share_out(
        work.plans,
        work.batches,
        done_batches=done.batches,
        done_images=done.images,
        rank=rank,
        world_size=world_size,
    )


def input_records(sources: Sequence[Path]) -> list[list[Any]]:
    """Say what the inputs are: path, bytes and time of change of each."""
    records = []
    for source in sources:
        parts = (source / name for name in ("zarr.json", ".zarray", ".zgroup")) if source.is_dir() else (source,)
        status = next(part for part in parts if part.exists()).stat()
        records.append([str(source.resolve()), status.st_size, status.st_mtime_ns])
    return records
