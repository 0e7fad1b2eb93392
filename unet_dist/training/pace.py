"""The pace of a training loop: how its wall time divides into steps, waiting for data, and what does not count.

Owns the stopwatch alone; must not know what a step does.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from unet_dist.data.batches.shares import StepShare

T = TypeVar("T")
ENOUGH_S = 5.0
"""Seconds of steps that a forecast is made from. Assumption: nobody minds to wait for it as long."""


class Clock:
    """Wall time of the loop: in total, since the last checkpoint, since the last record, and waiting for data."""

    def __init__(self) -> None:
        self._start = self._taken = self._lap = time.perf_counter()
        self._waited = self._skipped = 0.0
        self._lap_step: int | None = None
        self.detail = ""

    @property
    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def waits(self, shares: Iterable[StepShare]) -> Iterator[StepShare]:
        """Pass the shares of steps on and measure how long each one let us wait."""
        self._lap = time.perf_counter()
        for share in self.timed(shares):
            if self._lap_step is None:
                self._lap_step = share.step - 1
            yield share

    def timed(self, items: Iterable[T]) -> Iterator[T]:
        """Pass items on and add up how long each let us wait."""
        remaining = iter(items)
        while True:
            started = time.perf_counter()
            try:
                item = next(remaining)
            except StopIteration:
                return
            finally:
                self._waited += time.perf_counter() - started
            yield item

    def skip(self, seconds: float) -> None:
        """Leave a validation out of the loop's pace."""
        self._skipped += seconds

    def lap(self, step: int) -> tuple[int, float, float]:
        """Steps, seconds and seconds of waiting since the last lap."""
        now = time.perf_counter()
        steps = step - (self._lap_step or 0)
        result = steps, max(now - self._lap - self._skipped, 1e-9), self._waited
        self._lap, self._lap_step, self._waited, self._skipped = now, step, 0.0, 0.0
        return result

    def take(self) -> float:
        """Seconds since the last call."""
        now = time.perf_counter()
        seconds, self._taken = now - self._taken, now
        return seconds


class Forecast:
    """The pace of the steps after the first, which warms up: threads, caches and memory are new to it."""

    def __init__(self) -> None:
        self._steps, self._seconds = -1, 0.0

    def after(self, seconds: float) -> float | None:
        """Take in the wall time of a step; gives the seconds per step once, when the later steps fill a few seconds.

        >>> forecast = Forecast()
        >>> [forecast.after(seconds) for seconds in (9.0, 2.0, 2.0, 2.0, 2.0)]
        [None, None, None, 2.0, None]
        """
        if self._steps >= 0:
            is_early = self._seconds < ENOUGH_S
            self._seconds += seconds
            self._steps += 1
            return self._seconds / self._steps if is_early and self._seconds >= ENOUGH_S else None
        self._steps = 0
        return None
