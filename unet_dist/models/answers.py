"""How the logits of a network become an answer: one class per pixel, or each of overlapping classes by itself.

Owns the two ways to probabilities and labels. Must not know tiles or files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unet_dist.errors import ConfigError
from unet_dist.models.contract import Network

THRESHOLD = 0.5
"""Probability from which a class is there, where nobody says otherwise."""

_NEITHER = 255
"""In a plane of 0 and 1 no answer, as in labels of 8 bits."""


@dataclass(frozen=True)
class Answers:
    """How a network answers.

    Attributes:
        ignore_index: the class that is no answer; None where all are.
        thresholds: of each class, the probability from which it is there, where classes overlap; None where a pixel has one.
    """

    ignore_index: int | None = None
    thresholds: tuple[float, ...] | None = None

    @property
    def overlap(self) -> bool:
        """Whether a pixel may have several classes, or none."""
        return self.thresholds is not None

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities in float32 at least, (N, K, h, w): a softmax without the ignored class, or a sigmoid for each class.

        NaN where logits are NaN or infinite; of a softmax only where this decides.
        """
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.thresholds is not None:
            # 0 times infinity is NaN, where a sigmoid gives 0 or 1.
            return wide.sigmoid() if _is_sum_finite(wide) else wide.sigmoid().add_(wide, alpha=0)
        if self.ignore_index is not None and 0 <= self.ignore_index < logits.shape[1]:
            wide = wide.clone() if wide is logits else wide
            # By a number: an index that is a tensor would be copied to the device, and the copy waits for all that came before.
            wide.select(1, self.ignore_index).fill_(-math.inf)
        return wide.softmax(dim=1)

    def present(self, probabilities: Tensor) -> Tensor:
        """Where each class is, by its threshold: (N, K, h, w) -> (N, K, h, w) uint8 of 0 and 1, 255 where a probability is NaN."""
        assert self.thresholds is not None
        if _is_sum_finite(probabilities):
            thresholds = torch.tensor(self.thresholds, dtype=probabilities.dtype)
            return (probabilities >= thresholds[:, None, None]).view(torch.uint8).contiguous()
        # Class by class, as numbers: a tensor of thresholds would be copied to the device.
        each = [probabilities[:, k] >= threshold for k, threshold in enumerate(self.thresholds)]
        return torch.stack(each, dim=1).to(torch.uint8).masked_fill_(probabilities != probabilities, _NEITHER)


def _is_sum_finite(values: Tensor) -> bool:
    """Say that all values are finite, at the price of one reading of them. A GPU is not asked, as the host would wait for it."""
    if type(values) is not Tensor or values.device.type != "cpu":  # the planner's have no values
        return False
    return math.isfinite(values.sum())


def answers_of(network: Network) -> Answers:
    """How a network answers, by what it states of itself."""
    thresholds: Sequence[float] | None = getattr(network, "thresholds", None)
    return Answers(network.ignore_index, None if thresholds is None else tuple(thresholds))


def require_one_class(network: Network, key: str) -> None:
    """Refuse what shows one class per pixel where classes overlap. Raises: ConfigError: names the request."""
    if answers_of(network).overlap:
        raise ConfigError(
            f"{key}: the network was trained with multi_label, and {key} takes one class per pixel. Use unet-dist predict, which "
            "writes a plane for each class."
        )


def require_thresholds(thresholds: object, num_classes: int) -> list[float]:
    """Check the thresholds of overlapping classes.

    Raises:
        ConfigError: not one probability per class, above 0 and below 1.
    """
    each = list(thresholds) if isinstance(thresholds, list | tuple) else []
    if len(each) != num_classes or not all(isinstance(one, float) and 0 < one < 1 for one in each):
        raise ConfigError(
            f"thresholds: got {thresholds}, expected {num_classes} probabilities above 0 and below 1, one per class."
        )
    return each
