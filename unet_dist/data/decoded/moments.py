"""The statistics of pixels, channel by channel: sums that are exact, and a histogram for percentiles.

Owns how they are summed up over windows and over samples, and the bins. Whole numbers are summed as integers, of any size;
floats by Chan's formula in float64, in a fixed order. Pixels without data count nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

_OCTAVES = 24
_PER_OCTAVE = 32
_MANTISSA_SHIFT = 18  # of float32's 23 bits of mantissa, 5 are kept
_ZERO = (127 - _OCTAVES) * _PER_OCTAVE  # magnitudes up to 2^-24 count as 0
_HALF = 2 * _OCTAVES * _PER_OCTAVE


class ChannelSums:
    """The sums over the windows of one sample.

    Args:
        channels: of the image.
        dtype: of its pixels.
    """

    def __init__(self, channels: int, dtype: np.dtype) -> None:
        self.dtype = dtype
        self.count = 0
        self.histogram = np.zeros((channels, num_bins(dtype)), dtype=np.int64)
        self._totals = [0] * channels
        self._squares = [0] * channels
        self._means, self._deviations = np.zeros(channels), np.zeros(channels)

    def add(self, pixels: np.ndarray, known: np.ndarray | None) -> None:
        """Count a window (h, w, C) where it has data, (h, w) bool; None counts all."""
        if known is not None and known.all():
            known = None
        count = pixels.shape[0] * pixels.shape[1] if known is None else int(known.sum())
        if not count:
            return
        if self.dtype.kind == "f":
            self._add_floats(pixels if known is None else pixels[known][None], count)
        else:
            self._add_integers(pixels, known)
        self.count += count

    def _add_integers(self, pixels: np.ndarray, known: np.ndarray | None) -> None:
        counts = _count_values(pixels, known)  # (C, values)
        values = np.arange(counts.shape[1]) - (2**15 if self.dtype.kind == "i" else 0)
        for channel, row in enumerate(counts):
            # A square has 32 bits and a window fewer than 2^31 pixels, so that 64 bits hold the sums of one.
            self._totals[channel] += int(row @ values)
            self._squares[channel] += int(row @ values**2)
        if self.dtype == np.uint8:
            self.histogram += counts
            return
        bins = _bins_of_integers(self.dtype.kind)
        for histogram, row in zip(self.histogram, counts, strict=True):
            present = np.flatnonzero(row)
            histogram += np.bincount(bins[present], weights=row[present], minlength=histogram.size).astype(np.int64)

    def _add_floats(self, pixels: np.ndarray, count: int) -> None:
        rows = pixels.reshape(-1, pixels.shape[-1])
        for channel in range(rows.shape[1]):
            plane = rows[:, channel].astype(np.float64)
            mean = float(plane.mean())
            self._merge(channel, count, mean, float(((plane - mean) ** 2).sum()))
            self.histogram[channel] += np.bincount(bin_of(rows[:, channel]), minlength=self.histogram.shape[1])

    def _merge(self, channel: int, count: int, mean: float, deviation: float) -> None:
        _, self._means[channel], self._deviations[channel] = merge(
            (self.count, self._means[channel], self._deviations[channel]), (count, mean, deviation)
        )

    def record(self) -> dict[str, np.ndarray]:
        """What the cache's table keeps of the sample, an array a name."""
        count = np.array(self.count, dtype=np.int64)
        if self.dtype.kind == "f":
            return {"counts": count, "means": self._means, "square_deviations": self._deviations}
        squares = [[square >> 32, square & 0xFFFFFFFF] for square in self._squares]
        return {
            "counts": count,
            "sums": np.array(self._totals, dtype=np.int64),
            "square_sums": np.array(squares, dtype=np.int64),
        }


def merge(one: tuple[int, float, float], other: tuple[int, float, float]) -> tuple[int, float, float]:
    """Join (count, mean, sum of squared deviations) of two sets of numbers.

    Source: Chan, Golub and LeVeque 1979, equation 2.1.
    """
    count = one[0] + other[0]
    if not count:
        return 0, 0.0, 0.0
    delta = other[1] - one[1]
    mean = one[1] + delta * other[0] / count
    return count, mean, one[2] + other[2] + delta**2 * one[0] * other[0] / count


