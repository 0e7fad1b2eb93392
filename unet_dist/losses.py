"""Losses as sums over pixels.

Owns what a crop adds to the loss and to its divisor. A loss here is never a mean: the trainer divides the sum over the
whole global batch once, so that how the batch is cut into ranks, micro-batches or tiles leaves the gradient alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from unet_dist.data.labels import IGNORED
from unet_dist.errors import ConfigError


class CrossEntropy:
    """Softmax cross-entropy, weighted by class where weights are given.

    Source: Ronneberger et al. 2015, equation 1, without the border weights. With class weights the divisor is the summed
    weight of the valid pixels (torch's own definition of the weighted mean), taken over the global batch.

    Args:
        class_weights: (K,) weights of 0 or more, or None.
    """

    def __init__(self, class_weights: Tensor | None = None) -> None:
        self.class_weights = class_weights
        # The divisor is counted where the labels are, which is the host in training: no copy in the step.
        self._host_weights = None if class_weights is None else class_weights.to("cpu", torch.float64)

    def divisor(self, labels: Tensor) -> Tensor:
        """What labels (N, H, W) uint8 on the host add to the divisor: valid pixels or summed weights, float64 scalar."""
        if self._host_weights is None:
            return (labels != IGNORED).sum().double()
        counts = torch.bincount(labels.flatten(), minlength=IGNORED + 1)[: len(self._host_weights)]
        return (counts.double() * self._host_weights).sum()

    def sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum the loss over the valid pixels of each sample.

        Args:
            logits: (N, K, H, W), any floating type; computed in float32 at least.
            labels: (N, H, W) uint8, IGNORED where a pixel counts nowhere.

        Returns:
            (N,) sums, float32 or float64.
        """
        num_samples, num_classes = logits.shape[:2]
        # Rows of pixels: the deterministic CUDA kernel exists for (pixels, K) only, and channels_last makes this a view.
        rows = logits.permute(0, 2, 3, 1).reshape(-1, num_classes)  # (N * H * W, K)
        rows = rows if rows.dtype == torch.float64 else rows.float()
        weight = None if self.class_weights is None else self.class_weights.to(rows)
        losses = F.cross_entropy(rows, labels.flatten().long(), weight, ignore_index=IGNORED, reduction="none")
        return losses.view(num_samples, -1).sum(1)  # (N,)


def weigh_classes(
    rule: Literal["inverse", "median", "sqrt"] | str | Sequence[float],
    histogram: Sequence[int],
    ignore_index: int | None,
) -> Tensor:
    """Derive one weight a class from the pixels of the training split.

    inverse: the mean frequency over the class's frequency; median: the median frequency over it (Eigen and Fergus 2015,
    section 4.3.2, with frequencies over the whole split); sqrt: the square root of median, which lifts rare classes without
    drowning the others in them. A class that does not occur weighs 0: it has no pixels to weigh.

    Args:
        rule: inverse, median, sqrt, or the weights themselves.
        histogram: pixels of each class, ignored pixels left out.
        ignore_index: the ignored class, if any.

    Returns:
        (K,) float64.

    Raises:
        ConfigError: a list of another length than the classes.
    """
    if not isinstance(rule, str):
        if len(rule) != len(histogram):
            raise ConfigError(
                f"class_weights: got {len(rule)} numbers, expected {len(histogram)}, one a class (the ignored one included)."
            )
        return torch.tensor(list(rule), dtype=torch.float64)
    counts = torch.tensor(list(histogram), dtype=torch.float64)
    occurs = counts > 0
    if ignore_index is not None and ignore_index < len(counts):
        occurs[ignore_index] = False
    frequencies = counts[occurs] / counts[occurs].sum()
    typical = frequencies.mean() if rule == "inverse" else frequencies.median()
    weights = torch.zeros_like(counts)
    weights[occurs] = typical / frequencies
    if rule == "sqrt":
        weights = weights.sqrt()
    return weights
