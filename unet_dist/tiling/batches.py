"""The work list of a prediction: the windows of one or many images, cut into batches.

Owns which windows are computed together. It must not know images, tensors or processes: ranks take whole batches by
index (`geometry.assign`), so that the composition of a batch never depends on their number. float32 logits depend on it
in the last bits (6e-6 between window batches, U-Net 64 wide on CPU); so labels are equal to the bit at any world size.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from unet_dist.errors import SizeError
from unet_dist.tiling.geometry import TilePlan


class WindowRef(NamedTuple):
    """One window of the work list: a tile by its index in the plan of an image, and the image by its index."""

    image: int
    tile: int


class BatchPlan:
    """Batches of at most `window_batch` windows of one shape, made on demand: a plan holds a few integers per image."""

    def __init__(self, plans: Sequence[TilePlan], window_batch: int) -> None:
        self._window_batch = window_batch
        by_shape: dict[tuple[int, int], list[int]] = {}  # in the order of first appearance
        for image, plan in enumerate(plans):
            by_shape.setdefault(plan.window_shape, []).append(image)
        self._images = list(by_shape.values())
        # For each window shape: the windows up to the end of each of its images, and the batches up to its own end.
        self._window_ends = [list(itertools.accumulate(len(plans[i]) for i in images)) for images in self._images]
        self._batch_ends = list(itertools.accumulate(-(-ends[-1] // window_batch) for ends in self._window_ends))

    def __len__(self) -> int:
        return self._batch_ends[-1] if self._batch_ends else 0

    def __getitem__(self, index: int) -> list[WindowRef]:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        group = bisect.bisect_right(self._batch_ends, index)
        first_batch = self._batch_ends[group - 1] if group else 0
        start = (index - first_batch) * self._window_batch
        stop = min(start + self._window_batch, self._window_ends[group][-1])
        return [self._window(group, position) for position in range(start, stop)]

    def __iter__(self) -> Iterator[list[WindowRef]]:
        return (self[index] for index in range(len(self)))

    def _window(self, group: int, position: int) -> WindowRef:
        """Return the window at a position among all windows of one shape."""
        ends = self._window_ends[group]
        image = bisect.bisect_right(ends, position)
        first_window = ends[image - 1] if image else 0
        return WindowRef(self._images[group][image], position - first_window)


def plan_batches(plans: Sequence[TilePlan], window_batch: int) -> BatchPlan:
    """Cut the windows of all plans into batches: a function of the plans and `window_batch` alone.

    Windows keep the order of images and tiles within their shape; a batch may hold windows of several images.

    Raises:
        SizeError: `window_batch` is not positive.
    """
    if window_batch < 1:
        raise SizeError(f"Got window_batch = {window_batch}. Expected 1 or more. Set window_batch to 1 or more.")
    return BatchPlan(plans, window_batch)