def mean_and_std(table: dict[str, np.ndarray], rows: Sequence[int]) -> tuple[list[float], list[float]]:
    """Give mean and standard deviation of each channel over the samples of some rows of a cache's table."""
    rows = list(rows)
    counts = table["counts"][rows]
    if "sums" in table:
        count = int(counts.sum())
        sums = [sum(int(part) for part in column) for column in table["sums"][rows].T]
        squares = [
            sum((int(high) << 32) + int(low) for high, low in column)
            for column in table["square_sums"][rows].swapaxes(0, 1)
        ]
        # In integers, so that nothing cancels: variance = (count * sum of squares - sum^2) / count^2.
        means = [total / max(count, 1) for total in sums]
        variances = [(count * q - s**2) / max(count, 1) ** 2 for s, q in zip(sums, squares, strict=True)]
        return means, [variance**0.5 for variance in variances]
    means, stds = [], []
    for channel in range(table["means"].shape[1]):
        total = 0, 0.0, 0.0
        for row, count in zip(rows, counts, strict=True):
            part = int(count), float(table["means"][row, channel]), float(table["square_deviations"][row, channel])
            total = merge(total, part)
        means.append(total[1])
        stds.append((total[2] / max(total[0], 1)) ** 0.5)
    return means, stds


def num_bins(dtype: np.dtype) -> int:
    """Bins of a histogram: of 8 bits one per value; else 32 per octave of the magnitude, from 2^-24 to 2^24, for either sign."""
    return 256 if dtype == np.uint8 else 2 * _HALF + 1


def bin_of(values: np.ndarray) -> np.ndarray:
    """Give the bin of numbers that are not uint8, (n,) -> (n,) int64; whole numbers below 64 have bins of their own."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.int32)
    magnitude = ((bits & 0x7FFFFFFF) >> _MANTISSA_SHIFT).astype(np.int64) - _ZERO + 1
    magnitude = np.clip(magnitude, 0, _HALF)
    return np.where(bits < 0, _HALF - magnitude, _HALF + magnitude)


def _edges(dtype: np.dtype) -> np.ndarray:
    """The limits of the bins, (bins + 1,) float64."""
    if dtype == np.uint8:
        return np.arange(257, dtype=np.float64)
    bits = (np.arange(_ZERO, _ZERO + _HALF + 1, dtype=np.int64) << _MANTISSA_SHIFT).astype(np.int32)
    ends = bits.view(np.float32).astype(np.float64)  # of magnitudes: 2^-24 ... 2^24
    return np.concatenate([-ends[::-1], ends])


def percentiles(histogram: np.ndarray, dtype: np.dtype, shares: Sequence[float]) -> list[list[float]]:
    """Read percentiles off histograms, (C, bins) -> for each channel one a share.

    Between the limits of a bin the numbers are taken to lie evenly: an error of 1/32 of the value at most, and none of 8 bits.

    Args:
        shares: 0 to 100.
    """
    edges, found = _edges(dtype), []
    for row in histogram.astype(np.float64):
        ends = row.cumsum()
        of_channel = []
        for share in shares:
            target = share / 100 * ends[-1]
            at = min(int(np.searchsorted(ends, target)), len(row) - 1)
            low, high = edges[at], edges[at + 1]
            inside = (target - (ends[at] - row[at])) / max(row[at], 1)
            is_one_value = dtype.kind != "f" and high - low <= 1
            of_channel.append(float(np.ceil(low) if is_one_value else low + inside * (high - low)))
        found.append(of_channel)
    return found


@lru_cache(maxsize=2)
def _bins_of_integers(kind: str) -> np.ndarray:
    """The bin of each value of a type of 16 bits, from the smallest."""
    values = np.arange(2**16) - (2**15 if kind == "i" else 0)
    return bin_of(values)


def _count_values(pixels: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    """Count the values of each channel of whole numbers, from the smallest of the type: (h, w, C) -> (C, values) int64."""
    if pixels.dtype == np.uint8 and known is None and pixels.shape[2] in (1, 3):  # Pillow counts at twice numpy's pace
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        return np.array(picture.histogram(), dtype=np.int64).reshape(-1, 256)
    num_values = 2 ** (8 * pixels.dtype.itemsize)
    rows = []
    for channel in range(pixels.shape[2]):
        plane = pixels[..., channel]
        plane = plane.ravel() if known is None else plane[known]
        if plane.dtype.kind == "i":
            plane = plane.astype(np.int32) + num_values // 2
        rows.append(np.bincount(plane, minlength=num_values))
    return np.stack(rows).astype(np.int64)
