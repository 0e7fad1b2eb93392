"""What a data set is like, in numbers.

Owns the summary's fields, read from the cache's table, and the length of runs, from a few labels. Knows nothing of how it is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from unet_dist.data.decoded.cache import Cache, CachedSplit
from unet_dist.data.decoded.labels import ignored_in
from unet_dist.data.decoded.planes import count_labels, holds_planes, is_class

_SAMPLED, _SAMPLED_PX = 16, 1024
"""Labels that are looked at for the length of runs, and how much of each side of them."""
_MATTERS = 1e-4
"""Share of the pixels from which on a class counts for the length of runs: below it lie stray pixels."""


@dataclass(frozen=True)
class SplitSummary:
    """One split in numbers."""

    name: str
    num_images: int
    sizes: dict[tuple[int, int], int]
    """Number of images by (height, width), the most frequent first."""
    class_counts: list[int]
    """Pixels of each class."""
    num_ignored: int
    """Pixels that count nowhere."""

    @property
    def absent_classes(self) -> list[int]:
        """Classes without a pixel in this split: nothing can be learnt of them, or measured."""
        return [class_id for class_id, count in enumerate(self.class_counts) if count == 0]

    @property
    def frequencies(self) -> list[float]:
        """Share of each class in the pixels that count, 0 to 1."""
        total = max(sum(self.class_counts), 1)
        return [count / total for count in self.class_counts]


@dataclass(frozen=True)
class DataSummary:
    """A data set in numbers."""

    name: str
    cache_path: str
    num_bytes: int
    """Size of the decoded pixels and labels."""
    channels: int
    num_classes: int
    class_names: list[str]
    ignore_index: int | None
    mean: list[float]
    """Of each channel over the training split, 0..255."""
    std: list[float]
    """Of each channel over the training split, 0..255."""
    splits: list[SplitSummary]

    def to_json(self) -> dict[str, Any]:
        """Give the summary in the types of JSON; a size is "HEIGHTxWIDTH"."""
        stored = asdict(self)
        for split in stored["splits"]:
            split["sizes"] = {f"{height}x{width}": count for (height, width), count in split["sizes"].items()}
        return stored


def summarise(cache: Cache) -> DataSummary:
    """Summarise a data set by its splits. Raises: DataError: it has no training split."""
    return DataSummary(
        name=cache.name,
        cache_path=str(cache.path),
        num_bytes=cache.num_pixels * (cache.channels + cache.label_dtype.itemsize),
        channels=cache.channels,
        num_classes=cache.num_classes,
        class_names=cache.class_names,
        ignore_index=cache.ignore_index,
        mean=cache.mean,
        std=cache.std,
        splits=[_summarise_split(cache, name) for name in cache.splits],
    )


def _summarise_split(cache: Cache, name: str) -> SplitSummary:
    split = cache.split(name)
    sizes = Counter(split.shape(index)[:2] for index in range(len(split)))
    return SplitSummary(
        name=name,
        num_images=len(split),
        sizes=dict(sizes.most_common()),
        class_counts=[int(count) for count in split.class_counts],
        num_ignored=split.num_ignored,
    )


class Runs(NamedTuple):
    """How long runs of one class are along rows and columns, px.

    Attributes:
        mean_px: of all runs.
        fine_px: the mean run of a class that at most a quarter of the others fall below; of up to four classes the finest. The
            largest class, which is the background, is left out, and so are classes of less than 0.01 % of the pixels.
    """

    mean_px: float
    fine_px: float


def measure_runs(split: CachedSplit) -> Runs:
    """Measure runs of one class along rows and columns on a sample of labels.

    Pairs of neighbouring pixels over those whose classes differ (the mean chord of stereology). A run ends at an ignored pixel,
    too, and none is longer than the image.
    """
    pairs = changes = longest = 0
    overlap = False
    sides: dict[int, int] = Counter()
    ends: dict[int, int] = Counter()
    for index in range(0, len(split), -(-len(split) // _SAMPLED)):
        height, width, _ = split.shape(index)
        top, left = max(0, height - _SAMPLED_PX) // 2, max(0, width - _SAMPLED_PX) // 2
        label = np.asarray(split.label(index)[top : top + _SAMPLED_PX, left : left + _SAMPLED_PX])
        ignored = ignored_in(label.dtype)
        for one, other in _neighbours(label):
            pairs += int(((one != ignored) | (other != ignored)).sum())
            changes += int((one != other).sum())
        longest = max(longest, *label.shape)
        for class_id, (of_class, at_ends) in _runs_by_class(label).items():
            sides[class_id] += of_class
            ends[class_id] += at_ends
        overlap = holds_planes(label.dtype)
    mean_px = min(pairs / max(changes, 1), longest)
    matter = [class_id for class_id in sides if sides[class_id] >= _MATTERS * sum(sides.values())]
    smaller = sorted(matter, key=lambda class_id: sides[class_id])[: None if overlap else -1]
    lengths = sorted(min(sides[class_id] / max(ends[class_id], 1), longest) for class_id in smaller)
    return Runs(mean_px, lengths[(len(lengths) - 1) // 4] if lengths else mean_px)


def _neighbours(label: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give the two sides of all pairs of neighbouring pixels, along columns and along rows."""
    yield label[1:], label[:-1]
    yield label[:, 1:], label[:, :-1]


def _runs_by_class(label: np.ndarray) -> dict[int, tuple[int, int]]:
    """Count a class's pixels once for each neighbour, and once for each of another class: by class id, of those that occur."""
    if holds_planes(label.dtype):
        planes = [is_class(label, k).astype(np.uint8) for k in range(4 * label.dtype.itemsize)]
        found = {k: _runs_by_class(plane).get(1) for k, plane in enumerate(planes)}
        return {k: counts for k, counts in found.items() if counts is not None}
    sides = ends = np.zeros(1, dtype=np.int64)
    for one, other in _neighbours(label):
        differ = one != other
        sides = sides + count_labels(one) + count_labels(other)
        ends = ends + count_labels(one[differ]) + count_labels(other[differ])
    return {int(k): (int(sides[k]), int(ends[k])) for k in np.flatnonzero(sides[:-1])}
