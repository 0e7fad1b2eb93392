"""Scores of overlap other than IoU."""

from __future__ import annotations

from torch import Tensor

from unet_dist.metrics.confusion import tally


def mean_dice(confusion: Tensor, ignore_index: int | None = None) -> float | None:
    """The mean of the classes' Dice coefficients 2 I / (P + G), over the classes that occur in label or prediction.

    Source: Dice 1945; of each class it is the F1 score.
    """
    hits, labelled, predicted = tally(confusion)
    sizes = zip(hits.tolist(), (labelled + predicted).tolist(), strict=True)
    known = [2 * h / s for index, (h, s) in enumerate(sizes) if s and index != ignore_index]
    return sum(known) / len(known) if known else None


PARTS = {"mean_dice": mean_dice}
