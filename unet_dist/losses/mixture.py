"""Several losses with weights, each over a divisor of its own; and a run's loss from its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from unet_dist.config.loss_terms import LOSSES
from unet_dist.data.batches.label_counts import LabelCounts
from unet_dist.errors import ConfigError
from unet_dist.losses.contract import Loss
from unet_dist.losses.planes import OF_PLANES
from unet_dist.registry import call_part, parse_word

_STATED = ("has_statistics", "sees_whole_images", "takes_borders", "divisor", "statistics", "sums")


class Mixture:
    """A weighted sum of losses, kept apart until each is divided.

    Args:
        terms: weight and loss of each of the T terms.
    """

    def __init__(self, terms: Sequence[tuple[float, Loss]]) -> None:
        self.terms = list(terms)
        self.has_statistics = any(loss.has_statistics for _, loss in terms)
        self.sees_whole_images = any(loss.sees_whole_images for _, loss in terms)
        self.takes_borders = any(loss.takes_borders for _, loss in terms)

    def divisor(self, counts: LabelCounts) -> Tensor:
        """What labels add to the divisor of each term: (T,) float64."""
        return torch.stack([loss.divisor(counts) for _, loss in self.terms])

    def statistics(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What the terms with two passes count in the first, one behind the other."""
        return torch.cat([loss.statistics(logits, labels) for _, loss in self.terms if loss.has_statistics])

    def sums(
        self, logits: Tensor, labels: Tensor, *, borders: Tensor | None = None, totals: Tensor | None = None
    ) -> Tensor:
        """Sum each term over each sample: (N, T), times its weight."""
        counted = sum(loss.has_statistics for _, loss in self.terms)
        parts = iter([] if totals is None else totals.chunk(counted))
        columns = [
            weight * loss.sums(logits, labels, borders=borders, totals=next(parts) if loss.has_statistics else None)
            for weight, loss in self.terms
        ]
        return torch.stack(columns, dim=1)


def build_loss(
    terms: Mapping[str, float],
    *,
    class_weights: Tensor | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 2.0,
    multi_label: bool = False,
) -> Loss:
    """Build the loss of a run.

    Args:
        terms: weight of each term by its word, as parse_loss gives them.
        class_weights: (K,), on the device; for cross-entropy and focal.
        ignore_index: the ignored class, if any.
        multi_label: whether classes overlap, each with a sigmoid of its own.

    Raises:
        ConfigError: a term that is no loss, or does not take its arguments; a setting that no term takes.
    """
    given = {
        "class_weights": class_weights,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "focal_gamma": focal_gamma,
    }
    built = [(weight, _build(term, given, multi_label=multi_label)) for term, weight in terms.items()]
    if len(built) == 1 and built[0][0] == 1:
        return built[0][1]
    return Mixture(built)


def _build(term: str, given: Mapping[str, object], *, multi_label: bool) -> Loss:
    if multi_label:
        word = parse_word("loss", term)
        loss = call_part("loss", word, OF_PLANES[word.name], given)
    else:
        loss = LOSSES.build(term, given)
    if not isinstance(loss, Loss):
        lacks = [name for name in _STATED if not hasattr(loss, name)]
        raise ConfigError(
            f"loss: {term} is a {type(loss).__name__} without {', '.join(lacks)}. Expected a loss as unet_dist.losses.contract "
            "describes it: inherit from unet_dist.losses.one_pass.OnePass."
        )
    return loss
