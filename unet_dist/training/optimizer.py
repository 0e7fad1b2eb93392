"""The optimizer and the course of its learning rate.

Owns the optimizers' parameter groups, and what of a run's config makes its course. The courses are in courses.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import cast

import torch
from torch import nn

from unet_dist.config.courses import COURSES
from unet_dist.config.sections import ScheduleConfig
from unet_dist.models.pretrained import encoder_parameters
from unet_dist.training.adamw import MOMENTS, FusedAdamW, new_moment
from unet_dist.training.averaging import MOMENT as AVERAGE
from unet_dist.training.courses import BETA1, Course
from unet_dist.training.muon import BANKS, MOMENT, Muon, is_bank

BETAS = (BETA1, 0.999)
ENCODER = "is_encoder"  # the mark of an encoder's parameter groups


def build_optimizer(model: nn.Module, schedule: ScheduleConfig) -> FusedAdamW:
    """Build AdamW (Loshchilov and Hutter 2019) or Muon (Jordan et al. 2024); biases and gains are not decayed.

    The fused form is no luxury: it alone leaves the state untouched where `found_inf` is set, without a synchronisation. Muon
    updates the banks of filters that start at random; AdamW updates the rest, and an encoder with published weights.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    published = set(encoder_parameters(model))
    banks = [p for p in parameters if p not in published and is_bank(p)] if schedule.optimizer == "muon" else []
    others = published | set(banks)
    groups = _by_decay([p for p in parameters if p not in others], schedule.weight_decay)
    for group in _by_decay([p for p in parameters if p in published], schedule.weight_decay) if published else []:
        groups.append({**group, ENCODER: True})
    if banks:
        groups.append({"params": banks, "weight_decay": schedule.weight_decay, BANKS: True})
    kind = Muon if banks else FusedAdamW
    return kind(groups, lr=schedule.learning_rate, betas=BETAS, fused=True)


def settle_moments(optimizer: torch.optim.Optimizer) -> None:
    """After a run is resumed by another optimizer, drop the moments that it does not have, and begin those that it has."""
    for group in optimizer.param_groups:
        kept = (MOMENT,) if group.get(BANKS) else MOMENTS
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            for moment in {*state} - {*kept, AVERAGE}:
                del state[moment]
            for moment in kept if state else ():
                if moment not in state:
                    state[moment] = new_moment(moment, parameter)


def _by_decay(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def set_step(optimizer: torch.optim.Optimizer, schedule: ScheduleConfig, step: int, start: int = 0) -> float:
    """Set learning rate and beta1 for the update that makes step `step` (start + 1 to total_steps); returns the learning rate.

    An encoder's is multiplied by its factor, and 0 in its frozen steps, which count from the first step of the run.

    Args:
        start: the step after which the course began, above 0 where a run was extended by a new one.
    """
    rate, momentum = course(schedule, start)(step)
    factor = schedule.encoder_learning_rate_factor if step > schedule.encoder_frozen_steps else 0.0
    for group in optimizer.param_groups:
        group["lr"] = rate * factor if group.get(ENCODER) else rate
        group["betas"] = (momentum, group["betas"][1])
    return rate


def course(schedule: ScheduleConfig, start: int = 0) -> Callable[[int], tuple[float, float]]:
    """The schedule as a function: step (start + 1 to total_steps) -> (learning rate, beta1)."""
    chosen = _course(schedule.schedule, schedule.learning_rate, schedule.total_steps - start, schedule.warmup_fraction)
    return lambda step: chosen(step - start)


@lru_cache(maxsize=8)
def _course(word: str, learning_rate: float, total_steps: int, warmup_fraction: float) -> Course:
    given = {"learning_rate": learning_rate, "total_steps": total_steps, "warmup_fraction": warmup_fraction}
    return cast(Course, COURSES.build(word, given))
