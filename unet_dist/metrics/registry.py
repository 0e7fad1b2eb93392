"""Metrics beside mean IoU: the contract, and what a word or an object of them gives.

A metric is a function of the one confusion matrix: whole numbers, summed over tiles and processes before anything is divided. So it
is the same bits on any number of processes, and costs nothing while images are computed. What no confusion matrix tells (distances
between borders, objects) is no such metric. One more of ours is a function and its name in PARTS; it is then in the tables,
in metrics.jsonl, in the trackers, in evaluation-SPLIT.json, in the report and in the model card.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from unet_dist.config.metrics import METRICS
from unet_dist.errors import ConfigError, UnetDistError
from unet_dist.metrics.confusion import MATRIX_CLASSES
from unet_dist.registry import Word, call_part, describe_error, parse_word, split_words


class Metric(Protocol):
    """A number out of a confusion matrix.

    It may take more by name: ignore_index (the class that is no answer, or None), and the arguments that stand in brackets behind
    its name.
    """

    def __call__(self, confusion: Tensor) -> float | None:
        """(K, K) int64 on the CPU, rows are labels, columns predictions -> the score; None where nothing was counted.

        Of more than 1,000 classes (K, 2, 2), where it says `takes_planes`.
        """


Counted = Callable[[Tensor], float | None]
"""A metric with its arguments: from a confusion matrix to a number, or None."""


def metric_name(metric: Metric) -> str:
    """What files and tables call a metric that is an object: its `__name__`, else that of its class."""
    return str(getattr(metric, "__name__", type(metric).__name__))


def load_metrics(words: str | None) -> list[tuple[Word, Callable[..., object]]]:
    """Import the metrics of a list of words.

    Raises:
        ConfigError: one does not exist, or cannot be imported.
    """
    read = [parse_word("metrics", text) for text in split_words(words)]
    return [(word, METRICS.load(word.name)) for word in read]


def make_metrics(
    metrics: str | Sequence[Metric] | None, num_classes: int, ignore_index: int | None, *, multi_label: bool = False
) -> dict[str, Counted]:
    """Make metrics ready to be computed, and try each on counts of this number of classes.

    Args:
        metrics: words such as "mean_dice,my_package.metrics:kappa(power=2)", or objects.

        multi_label: whether classes overlap; a metric then takes (K, 2, 2), as of more than MATRIX_CLASSES, and must say so by
            `takes_planes`.

    Returns:
        By word or name, in the order in which they came.

    Raises:
        ConfigError: one does not exist, fails, or gives something else than a number or None.
    """
    found: Sequence[tuple[Word, Callable[..., object]]]
    if metrics is None or isinstance(metrics, str):
        found = load_metrics(metrics)
    else:
        found = [(Word(metric_name(metric), {}), metric) for metric in metrics]
    made: dict[str, Counted] = {}
    is_planar = multi_label or num_classes > MATRIX_CLASSES
    why = "multi_label" if multi_label else f"num_classes {num_classes}, more than {MATRIX_CLASSES}"
    for word, metric in found:
        if str(word) in made:
            raise ConfigError(f"metrics: got {word} twice, expected it once. Rename one of the two.")
        if is_planar and not getattr(metric, "takes_planes", word.name in METRICS.own):
            raise ConfigError(
                f"metrics: got {word} with {why}, expected one that takes the counts (K, 2, 2) of each class and "
                "says so by an attribute takes_planes = True. Remove it from metrics."
            )
        made[str(word)] = partial(_compute, word, metric, ignore_index)
    shape = (num_classes, 2, 2) if is_planar else (num_classes, num_classes)
    compute_metrics(made, 3 * torch.eye(shape[1], dtype=torch.int64).expand(shape) + 1)
    return made


def compute_metrics(metrics: Mapping[str, Counted], confusion: Tensor) -> dict[str, float | None]:
    """Compute metrics of a confusion matrix.

    Raises:
        ConfigError: one fails, or gives something else than a number or None.
    """
    return {name: metric(confusion) for name, metric in metrics.items()}


def _compute(word: Word, metric: Callable[..., object], ignore_index: int | None, confusion: Tensor) -> float | None:
    given = {"confusion": confusion.cpu().clone(), "ignore_index": ignore_index}
    try:
        value = call_part("metrics", word, metric, given)
    except UnetDistError:
        raise
    except Exception as error:  # whatever somebody else's code raises
        raise ConfigError(f"metrics: {word} failed: {describe_error(error)} Change metrics.") from error
    if value is not None and not isinstance(value, float | int):
        raise ConfigError(
            f"metrics: {word} gave a {type(value).__name__}, expected a number, or None where nothing was "
            "counted. Change metrics."
        )
    return None if value is None or not math.isfinite(value) else float(value)
