"""A metric: a number out of the confusion matrix, which is summed over all tiles and processes first."""

from __future__ import annotations

from torch import Tensor


def kappa(confusion: Tensor) -> float | None:
    """Cohen's kappa: how far labels and predictions agree beyond chance. Source: Cohen 1960."""
    total = confusion.sum().item()
    if not total:
        return None
    by_chance = (confusion.sum(0) * confusion.sum(1)).sum().item() / total**2
    return 1.0 if by_chance == 1 else (confusion.diagonal().sum().item() / total - by_chance) / (1 - by_chance)
