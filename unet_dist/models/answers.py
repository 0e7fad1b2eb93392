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
        """Probabilities in float32 at least, (N, K, h, w): a softmax without the ignored class, or a sigmoid for each class."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.thresholds is not None:
            return wide.sigmoid()
        if self.ignore_index is not None and 0 <= self.ignore_index < logits.shape[1]:
            wide = wide.clone() if wide is logits else wide
            # By a number: an index that is a tensor would be copied to the device, and the copy waits for all that came before.
            wide.select(1, self.ignore_index).fill_(-math.inf)
        return wide.softmax(dim=1)

    def present(self, probabilities: Tensor) -> Tensor:
        """Where each class is, by its threshold: (N, K, h, w) -> (N, K, h, w) uint8 of 0 and 1."""
        assert self.thresholds is not None
        # Class by class, as numbers: a tensor of thresholds would be copied to the device.
        each = [probabilities[:, k] >= threshold for k, threshold in enumerate(self.thresholds)]
        return torch.stack(each, dim=1).to(torch.uint8)


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
