"""One confusion matrix and what follows from it.

Owns the definition of IoU, mean IoU and pixel accuracy. Counts are int64 and are summed over ranks before anything is
divided, so that the scores are the same bits on any number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unet_dist.data.labels import IGNORED


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
    """

    confusion: Tensor
    iou: list[float | None]
    miou: float
    pixel_accuracy: float

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
        }
