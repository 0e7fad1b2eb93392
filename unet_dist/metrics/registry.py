"""Metrics beside mean IoU: the contract, the list of ours, and what a word of them gives.

A metric is a function of the one confusion matrix: whole numbers, summed over tiles and processes before anything is divided. So it
is the same bits on any number of processes, and costs nothing while images are computed. What no confusion matrix tells (distances
between borders, objects) is no metric in this sense. One more of ours is a file and a line here; it is then in the table, in
evaluation-SPLIT.json and in the report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from unet_dist.errors import ConfigError
from unet_dist.registry import Registry, call_part, parse_word, split_words


class Metric(Protocol):
    """A number out of a confusion matrix.

    It may take more by name: ignore_index (the class that is no answer, or None), and the arguments that stand in brackets behind
    its name.
    """

    def __call__(self, confusion: Tensor) -> float | None:
        """(K, K) int64 on the CPU, rows are labels, columns predictions -> the score; None where nothing was counted."""


METRICS: Registry[Callable[..., object]] = Registry(
    "metrics", "unet_dist.metrics", {"mean_dice": "unet_dist.metrics.overlap:mean_dice"}
)


def require_metrics(words: str | None) -> None:
    """Refuse metrics that do not exist or do not answer, before any image is computed.

    Raises:
        ConfigError: names the metric.
    """
    import torch

    compute_metrics(words, torch.tensor([[3, 1], [2, 4]]), None)


def compute_metrics(words: str | None, confusion: Tensor, ignore_index: int | None) -> dict[str, float | None]:
    """Compute the metrics of `--metrics mean_dice,my_package.metrics:kappa(power=2)`, by their words.

    Raises:
        ConfigError: one does not exist, or gives something else than a number or None.
    """
    found: dict[str, float | None] = {}
    for text in split_words(words):
        word = parse_word("metrics", text)
        given = {"confusion": confusion.cpu(), "ignore_index": ignore_index}
        value = call_part("metrics", word, METRICS.load(word.name), given)
        if value is not None and not isinstance(value, float | int):
            raise ConfigError(
                f"metrics: {word} gave a {type(value).__name__}, expected a number, or None where nothing was "
                "counted. Change metrics."
            )
        found[str(word)] = None if value is None else float(value)
    return found
