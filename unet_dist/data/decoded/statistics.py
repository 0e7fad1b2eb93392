"""What a data set is like, in numbers.

Owns the summary's fields, read from the cache's table, and the length of runs, from a few labels. Knows nothing of how it is shown.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unet_dist.data.decoded.cache import Cache, CachedSplit
from unet_dist.data.decoded.labels import ignored_in

_SAMPLED, _SAMPLED_PX = 16, 1024
"""Labels that are looked at for the length of runs, and how much of each side of them."""


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


def mean_run_px(split: CachedSplit) -> float:
    """Measure how long a run of one class is along rows and columns in the mean, px, on a sample of labels.

    Pairs of neighbouring pixels over those whose classes differ (the mean chord of stereology). A run ends at an ignored pixel,
    too, and none is longer than the image.
    """
    pairs = changes = longest = 0
    for index in range(0, len(split), -(-len(split) // _SAMPLED)):
        height, width, _ = split.shape(index)
        top, left = max(0, height - _SAMPLED_PX) // 2, max(0, width - _SAMPLED_PX) // 2
        label = np.asarray(split.label(index)[top : top + _SAMPLED_PX, left : left + _SAMPLED_PX])
        for one, other in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1])):
            ignored = ignored_in(label.dtype)
            pairs += int(((one != ignored) | (other != ignored)).sum())
            changes += int((one != other).sum())
        longest = max(longest, *label.shape)
    return min(pairs / max(changes, 1), longest)
