"""What torch's allocator on a GPU takes from the device for a sequence of tensors: more than they hold, as freed memory has gaps.

Owns the rules of growing segments (`expandable_segments:True`, which machine/allocator.py sets), for one stream. Must not know
the tensors' meaning.

Source: c10/cuda/CUDACachingAllocator.cpp of torch 2.13: round_size, get_free_block, try_allocate_expandable_block, should_split.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

ALIGNMENT, SMALL = 512, 2**20
"""Bytes: every tensor is rounded up to the first; up to the second it is one of the small pool."""
_PAGES = {True: 2 * 2**20, False: 20 * 2**20}
"""Bytes by which the segment of small and of large tensors grows."""


class Place(NamedTuple):
    """Where bytes lie: in the segment of small or of large tensors, from its start."""

    is_small: bool
    start: int
    size: int


class Segment:
    """One growing range of addresses.

    Attributes:
        mapped: bytes taken from the device.
    """

    def __init__(self, page: int) -> None:
        self._page = page
        self.mapped = 0
        self._starts: list[int] = []  # of the free ranges, in the order of their addresses
        self._free: dict[int, int] = {}  # start of a free range -> its bytes

    def take(self, size: int) -> int:
        """Find a place for these bytes: the smallest gap that holds them, else the end, which grows."""
        fitting = [(have, start) for start, have in self._free.items() if have >= size]
        # What lies at the end could grow, so it counts as the largest.
        inner = [pair for pair in fitting if sum(pair) != self.mapped]
        if inner or fitting:
            have, start = min(inner or fitting)
        else:
            start = self.mapped
            if self._starts and self._starts[-1] + self._free[self._starts[-1]] == self.mapped:
                start = self._starts[-1]
                self._remove(start)
            self.mapped = -(-(start + size) // self._page) * self._page
            have = self.mapped - start
            self._add(start, have)
        self._remove(start)
        if have > size:
            self._add(start + size, have - size)
        return start

    def give_back(self, start: int, size: int) -> None:
        """Free a range, which grows together with its neighbours."""
        at = bisect_left(self._starts, start)
        if at < len(self._starts) and self._starts[at] == start + size:
            after = self._starts[at]
            size += self._free[after]
            self._remove(after)
        if at > 0:
            before = self._starts[at - 1]
            if before + self._free[before] == start:
                size += self._free[before]
                self._remove(before)
                start = before
        self._add(start, size)

    def _add(self, start: int, size: int) -> None:
        self._starts.insert(bisect_left(self._starts, start), start)
        self._free[start] = size

    def _remove(self, start: int) -> None:
        del self._starts[bisect_left(self._starts, start)]
        del self._free[start]


class Segments:
    """The two segments of a stream: of small and of large tensors."""

    def __init__(self) -> None:
        self._pools = {is_small: Segment(page) for is_small, page in _PAGES.items()}

    @property
    def reserved(self) -> int:
        """Bytes taken from the device."""
        return sum(pool.mapped for pool in self._pools.values())

    def take(self, num_bytes: int) -> Place:
        """Allocate."""
        size = max(-(-num_bytes // ALIGNMENT) * ALIGNMENT, ALIGNMENT)
        return Place(size <= SMALL, self._pools[size <= SMALL].take(size), size)

    def give_back(self, place: Place) -> None:
        """Free what take gave."""
        self._pools[place.is_small].give_back(place.start, place.size)
