"""What the labels of a batch count, all that the divisor of a loss is made of.

Owns the sums. They add up over micro-batches and tiles, exactly, and are small where the labels are not: so the divisor of a
global batch is known before, and long after, its labels are in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unet_dist.data.batches.ids import ignored_of
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.data.decoded.planes import count_labels as count_array


@dataclass(frozen=True)
class LabelCounts:
    """Sums over labels.

    Attributes:
        pixels: (256,) int64, or (65536,) of ids of 16 bits: those of each class id, the last one of what counts nowhere; of planes
            2 k and 2 k + 1 are those without and with class k, so that `valid` counts a pixel once for each class.
        border: summed border weights of the pixels that count.
        windows: those with a pixel that counts.
    """

    pixels: Tensor
    border: float
    windows: int

    @property
    def valid(self) -> int:
        """The pixels that count."""
        return int(self.pixels[:-1].sum())

    def __add__(self, other: LabelCounts) -> LabelCounts:
        pixels, others = self.pixels, other.pixels
        if len(pixels) != len(others):  # one of them counts no labels at all, and knows nothing of their type
            pixels, others = (part if part.any() else torch.zeros(1, dtype=torch.int64) for part in (pixels, others))
        return LabelCounts(pixels + others, self.border + other.border, self.windows + other.windows)


def count_labels(labels: Tensor, borders: Tensor | None = None) -> LabelCounts:
    """Count labels (N, H, W), ids or packed planes, on the host, and their border weights (N, H, W) float32 where there are any."""
    # One histogram a window, which also tells the windows that count: a comparison of all pixels would cost as much again.
    if labels.dtype == torch.uint8:
        pixels = torch.stack([torch.bincount(window.flatten(), minlength=IGNORED + 1) for window in labels])  # (N, 256)
    else:
        pixels = torch.stack([torch.from_numpy(count_array(window.numpy())) for window in labels])
    return LabelCounts(
        pixels.sum(0),
        0.0 if borders is None else float((borders.double() * (labels != ignored_of(labels))).sum()),
        int((pixels[:, :-1].sum(1) > 0).sum()),
    )


def no_labels() -> LabelCounts:
    """Count no labels at all. Not a constant: a tensor made at import would come before allocator.py's setting, which torch then
    overlooks."""
    return LabelCounts(torch.zeros(IGNORED + 1, dtype=torch.int64), 0.0, 0)
