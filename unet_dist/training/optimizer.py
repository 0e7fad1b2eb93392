"""The optimizer and the course of its learning rate.

Owns AdamW's parameter groups and the schedules. A schedule is a pure function of the step: nothing to save, nothing that
advances once too often on several processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from unet_dist.config.sections import ScheduleConfig

# torch's OneCycleLR defaults: start = peak / 25, end = start / 1e4, beta1 runs from 0.95 to 0.85 and back.
START_DIVISOR, END_DIVISOR = 25.0, 1e4
LOW_MOMENTUM, HIGH_MOMENTUM = 0.85, 0.95
BETAS = (0.9, 0.999)
POLY_POWER = 0.9  # Chen et al. 2017 (DeepLab, arXiv 1606.00915), section 4.1


def build_optimizer(model: nn.Module, schedule: ScheduleConfig) -> torch.optim.AdamW:
    """Build AdamW (Loshchilov and Hutter 2019); biases and gains are not decayed.

    The fused form is no luxury: it alone leaves the state untouched where `found_inf` is set, without a synchronisation.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=BETAS, fused=True)


def set_step(optimizer: torch.optim.Optimizer, schedule: ScheduleConfig, step: int, start: int = 0) -> float:
    """Set learning rate and beta1 for the update that makes step `step` (start + 1 to total_steps); returns the learning rate.

    Args:
        start: the step after which the course began, above 0 where a run was extended by a new one.
    """
    rate, momentum = course(schedule, start)(step)
    for group in optimizer.param_groups:
        group["lr"] = rate
        group["betas"] = (momentum, group["betas"][1])
    return rate


def course(schedule: ScheduleConfig, start: int = 0) -> Callable[[int], tuple[float, float]]:
    """The schedule as a function: step (start + 1 to total_steps) -> (learning rate, beta1)."""
    peak, total, rise = schedule.learning_rate, schedule.total_steps - start, schedule.warmup_fraction

    def onecycle(step: int) -> tuple[float, float]:
        """Smith and Topin 2018 (arXiv 1708.07120), with cosine phases as torch.optim.lr_scheduler.OneCycleLR."""
        low = peak / START_DIVISOR
        turn, last = rise * total - 1, total - 1
        at = step - 1
        if at <= turn and turn > 0:
            return _cosine(low, peak, at / turn), _cosine(HIGH_MOMENTUM, LOW_MOMENTUM, at / turn)
        share = (at - turn) / (last - turn) if last > turn else 1.0
        return _cosine(peak, low / END_DIVISOR, share), _cosine(LOW_MOMENTUM, HIGH_MOMENTUM, share)

    def warmed(step: int) -> tuple[float, float]:
        warmup = round(rise * total)
        if step <= warmup:
            return peak * step / warmup, BETAS[0]
        left = 1 - (step - 1 - warmup) / max(1, total - warmup)
        decay = {"constant": 1.0, "cosine": 0.5 * (1 - math.cos(math.pi * left)), "poly": left**POLY_POWER}
        return peak * decay[schedule.schedule], BETAS[0]

    chosen = onecycle if schedule.schedule == "onecycle" else warmed
    return lambda step: chosen(step - start)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
