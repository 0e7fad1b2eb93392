"""Counts of predictions, and the scores that follow from it.

Owns the definition of IoU, mean IoU, pixel accuracy and calibration error. Counts are int64 and are summed over ranks before
anything is divided, so that the scores are the same bits on any number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unet_dist.data.batches.ids import ignored_of, widened
from unet_dist.data.decoded.labels import IGNORED

MATRIX_CLASSES = 1000
"""Classes up to which every label is counted against every prediction, in 8 MB. Beyond, each class has counts of its own: a
matrix of 65,535 classes would be 34 GB."""

CALIBRATION_BINS = 15
"""Bins of a reliability diagram. Source: Guo et al. 2017, "On Calibration of Modern Neural Networks"."""

_CONFIDENCE_STEPS = 2**24
"""Confidences are summed in whole numbers of this fraction, so that a sum is the same in any order: the rounding of float32."""


def count_confusion(labels: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """Count label against prediction over the valid pixels.

    Args:
        labels: uint8 or uint16 of any shape, all bits set where a pixel counts nowhere.
        predictions: whole numbers of the same shape, each below num_classes.
        num_classes: K.

    Returns:
        (K, K) int64; rows are labels, columns predictions. Beyond MATRIX_CLASSES (K, 2, 2): of each class a matrix of other
        classes and itself.
    """
    # Pixels that count nowhere fall behind the last row and are cut off: no mask, no copy of uneven length.
    rows, columns = widened(labels).flatten().long(), widened(predictions).flatten().long()
    rows = torch.where(rows == ignored_of(labels), num_classes, rows).clamp_(max=num_classes)
    if num_classes <= MATRIX_CLASSES:
        counts = _count(rows * num_classes + columns, (num_classes + 1) * num_classes)
        return counts[: num_classes * num_classes].view(num_classes, num_classes)
    hits, labelled, predicted = (
        _count(values, num_classes + 1)[:num_classes]
        for values in (
            torch.where(rows == columns, rows, num_classes),
            rows,
            torch.where(rows == num_classes, num_classes, columns),
        )
    )
    missed, wrong = labelled - hits, predicted - hits
    others = labelled.sum() - hits - missed - wrong
    return torch.stack([others, wrong, missed, hits], dim=1).view(num_classes, 2, 2)


def _count(values: Tensor, num_values: int) -> Tensor:
    """Count how often each of 0 ... num_values - 1 occurs: (num_values,) int64.

    On a GPU torch.bincount waits for the device, twice, to learn the largest value; on a CPU it is the faster of the two.
    """
    if values.device.type == "cpu":
        return torch.bincount(values, minlength=num_values)
    counts = torch.zeros(num_values, dtype=torch.int64, device=values.device)
    return counts.scatter_add_(0, values, torch.ones_like(values))


def count_planes(planes: Tensor, predictions: Tensor) -> Tensor:
    """Count, of overlapping classes, label against prediction over the pixels that count for each.

    Args:
        planes: (K, h, w) uint8 of 0, 1 and IGNORED.
        predictions: (K, h, w) uint8 of 0 and 1.

    Returns:
        (K, 2, 2) int64: of each class a confusion matrix of absent and present.
    """
    num_classes = len(planes)
    kinds = (
        torch.where(planes == IGNORED, 2, planes.long()) * 2 + predictions.long()
    )  # as above: IGNORED behind the rest
    first = 6 * torch.arange(num_classes, device=planes.device)[:, None, None]
    return _count((kinds + first).flatten(), 6 * num_classes).view(num_classes, 3, 2)[:, :2]


def tally(confusion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hits, pixels of the label and pixels of the prediction of each class, (K,) each, of either kind of confusion matrix."""
    if confusion.dim() == 2:
        return confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    return confusion[:, 1, 1], confusion[:, 1].sum(1), confusion[:, :, 1].sum(1)


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says.

    Attributes:
        confusion: (K, K) int64, rows are labels, columns predictions; or (K, 2, 2), a matrix of absent and present for each class,
            of overlapping classes and of more than MATRIX_CLASSES.
        iou: intersection over union of each class, None where it occurs neither in label nor in prediction.
        miou: mean over the classes that occur, 0 where none does.
        pixel_accuracy: share of the valid pixels that are right, 0 where none is valid; of overlapping classes a pixel counts once
            for each.
        others: other metrics of the matrix by their words; None where nothing was counted.
    """

    confusion: Tensor
    iou: list[float | None]
    miou: float
    pixel_accuracy: float
    others: dict[str, float | None] = field(default_factory=dict)

    @property
    def miou_present(self) -> float:
        """Mean IoU over the classes that the labels hold, 0 where they hold none: a false pixel of an absent class adds no zero."""
        present = tally(self.confusion)[1].tolist()
        known = [iou for iou, pixels in zip(self.iou, present, strict=True) if iou is not None and pixels]
        return sum(known) / len(known) if known else 0.0

    @property
    def precision(self) -> list[float | None]:
        """Of each class, the part of its predicted pixels that is right; None where it is never predicted, or has no IoU."""
        return self._parts_right(tally(self.confusion)[2])

    @property
    def recall(self) -> list[float | None]:
        """Of each class, the part of its labelled pixels that is found; None where no label has it, or it has no IoU."""
        return self._parts_right(tally(self.confusion)[1])

    @property
    def dice(self) -> list[float | None]:
        """The Dice coefficient (F1) of each class, 2 IoU / (1 + IoU); None where it has no IoU."""
        return [None if iou is None else 2 * iou / (1 + iou) for iou in self.iou]

    @property
    def shares(self) -> list[float]:
        """The part of the valid pixels that each class has in the labels; of overlapping classes, of those that count for it."""
        labelled = tally(self.confusion)[1]
        total = self.confusion.sum() if self.confusion.dim() == 2 else self.confusion.sum((1, 2))
        shares: list[float] = (labelled.double() / total.clamp(min=1).double()).tolist()
        return shares

    def _parts_right(self, pixels: Tensor) -> list[float | None]:
        counts = zip(self.iou, tally(self.confusion)[0].tolist(), pixels.tolist(), strict=True)
        return [hits / total if total and iou is not None else None for iou, hits, total in counts]

    @classmethod
    def of(cls, confusion: Tensor, ignore_index: int | None = None, *, overlap: bool = True) -> Scores:
        """Derive the scores; the ignored class appears in none.

        Args:
            overlap: of counts (K, 2, 2), whether a pixel counts once for each class.
        """
        confusion = confusion.cpu()
        hits, labelled, predicted = tally(confusion)
        unions = labelled + predicted - hits
        right, total = int(hits.sum()), int(labelled.sum())
        if overlap and confusion.dim() == 3:
            right, total = right + int(confusion[:, 0, 0].sum()), int(confusion.sum())
        iou: list[float | None] = [
            None if union == 0 or index == ignore_index else hit / union
            for index, (hit, union) in enumerate(zip(hits.tolist(), unions.tolist(), strict=True))
        ]
        known = [value for value in iou if value is not None]
        return cls(
            confusion=confusion,
            iou=iou,
            miou=sum(known) / len(known) if known else 0.0,
            pixel_accuracy=right / total if total else 0.0,
        )

    def record(self, class_names: Sequence[str], ignore_index: int | None = None) -> dict[str, Any]:
        """The content of evaluation-SPLIT.json: miou, iou by class name (dice, precision, recall), pixel_accuracy, confusion."""

        def by_name(values: Sequence[float | None]) -> dict[str, float | None]:
            named = enumerate(zip(class_names, values, strict=True))
            return {name: value for i, (name, value) in named if i != ignore_index}

        return {
            "miou": self.miou,
            "miou_present": self.miou_present,
            "pixel_accuracy": self.pixel_accuracy,
            "iou": by_name(self.iou),
            "dice": by_name(self.dice),
            "precision": by_name(self.precision),
            "recall": by_name(self.recall),
            **self._counts(class_names),
            **({"metrics": self.others} if self.others else {}),
        }

    def _counts(self, class_names: Sequence[str]) -> dict[str, Any]:
        if self.confusion.dim() == 2:
            return {"confusion": self.confusion.tolist()}
        kinds = ("true_negatives", "false_positives", "false_negatives", "true_positives")
        each = (dict(zip(kinds, counts, strict=True)) for counts in self.confusion.flatten(1).tolist())
        return {"counts": dict(zip(class_names, each, strict=True))}


def count_confidence(labels: Tensor, predictions: Tensor, confidence: Tensor) -> Tensor:
    """Count the valid pixels, and those of them that are right, by the confidence of their prediction.

    Args:
        labels: uint8 or uint16 of any shape, all bits set where a pixel counts nowhere.
        predictions: of the same shape.
        confidence: the winning class's probability, 0 to 1, of the same shape.

    Returns:
        (3, CALIBRATION_BINS) int64: all, right, and the sum of confidences in _CONFIDENCE_STEPS.
    """
    sure = (
        confidence.to(torch.promote_types(confidence.dtype, torch.float32)).nan_to_num(0.0).flatten()
    )  # damaged: never sure
    # A bin holds its upper edge: (0, 1/15], (1/15, 2/15], ... as Guo et al. have it.
    edges = torch.arange(1, CALIBRATION_BINS, dtype=sure.dtype, device=sure.device) / CALIBRATION_BINS
    bins = torch.bucketize(sure, edges)
    ignored, truth = ignored_of(labels), widened(labels)
    # As in count_confusion: pixels that count nowhere fall behind the last row.
    kinds = torch.where(
        truth == ignored, 2, (truth == widened(predictions)).long()
    ).flatten()  # 0 wrong, 1 right, 2 neither
    wrong, right, _ = _count(kinds * CALIBRATION_BINS + bins, 3 * CALIBRATION_BINS).view(3, CALIBRATION_BINS)
    steps = (sure.double() * _CONFIDENCE_STEPS).round_().long()
    sums = torch.zeros(CALIBRATION_BINS, dtype=torch.int64, device=sure.device)
    sums.scatter_add_(0, bins, torch.where(kinds == 2, 0, steps))
    return torch.stack([wrong + right, right, sums])


@dataclass(frozen=True)
class Calibration:
    """How often a prediction is right when the network is so and so sure of it.

    Attributes:
        pixels, right: valid pixels in each of the bins of equal width from 0 to 1, and those of them that are right.
        confidence: mean confidence of each bin's pixels, None where it has none.
    """

    pixels: list[int]
    right: list[int]
    confidence: list[float | None]

    @classmethod
    def of(cls, counts: Tensor) -> Calibration:
        """Divide what count_confidence counted."""
        pixels, right, sums = counts.tolist()
        mean = [total / n / _CONFIDENCE_STEPS if n else None for n, total in zip(pixels, sums, strict=True)]
        return cls(pixels, right, mean)

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of confidence and accuracy over all pixels, 0 to 1.

        Source: Naeini et al. 2015; Guo et al. 2017, equation 3.
        """
        parts = zip(self.pixels, self.right, self.confidence, strict=True)
        distances = (abs(right - mean * pixels) for pixels, right, mean in parts if mean is not None)
        return sum(distances) / max(1, sum(self.pixels))

    def record(self) -> dict[str, Any]:
        """As evaluation-SPLIT.json has it."""
        return {"error": self.error, "pixels": self.pixels, "right": self.right, "confidence": self.confidence}


def image_scores(counts: Tensor, ignore_index: int | None) -> list[tuple[float | None, float | None]]:
    """Mean IoU and pixel accuracy of each image; None where it has no valid pixel.

    Args:
        counts: (N, 3, K) int64: of each image and class the hits, the label's pixels and the prediction's.
    """
    scores: list[tuple[float | None, float | None]] = []
    for hits, labelled, predicted in counts.tolist():
        unions = [a + b - h for h, a, b in zip(hits, labelled, predicted, strict=True)]
        known = [h / u for i, (h, u) in enumerate(zip(hits, unions, strict=True)) if u and i != ignore_index]
        total = sum(labelled)
        scores.append((sum(known) / len(known), sum(hits) / total) if known and total else (None, None))
    return scores
