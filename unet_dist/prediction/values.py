"""Logits to outputs: labels, probabilities, the winning probability.

Owns their types and scales, and which pixels of a background are asked about at all. Must not know windows or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unet_dist.data.decoded.labels import ignored_in, label_dtype
from unet_dist.errors import DataError
from unet_dist.models.answers import Answers
from unet_dist.tiling.windows import classify

BRIGHT = 235
"""Least value of every channel of bright background. Assumption: scanners set empty glass to about 240 and more."""

Scale = Literal["none", "uint8", "float16", "float32"]
"""How probabilities are kept: uint8 is round(255 p); none of them."""


@dataclass(frozen=True)
class Recipe:
    """The outputs that are computed for each pixel.

    Attributes:
        probabilities: of every class.
        confidence: the winning class's probability.
        flip: average the probabilities of the image and of its mirror image.
        rotations: average those of all eight turns and mirror images, flip among them.
        skip_background: leave out the pixels from which the network sees bright background only.
    """

    probabilities: Scale = "none"
    confidence: Scale = "none"
    flip: bool = False
    rotations: bool = False
    skip_background: bool = False

    @property
    def needs_probabilities(self) -> bool:
        """Whether logits alone do not do."""
        return self.flip or self.rotations or self.confidence != "none" or self.probabilities != "none"

    def rasters(self, num_classes: int, *, overlap: bool = False) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Return, for each raster, the shape in front of (H, W) and the type; overlapping classes have a plane of labels each."""
        planes, kind = ((num_classes,), np.dtype(np.uint8)) if overlap else ((), label_dtype(num_classes))
        rasters: dict[str, tuple[tuple[int, ...], np.dtype]] = {"labels": (planes, kind)}
        if self.probabilities != "none":
            rasters["probabilities"] = ((num_classes,), np.dtype(self.probabilities))
        if self.confidence != "none":
            rasters["confidence"] = ((), np.dtype(self.confidence))
        return rasters


def values_of(
    recipe: Recipe, answers: Answers, *, logits: Tensor | None, probabilities: Tensor | None
) -> dict[str, Tensor]:
    """Make the rasters' values.

    Args:
        answers: how the network answers.
        logits: (N, K, h, w), from which labels are chosen; None where there are only (averaged) probabilities.
        probabilities: (N, K, h, w), where the recipe needs them.

    Returns:
        For each raster (N, h, w) or (N, K, h, w) of its type.
    """
    scores = probabilities if logits is None else logits
    assert scores is not None
    if answers.overlap:
        # From probabilities always: one view, several, and an ensemble of them then compare with thresholds alike.
        labels = answers.present(answers.probabilities(scores) if probabilities is None else probabilities)
    else:
        labels = classify(scores, answers.ignore_index)
    values = {"labels": labels}
    if recipe.probabilities != "none":
        assert probabilities is not None
        values["probabilities"] = _scaled(probabilities, recipe.probabilities)
    if recipe.confidence != "none":
        assert probabilities is not None
        values["confidence"] = _scaled(probabilities.amax(dim=1), recipe.confidence)
    return values


def _scaled(probabilities: Tensor, scale: Scale) -> Tensor:
    if scale == "uint8":
        return (probabilities * 255).round_().to(torch.uint8)
    return probabilities.half() if scale == "float16" else probabilities.float()


def sees_something(window: npt.NDArray[np.uint8], halo: int, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Mark the pixels from which something else than bright background is seen.

    A pixel sees the square of `halo` pixels each way around it: all that its logits depend on. So the answer is the same
    for every window that holds this square, and the labels do not depend on the tile size.

    Args:
        window: (H, W, C); its pixel (halo, halo) is the first of the tile.
        height, width: of the tile.

    Returns:
        (height, width).
    """
    dark = window.min(axis=2) < BRIGHT
    counts = np.zeros((dark.shape[0] + 1, dark.shape[1] + 1), dtype=np.int32)
    counts[1:, 1:] = dark.cumsum(axis=0, dtype=np.int32).cumsum(axis=1)
    side = 2 * halo + 1
    lower, upper = counts[side : side + height], counts[:height]
    seen: npt.NDArray[np.bool_] = (
        lower[:, side : side + width] - lower[:, :width] - upper[:, side : side + width] + upper[:, :width] > 0
    )
    return seen


def not_finite(image: str) -> DataError:
    """Say that the network gives no numbers for an image."""
    return DataError(
        f"{image}: the network gives logits that are NaN or infinite, from which no class follows. Set --mixed_precision no. If "
        "that does not help, the weights are damaged or diverged, or the pixels are far from those of the training."
    )


def blank(raster: str, values: np.ndarray, seen: npt.NDArray[np.bool_] | None) -> np.ndarray:
    """Return values with the label of no class (255, or 65535 of 16 bits), or a probability of zero, where nothing is seen."""
    nothing = ignored_in(values.dtype) if raster == "labels" else 0
    return values if seen is None else np.where(seen, values, values.dtype.type(nothing))
