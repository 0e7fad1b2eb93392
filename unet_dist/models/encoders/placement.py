"""Where a feature map lies, and how far a layer's output reaches into its input.

Owns the arithmetic of networks without padding whose strides begin where they please. Every map has its own grid; index 0 of all
of them is where the network's output begins, so an index below 0 is context. Rows and columns behave alike, and all maps of a
window begin at one index on both axes; where they end follows from their shapes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from unet_dist.models.cropping import crop


class Placed(NamedTuple):
    """A map (N, C, h, w), and the index of its first row and column.

    Where `pads`, it begins at 0, and layers continue it by zeros so far that its side only changes by their strides.
    """

    values: Tensor
    start: int
    pads: bool = False

    def cut(self, start: int, height: int, width: int) -> Tensor:
        """Crop to the rows and columns from `start` on."""
        offset = start - self.start
        if (offset, height, width) == (0, *self.values.shape[2:]):
            return self.values
        return crop(self.values, offset, offset, height, width)


class Span(NamedTuple):
    """Indices from start up to, not including, stop along one axis."""

    start: int
    stop: int

    def grown(self, count: int) -> Span:
        """So many more on both sides: what a convolution without stride of 2 count + 1 pixels reads."""
        return Span(self.start - count, self.stop + count)

    def joined(self, other: Span) -> Span:
        """The smallest span that holds both."""
        return Span(min(self.start, other.start), max(self.stop, other.stop))

    def before_doubling(self, *, is_bilinear: bool) -> Span:
        """What these indices read of the map of half the side.

        A transposed 2x2 convolution without overlap: j reads j // 2. Bilinear, with half-pixel centres: an even j = 2k reads
        k - 1 and k, an odd j = 2k + 1 reads k and k + 1.
        """
        if is_bilinear:
            return Span((self.start - 1) // 2, self.stop // 2 + 1)
        return Span(self.start // 2, (self.stop - 1) // 2 + 1)


def joined(first: Placed, second: Placed) -> Placed:
    """Concatenate the channels of two maps of one grid, where both have values."""
    start = max(first.start, second.start)
    height, width = (
        min(placed.start + placed.values.shape[axis] for placed in (first, second)) - start for axis in (2, 3)
    )
    both = torch.cat([placed.cut(start, height, width) for placed in (first, second)], dim=1)
    return Placed(both, start, first.pads)
