"""Scores of overlap other than IoU."""

from __future__ import annotations

from torch import Tensor


def mean_dice(confusion: Tensor, ignore_index: int | None = None) -> float | None:
    """The mean of the classes' Dice coefficients 2 I / (P + G), over the classes that occur in label or prediction.

    Source: Dice 1945; of each class it is the F1 score.
    """
    hits = confusion.diagonal().tolist()
    sizes = (confusion.sum(0) + confusion.sum(1)).tolist()
    known = [2 * h / s for index, (h, s) in enumerate(zip(hits, sizes, strict=True)) if s and index != ignore_index]
    return sum(known) / len(known) if known else None


PARTS = {"mean_dice": mean_dice}
