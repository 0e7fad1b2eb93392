"""Muon: move each bank of filters by its averaged gradient, made orthogonal.

Owns the rule, and which parameters it fits. AdamW updates the others.
Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", for the momentum and the iteration; Liu et
al. 2025, "Muon is scalable for LLM training", arXiv 2502.16982, equation 4, for the scale.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unet_dist.training.adamw import FusedAdamW

BANKS = "is_banks"  # the mark of the parameter group that Muon updates
MOMENT = "momentum"
"""Its name among the optimizer's moments."""

_MOMENTUM = 0.95
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_SCALE = 0.2  # root of the mean square of an update: about AdamW's, so that one learning rate serves both
_LEAST_FILTERS, _LEAST_VALUES = 16, 64


def is_bank(parameter: nn.Parameter) -> bool:
    """Whether a parameter holds filters of more than one pixel, enough of them to be a matrix.

    Classifiers of a pixel, filters of one channel and the first layer of a colour picture are none.
    """
    if parameter.ndim != 4:
        return False
    filters, values = parameter.shape[0], parameter[0].numel()
    return filters >= _LEAST_FILTERS and values >= _LEAST_VALUES and parameter[0, 0].numel() > 1


class Muon(FusedAdamW):
    """AdamW, whose groups marked as BANKS are updated by Muon instead."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make an update; where `found_inf` is set, it leaves weights and moments as they are."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group.get(BANKS)]
        try:
            result = super().step(closure)
        finally:
            self.param_groups = groups
        found = getattr(self, "found_inf", None)
        for group in groups:
            if group.get(BANKS):
                alike: defaultdict[tuple[Any, ...], list[nn.Parameter]] = defaultdict(list)
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        alike[(parameter.device, parameter.dtype, parameter.shape)].append(parameter)
                for parameters in alike.values():
                    self._move(parameters, group["lr"], group["weight_decay"], found)
        return result

    def _move(self, parameters: Sequence[nn.Parameter], rate: float, weight_decay: float, found: Tensor | None) -> None:
        """Update parameters of one shape, at once."""
        for parameter in parameters:
            if MOMENT not in self.state[parameter]:
                self.state[parameter][MOMENT] = torch.zeros_like(parameter)
        moments = [self.state[parameter][MOMENT] for parameter in parameters]
        gradient = torch.stack([parameter.grad for parameter in parameters if parameter.grad is not None])
        before = torch.stack(moments)
        after = before.lerp(gradient, 1 - _MOMENTUM)
        ahead = gradient.lerp(after, _MOMENTUM).flatten(2)  # Nesterov's; (n, filters, values)
        change = orthogonal(ahead) * (_SCALE * math.sqrt(max(ahead.shape[1:])))
        change = change.view_as(gradient).add_(torch.stack([*parameters]), alpha=weight_decay)
        if found is not None:
            counts = found == 0
            after, change = torch.where(counts, after, before), torch.where(counts, change, 0)
        torch._foreach_copy_(moments, after.unbind())
        torch._foreach_add_(tuple[Tensor, ...](parameters), change.unbind(), alpha=-rate)


def orthogonal(banks: Tensor) -> Tensor:
    """Bring the singular values of matrices near 1 (most end between 0.7 and 1.2); their singular vectors stay.

    The iteration X <- (a + b XX' + c (XX')^2) X only multiplies X by polynomials of XX', so it runs on XX', the smaller matrix,
    and X is multiplied once: at 9 columns per row in less than half of the operations.

    Args:
        banks: (n, rows, columns).
    """
    is_tall = banks.shape[1] > banks.shape[2]
    values = banks.mT if is_tall else banks
    values = values / torch.linalg.vector_norm(values, dim=(1, 2), keepdim=True).clamp(min=1e-7)
    gram = values @ values.mT
    product = None
    for iteration in range(_ITERATIONS):
        factor = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        factor.diagonal(dim1=1, dim2=2).add_(_A)
        product = factor if product is None else factor @ product
        if iteration + 1 < _ITERATIONS:
            gram = factor @ gram @ factor
    assert product is not None
    values = product @ values
    return values.mT if is_tall else values
