"""A loss: a sum over pixels, and the divisor that it is divided by once, over the whole global batch."""

from __future__ import annotations

import torch
from torch import Tensor

from unet_dist.data.batches.label_counts import LabelCounts
from unet_dist.losses.one_pass import OnePass


class Squares(OnePass):
    """The squared distance between the probabilities and the label, times a factor (the Brier score)."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def divisor(self, counts: LabelCounts) -> Tensor:
        """The valid pixels."""
        return torch.tensor(counts.valid, dtype=torch.float64)

    def sums(
        self, logits: Tensor, labels: Tensor, *, borders: Tensor | None = None, totals: Tensor | None = None
    ) -> Tensor:
        """(N, K, H, W) logits and (N, H, W) labels, 255 where a pixel counts nowhere -> (N,) sums."""
        wide = logits if logits.dtype == torch.float64 else logits.float()
        classes = torch.arange(logits.shape[1], device=labels.device, dtype=labels.dtype)
        truth = (labels[:, None] == classes[:, None, None]).to(wide)
        distances = (wide.softmax(1) - truth).square().sum(1)
        return self.factor * (distances * (labels != 255)).sum((1, 2))
