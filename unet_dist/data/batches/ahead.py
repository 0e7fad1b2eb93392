"""Reading ahead: the shares of a run's steps, read while the device computes.

Owns who reads, and how much before it is asked for: one share that is held at once, or a couple of micro-batches of one that is
not, those of the next step among them. The labels of this share are counted while the step before it is computed.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unet_dist.data.batches.label_counts import LabelCounts, no_labels
from unet_dist.data.batches.shares import RunShares, SharePlan, StepShare, UnreadBatches, WindowPlace
from unet_dist.data.batches.windows import WindowBatch
from unet_dist.errors import DataError
from unet_dist.machine.threads import stay_on_device
from unet_dist.wording import first_line

AHEAD = 2
"""Micro-batches that the thread reads beyond the one that is computed. A worker process has as many by torch's default."""

_LACK_OF_SHARED_MEMORY = ("shared memory", "Bus error", "No space left on device")

Part = SharePlan | list[WindowPlace]
"""A portion that is read at once: a share that is held at once, or a micro-batch of another."""


def read_ahead(
    shares: RunShares, steps: range, *, num_workers: int, pin_memory: bool, passes: int = 1
) -> Generator[StepShare, None, None]:
    """Yield the shares of steps in order, read while the device computes: by worker processes, or by a thread for 0.

    To be closed by whoever does not read to the end.

    Args:
        passes: how often the micro-batches of a share are gone through, where they are not held at once.
    """
    plans: dict[int, SharePlan] = {}
    counts: dict[int, Future[LabelCounts]] = {}
    is_left = threading.Event()

    def count(plan: SharePlan) -> LabelCounts:
        # A mask of a gigapixel takes many seconds: whoever leaves does not wait for the rest of it.
        batches = itertools.takewhile(lambda _: not is_left.is_set(), plan.batches)
        return sum(map(shares.count, batches), no_labels())

    def plan(step: int) -> SharePlan:
        if step not in plans:
            plans[step] = shares.plan(step)
            if not plans[step].is_kept:
                counts[step] = counter.submit(count, plans[step])
        return plans[step]

    def parts() -> Iterator[Part]:
        for step in steps:
            share = plan(step)
            if step + 1 in steps:
                plan(step + 1)  # its labels are counted from now on
            if share.is_kept:
                yield share
            else:
                for _ in range(passes):
                    yield from share.batches

    reading: AbstractContextManager[Iterator[Any]]
    if num_workers:
        reading = _by_workers(_Parts(shares), parts(), num_workers, pin_memory)
    else:
        reading = closing(_by_thread(_Parts(shares, pin_memory), parts()))
    # The workers are forked before the first label is counted: no lock is held in the process that they copy.
    with ThreadPoolExecutor(1, thread_name_prefix="labels") as counter, reading as read:
        try:
            for step in steps:
                share = plan(step)
                if share.is_kept:
                    yield next(read)
                else:
                    batches = _BatchesAhead(shares, share, read, passes)
                    yield StepShare(step, batches, counts.pop(step).result())
                    batches.skip()
                del plans[step]
        finally:
            is_left.set()


@dataclass(frozen=True)
class _Parts(Dataset[StepShare | WindowBatch]):
    """Reads parts, as torch's DataLoader wants it."""

    shares: RunShares
    pin_memory: bool = False

    def __getitem__(self, part: Part) -> StepShare | WindowBatch:
        if isinstance(part, SharePlan):
            return self.shares.read(part, pin_memory=self.pin_memory)
        return self.shares.read_batch(part, pin_memory=self.pin_memory)


class _BatchesAhead(UnreadBatches):
    """The micro-batches of a share that come along as they are read ahead, so many times, and are read anew after that."""

    def __init__(self, shares: RunShares, plan: SharePlan, read: Iterator[WindowBatch], passes: int) -> None:
        super().__init__(shares, plan.batches)
        self._read = read
        self._left = passes * len(self)

    def __iter__(self) -> Iterator[WindowBatch]:
        self.skip(self._left % len(self))  # of a pass that was broken off
        if not self._left:
            yield from super().__iter__()
        else:
            for _ in range(len(self)):
                self._left -= 1
                yield next(self._read)

    def skip(self, count: int | None = None) -> None:
        """Let go of this number, or of all that are still to come."""
        for _ in range(self._left if count is None else count):
            self._left -= 1
            next(self._read)


def _by_thread(read: _Parts, parts: Iterable[Part]) -> Generator[Any, None, None]:
    with ThreadPoolExecutor(1, thread_name_prefix="crops", initializer=stay_on_device()) as thread:
        ready: deque[Future[StepShare | WindowBatch]] = deque()
        for part in parts:
            ready.append(thread.submit(read.__getitem__, part))
            while len(ready) > (1 if isinstance(part, SharePlan) else AHEAD):
                yield ready.popleft().result()
        while ready:
            yield ready.popleft().result()


@dataclass(frozen=True)
class _Shared(Dataset[Any]):
    """The same, moved to shared memory by whoever reads it.

    torch moves it in a thread behind the worker's back, which only prints that there is no room: the run would wait for ever.
    """

    read: Dataset[Any]

    def __getitem__(self, part: Any) -> Any:
        item = self.read[part]
        for tensor in _tensors_in(item):
            tensor.share_memory_()
        return item


def _tensors_in(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors_in(one)
    elif is_dataclass(value):
        for each in fields(value):
            yield from _tensors_in(getattr(value, each.name))


@contextmanager
def _by_workers(
    read: Dataset[Any], parts: Iterable[Any], num_workers: int, pin_memory: bool
) -> Iterator[Iterator[Any]]:
    items = iter(
        DataLoader(
            _Shared(read),
            batch_size=None,
            sampler=parts,
            num_workers=num_workers,
            pin_memory=pin_memory,
            worker_init_fn=_ignore_signals,
        )
    )
    try:
        yield items
    except RuntimeError as error:  # torch has no type for it, and tells it by signals and words
        said = f"{error} {error.__cause__}"  # torch 2.6 says the signal in the cause alone
        if not any(word in said for word in _LACK_OF_SHARED_MEMORY):
            raise
        raise DataError(
            "num_workers: worker processes hand crops over in shared memory (/dev/shm), which is full or too small. Make it larger "
            f"(docker run --shm-size 8g), or set --num_workers 0. torch says: {first_line(error)}"
        ) from error
    finally:
        # An error holds the iterator in its traceback, and at exit Python ends its children by the signal that these
        # ignore, and waits: the process would hang. torch has no public name for this.
        items._shutdown_workers()  # type: ignore[attr-defined]


def _ignore_signals(_worker: int) -> None:
    """Leave the wish to stop to the main process of a rank, which ends its workers in order."""
    import signal

    ignore: Callable[[int], object] = lambda number: signal.signal(number, signal.SIG_IGN)  # noqa: E731
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        ignore(number)
