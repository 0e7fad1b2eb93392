"""Several losses with weights, each over a divisor of its own; and a run's loss from its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from unet_dist.data.batches.label_counts import LabelCounts
from unet_dist.losses.dice import Dice
from unet_dist.losses.lovasz import Lovasz
from unet_dist.losses.pixelwise import CrossEntropy, Focal
from unet_dist.tiling.gradient import SummedLoss


class Loss(SummedLoss, Protocol):
    """A sum over the global batch, over a divisor that its labels alone decide."""

    def divisor(self, counts: LabelCounts) -> Tensor:
        """What labels add to the divisor: () float64 on the host, or (T,) for T terms."""


class Mixture:
    """A weighted sum of losses, kept apart until each is divided.

    Args:
        terms: weight and loss of each of the T terms.
    """

    def __init__(self, terms: Sequence[tuple[float, Any]]) -> None:
        self.terms = list(terms)
        self.has_statistics = any(loss.has_statistics for _, loss in terms)

    def divisor(self, counts: LabelCounts) -> Tensor:
        """What labels add to the divisor of each term: (T,) float64."""
        return torch.stack([loss.divisor(counts) for _, loss in self.terms])

    def statistics(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What the terms with two passes count in the first, one behind the other."""
        return torch.cat([loss.statistics(logits, labels) for _, loss in self.terms if loss.has_statistics])

    def sums(
        self, logits: Tensor, labels: Tensor, *, borders: Tensor | None = None, totals: Tensor | None = None
    ) -> Tensor:
        """Sum each term over each sample: (N, T), times its weight."""
        counted = sum(loss.has_statistics for _, loss in self.terms)
        parts = iter([] if totals is None else totals.chunk(counted))
        columns = [
            weight * loss.sums(logits, labels, borders=borders, totals=next(parts) if loss.has_statistics else None)
            for weight, loss in self.terms
        ]
        return torch.stack(columns, dim=1)


def build_loss(
    terms: Mapping[str, float],
    *,
    class_weights: Tensor | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 2.0,
) -> Loss:
    """Build the loss of a run.

    Args:
        terms: weight of each term by its name, as parse_loss gives them.
        class_weights: (K,), on the device; for cross-entropy and focal.
        ignore_index: the ignored class, if any.
    """
    known = {
        "cross_entropy": lambda: CrossEntropy(
            class_weights, label_smoothing=label_smoothing, ignore_index=ignore_index
        ),
        "focal": lambda: Focal(class_weights, gamma=focal_gamma),
        "dice": Dice,
        "lovasz": Lovasz,
    }
    built: list[tuple[float, Any]] = [(weight, known[name]()) for name, weight in terms.items()]
    if len(built) == 1 and built[0][0] == 1:
        loss: Loss = built[0][1]
        return loss
    return Mixture(built)
