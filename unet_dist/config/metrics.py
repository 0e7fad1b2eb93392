"""The metrics by name. They are declared in metrics/; this knows nothing of torch."""

from __future__ import annotations

from collections.abc import Callable

from unet_dist.registry import Registry, split_words

METRICS: Registry[Callable[..., object]] = Registry("metrics", "unet_dist.metrics", "unet_dist.metrics")


def spell_metrics(words: str | None) -> str | None:
    """Check the names in a list of metrics, without importing them, and write it in the one way of spelling.

    Raises:
        ConfigError: there is no such metric.
    """
    return None if words is None else ",".join(METRICS.spell(word) for word in split_words(words))
