"""Seconds that mean something: the device waited for, and medians with their spread.

Owns the clock and the summary of repeated measurements. Must not know their subject.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing.

    Attributes:
        median, low, high: of the measurements, in their unit.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise one measurement or more."""
        return cls(statistics.median(values), min(values), max(values))

    @property
    def half_width(self) -> float:
        """Half of the distance from the lowest to the highest, as a share of the median."""
        return (self.high - self.low) / 2 / abs(self.median) if self.median else 0.0


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Divide round by round: what slows a machine down for a while slows both, and cancels."""
    return Spread.of([top / bottom for top, bottom in zip(numerators, denominators, strict=True)])


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Time some work until the device has done it."""
    synchronise(device)
    started = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def affordable(count: int, each_s: float, budget_s: float) -> int:
    """Repetitions that a budget of seconds allows: one at least, `count` at most."""
    return max(1, min(count, int(budget_s / max(each_s, 1e-9))))
