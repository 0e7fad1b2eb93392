"""What a class weighs in a loss that counts pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from unet_dist.errors import ConfigError


def weigh_classes(
    rule: Literal["inverse", "median", "sqrt"] | str | Sequence[float],
    histogram: Sequence[int],
    ignore_index: int | None,
) -> Tensor:
    """Derive one weight per class from the pixels of the training split.

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
                f"class_weights: got {len(rule)} numbers, expected {len(histogram)}, one per class (the ignored one included)."
            )
        return torch.tensor(list(rule), dtype=torch.float64)
    counts = torch.tensor(list(histogram), dtype=torch.float64)
    occurs = counts > 0
    if ignore_index is not None and ignore_index < len(counts):
        occurs[ignore_index] = False
    frequencies = counts[occurs] / counts[occurs].sum()
    # Of an even number quantile takes the mean of the middle two, torch.median the lower.
    typical = frequencies.mean() if rule == "inverse" or not len(frequencies) else frequencies.quantile(0.5)
    weights = torch.zeros_like(counts)
    weights[occurs] = typical / frequencies
    if rule == "sqrt":
        weights = weights.sqrt()
    return weights
