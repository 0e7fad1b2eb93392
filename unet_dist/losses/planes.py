"""Losses of overlapping classes: each class is there or not, by a sigmoid of its own.

Owns what a crop adds to the loss and to its divisor, where labels are packed planes. A pixel counts once for each class of which it
has a label; the words of --loss are those of classes that exclude each other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unet_dist.data.batches.label_counts import LabelCounts
from unet_dist.data.batches.planes import unpack
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.losses.dice import Dice
from unet_dist.losses.one_pass import OnePass
from unet_dist.losses.pixelwise import focused


class BinaryCrossEntropy(OnePass):
    """Cross-entropy of a sigmoid for each class, summed over the pixels and classes that count.

    The divisor is the number of these of the global batch, each times the weight of its class.

    Args:
        class_weights: (K,) weights of 0 or more of the classes' planes, or None for 1 each.
    """

    def __init__(self, class_weights: Tensor | None = None) -> None:
        self._weights = class_weights
        # Labels are counted on the host, and so is the divisor: no copy in the step.
        self._host_weights = None if class_weights is None else class_weights.to("cpu", torch.float64)

    def divisor(self, counts: LabelCounts) -> Tensor:
        """What labels add to the divisor: the summed weights of the pixels of each class that count, float64 scalar."""
        if self._host_weights is None:
            return torch.tensor(counts.valid, dtype=torch.float64)
        num_classes = len(self._host_weights)
        valid = counts.pixels[: 2 * num_classes].view(num_classes, 2).sum(1)
        return (valid.double() * self._host_weights).sum()

    def sums(
        self, logits: Tensor, labels: Tensor, *, borders: Tensor | None = None, totals: Tensor | None = None
    ) -> Tensor:
        """Sum the loss over the pixels and classes of each sample.

        Args:
            logits: (N, K, H, W), any floating type; computed in float32 at least.
            labels: (N, H, W) packed planes.
            borders, totals: not used.

        Returns:
            (N,) sums, float32 or float64.
        """
        assert borders is None
        wide = logits if logits.dtype == torch.float64 else logits.float()
        planes = unpack(labels, logits.shape[1])
        losses = self.losses(wide, (planes == 1).to(wide.dtype)) * (planes != IGNORED)
        if self._weights is not None:
            losses = losses * self._weights.to(wide)[:, None, None]
        return losses.flatten(1).sum(1)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the unweighted loss of each pixel and class: logits and targets of 0 and 1, (N, K, H, W)."""
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


class BinaryFocal(BinaryCrossEntropy):
    """Binary cross-entropy times (1 - p)^gamma, p the probability of the right answer: learnt pixels weigh less.

    Source: Lin et al. 2017 (arXiv 1708.02002), equation 4; class weights weigh whole planes and are not its alpha.

    Args:
        focal_gamma: the exponent, 0 or more; 0 is binary cross-entropy.
    """

    def __init__(self, class_weights: Tensor | None = None, *, focal_gamma: float = 2.0) -> None:
        super().__init__(class_weights)
        self.gamma = focal_gamma

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """As in binary cross-entropy."""
        return focused(super().losses(logits, targets), self.gamma)


class BinaryDice(Dice):
    """One minus the mean of the classes' soft Dice coefficients, as Dice has it, with the probabilities of a sigmoid for each.

    Sums are in units of pixels where a class is: divided by all of these in the batch they are the loss.
    """

    def divisor(self, counts: LabelCounts) -> Tensor:
        """What labels add to the divisor: the pixels of each class, float64 scalar."""
        return counts.pixels[1:IGNORED:2].sum().double()

    @staticmethod
    def count(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """I, P and G of each sample and class: (N, K), in float32 at least."""
        wide = logits if logits.dtype == torch.float64 else logits.float()
        probabilities = wide.sigmoid()
        planes = unpack(labels, logits.shape[1])
        is_label = planes == 1
        hits = (probabilities * is_label).sum((2, 3))
        mass = (probabilities * (planes != IGNORED)).sum((2, 3))
        return hits, mass, is_label.sum((2, 3)).to(wide.dtype)


OF_PLANES = {"cross_entropy": BinaryCrossEntropy, "focal": BinaryFocal, "dice": BinaryDice}
"""What a word of --loss is where classes overlap."""
