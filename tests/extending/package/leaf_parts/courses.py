"""A course of the learning rate: a function of the step alone."""

from __future__ import annotations

from collections.abc import Callable


def halving(learning_rate: float, every: int = 10) -> Callable[[int], tuple[float, float]]:
    """The peak, halved after each `every` steps; with AdamW's usual beta1."""
    return lambda step: (learning_rate * 0.5 ** ((step - 1) // every), 0.9)
