"""Coarser logits of training windows, and the labels that they are judged by (deep supervision).

Owns which pixel of a window's labels each pixel of a coarse map stands for: the one at its middle. A coarse map lies on the grid of
the crop, whatever window it is computed in, so each of its pixels is counted by the one tile whose labels hold its middle: the loss
stays a sum over tiles. Integers only, as in geometry.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Places(NamedTuple):
    """Along one axis: the pixels of a coarse map that count, and the labels at their middles."""

    pixels: slice
    labels: slice


@dataclass(frozen=True)
class CoarseGrid:
    """Where the pixels of a coarse map lie.

    Attributes:
        stride: side of one of them, px.
        start: where the first one begins, px from the first pixel of the network's output; negative further out.
    """

    stride: int
    start: int = 0

    def places(self, side: int, trim: int) -> Places:
        """Which of its pixels have their middle in labels.

        Args:
            side: of the labels.
            trim: pixels of the network's output before the first label.

        >>> CoarseGrid(4, start=-6).places(12, trim=0)  # middles at -4, 0, 4, 8, 12
        Places(pixels=slice(1, 4, None), labels=slice(0, 12, 4))
        """
        middle = self.start + self.stride // 2 - trim  # of the first pixel, counted from the first label
        first = max(0, -(middle // self.stride))
        label = middle + first * self.stride
        count = max(0, -((label - side) // self.stride))
        return Places(slice(first, first + count), slice(label, side, self.stride))


def level_weights(levels: int) -> list[float]:
    """What the finest logits and those of each coarser level weigh: each half of the one before, 1 in all.

    Source: Isensee et al. 2021, "nnU-Net", Nature Methods 18, supplementary note 2 (its loss of deep supervision).
    """
    weights = [0.5**level for level in range(levels + 1)]
    return [weight / sum(weights) for weight in weights]
