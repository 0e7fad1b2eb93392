"""A prediction: many images of any size, by any number of processes, through being killed.

Owns the order of things: agree on the work, compute one's share, wait for the others, finish. Reading, computing
and writing overlap, each at most a few batches ahead of the next; the first failure of one of them ends all. Must not know
how pixels become values.

Batches are formed over all images, and given to processes whole, so that the files do not depend on their number. The
processes talk twice: at the start they agree on the journal, at the end they wait for each other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_dist.errors import DataError, LaunchError
from unet_dist.imaging.encoded import split_page
from unet_dist.imaging.formats import files_beside
from unet_dist.imaging.image import ImageReader
from unet_dist.machine.cores import num_cores
from unet_dist.models.contract import as_module
from unet_dist.models.normalisation import standardised_once
from unet_dist.prediction.fetching import Fetching
from unet_dist.prediction.handover import Handover
from unet_dist.prediction.journal import Done, DoneList, Journal
from unet_dist.prediction.reading import AHEAD, Stopping, read_ahead
from unet_dist.prediction.shares import BatchShare, share_finishing, share_out
from unet_dist.prediction.tiles import Piece, compute_pieces, read_piece
from unet_dist.prediction.work import Work
from unet_dist.prediction.writing import Writing, finish_image, remove_scratches


def compute_share(
    work: Work,
    share: BatchShare,
    done: Done,
    rank: int,
    *,
    is_stopped: Callable[[], bool] = lambda: False,
    around_forward: Callable[[], AbstractContextManager[Any]] = nullcontext,
    finishers: int = 1,
) -> None:
    """Compute one process's share and finish the images that are its own; returns early when stopped.

    Args:
        done: the work of earlier launches.
        is_stopped: asked before each batch.
        around_forward: context of the forward passes.
        finishers: images whose outputs are made at once, beside the computing.

    Raises:
        DataError, ConfigError: the first failure of reading, computing or writing.
    """
    with ExitStack() as stack:
        stack.enter_context(_short_of_memory())
        stack.enter_context(
            around_forward()
        )  # once: mixed precision then casts the weights once, and not for each batch
        stack.enter_context(standardised_once(as_module(work.tiles.model)))
        handover = stack.enter_context(Handover())
        reader = stack.enter_context(_Reading(work, share, handover))
        writer = stack.enter_context(Writing(work, share, done, rank, finishers, handover))
        # Left in reverse: first the threads stop, then what they use is closed.
        batches = stack.enter_context(read_ahead(share.batches, reader.read))
        writes = stack.enter_context(Stopping("writer"))
        writing: deque[Future[None]] = deque(writes.submit(writer.finish, image) for image in share.finish_now)
        for number, pieces in batches:
            if is_stopped():
                break
            values = Fetching(compute_pieces(work.tiles, pieces))
            writing.append(writes.submit(writer.write, number, pieces, values))
            while len(writing) > AHEAD:
                writing.popleft().result()
        for written in writing:
            written.result()
        writes.submit(writer.end).result()


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


class _Reading(AbstractContextManager["_Reading"]):
    """Reads batches; keeps open the images of the last batch only, as batches come in the order of images.

    An image of which nothing more is to be read is handed over where this process is to lay its labels over it.
    """

    def __init__(self, work: Work, share: BatchShare, handover: Handover) -> None:
        self._work = work
        self._remaining = {image: count for image, count in share.remaining.items() if work.jobs[image].overlay}
        self._handover = handover
        self._readers: dict[int, ImageReader] = {}

    def read(self, number: int) -> list[Piece]:
        work, refs = self._work, self._work.batches[number]
        images = {ref.image for ref in refs}
        for image in self._readers.keys() - images:
            self._readers.pop(image).close()
        for image in images - self._readers.keys():
            self._readers[image] = work.open_reader(work.jobs[image].source)
        pieces = [
            read_piece(work.tiles, image, self._readers[image], work.plans[image], work.plans[image][tile])
            for image, tile in refs
        ]
        for image in images & self._remaining.keys():
            self._remaining[image] -= 1
            if self._remaining[image] == 0:
                self._handover.put(image, self._readers.pop(image))
        return pieces

    def __exit__(self, *_: object) -> None:
        for reader in self._readers.values():
            reader.close()


def finish_shared(work: Work, share: BatchShare, rank: int, world_size: int) -> bool:
    """Finish one's part of the images that several processes computed; False where the prediction is not complete.

    All processes must have ended their shares, and none may read on before all have.

    Raises:
        DataError: an output cannot be written.
    """
    if len(work.journal.done().batches) < len(work.batches):
        return False
    sizes = [work.jobs[image].shape[0] * work.jobs[image].shape[1] for image in share.shared]
    finished = DoneList(work.journal, rank)
    # All have ended their shares, so the cores have nothing else to do.
    num_threads = max(1, num_cores() // max(1, min(world_size, len(share.shared))))
    for image in share_finishing(share.shared, sizes, rank, world_size):
        finish_image(work, image, num_threads)
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
                "why; then run the same command to resume. --collective_timeout_s sets how long to wait."
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


def share_of(work: Work, done: Done, rank: int, world_size: int) -> BatchShare:
    """Give a process its part of the remaining work."""
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
        named = str(source.resolve())
        source = split_page(source)[0]
        parts = (source / name for name in ("zarr.json", ".zarray", ".zgroup")) if source.is_dir() else (source,)
        there = [next(part for part in parts if part.exists()), *files_beside(source)]
        states = [part.stat() for part in there]
        records.append([named, sum(s.st_size for s in states), max(s.st_mtime_ns for s in states)])
    return records
