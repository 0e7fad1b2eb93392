"""What a loss states about itself, so that it may be cut into tiles, micro-batches and ranks.

Owns the contract. A loss is never a mean: the trainer divides the sum over the whole global batch once. A loss of your own is one
file: inherit from `OnePass`, write `divisor` and `sums`, and name it on the command line by its import path.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from unet_dist.data.batches.label_counts import LabelCounts
from unet_dist.tiling.gradient import SummedLoss


@runtime_checkable
class Loss(SummedLoss, Protocol):
    """A sum over the global batch, over a divisor that its labels alone decide.

    It is made with those of class_weights ((K,), on the device, or None), ignore_index, label_smoothing and focal_gamma that its
    constructor names, and with the arguments that stand in brackets behind its name. Labels are class ids, 255 where a pixel counts
    nowhere; of more than 255 classes they are uint16, and 65535 counts nowhere: a loss that minds this says
    `takes_16_bits = True`.

    Attributes:
        sees_whole_images: whether it is no sum over pixels, so that an image cannot be cut into tiles.
        takes_borders: whether `borders` count in it.
    """

    sees_whole_images: bool
    takes_borders: bool

    def divisor(self, counts: LabelCounts) -> Tensor:
        """What labels add to the divisor: () float64 on the host, or (T,) for T terms."""
