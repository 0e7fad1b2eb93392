"""The optimizer and the course of its learning rate.

Owns AdamW's parameter groups, and what of a run's config makes its course. The courses are in courses.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import torch
from torch import nn

from unet_dist.config.courses import COURSES
from unet_dist.config.sections import ScheduleConfig
from unet_dist.models.pretrained import encoder_parameters
from unet_dist.training.courses import BETA1, Course

BETAS = (BETA1, 0.999)
ENCODER = "is_encoder"  # the mark of an encoder's parameter groups


def build_optimizer(model: nn.Module, schedule: ScheduleConfig) -> torch.optim.AdamW:
    """Build AdamW (Loshchilov and Hutter 2019); biases and gains are not decayed.

    The fused form is no luxury: it alone leaves the state untouched where `found_inf` is set, without a synchronisation.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    published = set(encoder_parameters(model))
    groups = _by_decay([p for p in parameters if p not in published], schedule.weight_decay)
    for group in _by_decay([p for p in parameters if p in published], schedule.weight_decay) if published else []:
        groups.append({**group, ENCODER: True})
    return FusedAdamW(groups, lr=schedule.learning_rate, betas=BETAS, fused=True)


class FusedAdamW(torch.optim.AdamW):
    """torch's, to the bit, in a third of the host's time: its own step examines every parameter anew."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make an update; `grad_scale` and `found_inf` are what a loss scaler sets."""
        groups = [(group, [p for p in group["params"] if p.grad is not None]) for group in self.param_groups]
        states = [[self.state.get(p) or {} for p in parameters] for _, parameters in groups]
        learnt = [state for some in states for state in some]
        alike = {(p.device, p.dtype) for _, parameters in groups for p in parameters}
        if closure is not None or len(alike) != 1 or not all(learnt):
            return super().step(closure)  # the first one makes the moments
        scale, found = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        # A step that does not count returns before it looks at its number, so that the number need not be taken back.
        steps = [state["step"] for state in learnt]
        if found is None:
            torch._foreach_add_(steps, 1)
        else:
            torch._foreach_add_(steps, [1 - found] * len(steps))  # of one tensor for all torch would ask the device
        for (group, parameters), some in zip(groups, states, strict=True):
            if not parameters:
                continue
            torch._fused_adamw_(
                parameters,
                [p.grad for p in parameters],
                [state["exp_avg"] for state in some],
                [state["exp_avg_sq"] for state in some],
                [],
                [state["step"] for state in some],
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                grad_scale=scale,
                found_inf=found,
            )
        return None


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
