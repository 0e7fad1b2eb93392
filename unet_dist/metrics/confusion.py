"""What is counted of predictions, and what follows from it.

Owns the definition of IoU, mean IoU, pixel accuracy and calibration error. Counts are int64 and are summed over ranks before
anything is divided, so that the scores are the same bits on any number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unet_dist.data.decoded.labels import IGNORED

CONFIDENCE_LEVELS = 1000
"""Steps in which a confidence from 0 to 1 is counted: fine enough for a mean within 0.0005, and whole numbers."""

CALIBRATION_BINS = 15
"""Bins of a reliability diagram. Source: Guo et al. 2017, "On Calibration of Modern Neural Networks"."""


def count_confusion(labels: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """Count label against prediction over the valid pixels.

    Args:
        labels: uint8 of any shape, IGNORED where a pixel counts nowhere.
        predictions: uint8 of the same shape, each below num_classes.
        num_classes: K.

    Returns:
        (K, K) int64; rows are labels, columns predictions.
    """
    # IGNORED pixels fall behind the last row and are cut off: no mask, no copy of uneven length.
    pairs = labels.flatten().long() * num_classes + predictions.flatten().long()
    counts = torch.bincount(pairs, minlength=(IGNORED + 1) * num_classes)
    return counts[: num_classes * num_classes].view(num_classes, num_classes)


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says.

    Attributes:
        confusion: (K, K) int64, rows are labels, columns predictions.
        iou: intersection over union of each class, None where it occurs neither in label nor in prediction.
        miou: mean over the classes that occur, 0 where none does.
        pixel_accuracy: share of the valid pixels that are right, 0 where none is valid.
        others: other metrics of the matrix by their words; None where nothing was counted.
    """

    confusion: Tensor
    iou: list[float | None]
    miou: float
    pixel_accuracy: float
    others: dict[str, float | None] = field(default_factory=dict)

    @classmethod
    def of(cls, confusion: Tensor, ignore_index: int | None = None) -> Scores:
        """Derive the scores; the ignored class appears in none."""
        confusion = confusion.cpu()
        hits = confusion.diagonal()
        unions = confusion.sum(0) + confusion.sum(1) - hits
        iou: list[float | None] = [
            None if union == 0 or index == ignore_index else hit / union
            for index, (hit, union) in enumerate(zip(hits.tolist(), unions.tolist(), strict=True))
        ]
        known = [value for value in iou if value is not None]
        total = int(confusion.sum())
        return cls(
            confusion=confusion,
            iou=iou,
            miou=sum(known) / len(known) if known else 0.0,
            pixel_accuracy=int(hits.sum()) / total if total else 0.0,
        )

    def record(self, class_names: Sequence[str], ignore_index: int | None = None) -> dict[str, Any]:
        """The content of evaluation-SPLIT.json: miou, iou by class name, pixel_accuracy, confusion."""
        return {
            "miou": self.miou,
            "pixel_accuracy": self.pixel_accuracy,
            "iou": {
                name: iou for i, (name, iou) in enumerate(zip(class_names, self.iou, strict=True)) if i != ignore_index
            },
            "confusion": self.confusion.tolist(),
            **({"metrics": self.others} if self.others else {}),
        }


def count_confidence(labels: Tensor, predictions: Tensor, confidence: Tensor) -> Tensor:
    """Count the valid pixels, and those of them that are right, by the confidence of their prediction.

    Args:
        labels: uint8 of any shape, IGNORED where a pixel counts nowhere.
        predictions: uint8 of the same shape.
        confidence: the winning class's probability, 0 to 1, of the same shape.

    Returns:
        (2, CONFIDENCE_LEVELS + 1) int64: all, and right.
    """
    width = CONFIDENCE_LEVELS + 1
    levels = (confidence.float().nan_to_num(0.0) * CONFIDENCE_LEVELS).round_().long()  # a damaged network is never sure
    # As in count_confusion: IGNORED pixels fall behind the last row.
    kinds = torch.where(labels == IGNORED, 2, (labels == predictions).long())  # 0 wrong, 1 right, 2 neither
    counts = torch.bincount((kinds * width + levels).flatten(), minlength=3 * width).view(3, width)
    return torch.stack([counts[0] + counts[1], counts[1]])


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
        """Bin what count_confidence counted."""
        levels = torch.arange(CONFIDENCE_LEVELS + 1)
        # A bin holds its upper edge: (0, 1/15], (1/15, 2/15], ... as Guo et al. have it.
        bins = ((levels * CALIBRATION_BINS - 1) // CONFIDENCE_LEVELS).clamp(min=0)
        summed = torch.zeros(3, CALIBRATION_BINS, dtype=torch.int64)
        summed.index_add_(1, bins, torch.cat([counts.cpu(), (counts[:1].cpu() * levels)]))
        pixels, right, weighed = summed.tolist()
        mean = [w / n / CONFIDENCE_LEVELS if n else None for n, w in zip(pixels, weighed, strict=True)]
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
