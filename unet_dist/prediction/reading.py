"""Batches that are read while others are computed.

Owns the thread that reads ahead, and its end. Must not know the items' meaning.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from unet_dist.machine.threads import stay_on_device

AHEAD = 2
"""Batches read ahead."""

Item = TypeVar("Item")
Read = TypeVar("Read")


class Stopping(AbstractContextManager[ThreadPoolExecutor]):
    """Threads that drop what they were not asked in time, so that a failure elsewhere ends them."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=stay_on_device())

    def __enter__(self) -> ThreadPoolExecutor:
        self._pool.submit(int).result()  # the thread starts now: when memory is short it could not
        return self._pool

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def read_ahead(items: Iterable[Item], read: Callable[[Item], Read]) -> Iterator[Iterator[tuple[Item, Read]]]:
    """Read items in their order in a thread of their own, AHEAD of whoever takes them.

    Yields:
        Pairs of an item and its pixels.
    """
    with Stopping("reader") as thread:

        def taken() -> Iterator[tuple[Item, Read]]:
            waiting: deque[tuple[Item, Future[Read]]] = deque()
            for item in items:
                waiting.append((item, thread.submit(read, item)))
                if len(waiting) >= AHEAD:
                    ready, future = waiting.popleft()
                    yield ready, future.result()
            for ready, future in waiting:
                yield ready, future.result()

        yield taken()
