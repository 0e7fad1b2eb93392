"""Courses of the learning rate over a run.

Owns the contract of a course and ours. A course is a pure function of the step: nothing to save, nothing that advances once too
often on several processes. One more of ours is a function here, and its name in PARTS.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

# torch's OneCycleLR defaults: start = peak / 25, end = start / 1e4, beta1 runs from 0.95 to 0.85 and back.
START_DIVISOR, END_DIVISOR = 25.0, 1e4
LOW_MOMENTUM, HIGH_MOMENTUM = 0.85, 0.95
BETA1 = 0.9
POLY_POWER = 0.9  # Chen et al. 2017 (DeepLab, arXiv 1606.00915), section 4.1


class Course(Protocol):
    """The learning rate and AdamW's beta1 of an update.

    What makes one takes those of learning_rate (the peak), total_steps and warmup_fraction that it names, and the arguments that
    stand in brackets behind its name. It returns the same for the same step, whenever and wherever it is asked.
    """

    def __call__(self, step: int, /) -> tuple[float, float]:
        """Step 1 to total_steps -> (learning rate, beta1)."""


def onecycle(learning_rate: float, total_steps: int, warmup_fraction: float) -> Course:
    """Smith and Topin 2018 (arXiv 1708.07120), with cosine phases as torch.optim.lr_scheduler.OneCycleLR."""
    low = learning_rate / START_DIVISOR
    turn, last = warmup_fraction * total_steps - 1, total_steps - 1

    def course(step: int) -> tuple[float, float]:
        at = step - 1
        if at <= turn and turn > 0:
            return _cosine(low, learning_rate, at / turn), _cosine(HIGH_MOMENTUM, LOW_MOMENTUM, at / turn)
        share = (at - turn) / (last - turn) if last > turn else 1.0
        return _cosine(learning_rate, low / END_DIVISOR, share), _cosine(LOW_MOMENTUM, HIGH_MOMENTUM, share)

    return course


def constant(learning_rate: float, total_steps: int, warmup_fraction: float) -> Course:
    """The peak, after the warm-up."""
    return warmed(learning_rate, total_steps, warmup_fraction, lambda left: 1.0)


def cosine(learning_rate: float, total_steps: int, warmup_fraction: float) -> Course:
    """Half a cosine from the peak to 0, after the warm-up. Source: Loshchilov and Hutter 2017 (arXiv 1608.03983), equation 5."""
    return warmed(learning_rate, total_steps, warmup_fraction, lambda left: 0.5 * (1 - math.cos(math.pi * left)))


def poly(learning_rate: float, total_steps: int, warmup_fraction: float) -> Course:
    """The share of the steps left, to the power of 0.9, after the warm-up."""
    return warmed(learning_rate, total_steps, warmup_fraction, lambda left: left**POLY_POWER)


def warmed(learning_rate: float, total_steps: int, warmup_fraction: float, decay: Callable[[float], float]) -> Course:
    """Rise in a straight line to the peak, then follow `decay`: share of the steps left, 1 to 0 -> share of the peak."""
    warmup = round(warmup_fraction * total_steps)

    def course(step: int) -> tuple[float, float]:
        if step <= warmup:
            return learning_rate * step / warmup, BETA1
        left = 1 - (step - 1 - warmup) / max(1, total_steps - warmup)
        return learning_rate * decay(left), BETA1

    return course


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


PARTS = {"onecycle": onecycle, "constant": constant, "cosine": cosine, "poly": poly}
