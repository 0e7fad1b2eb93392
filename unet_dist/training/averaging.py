"""An average of the weights over the steps of a run, which often predicts better than the last of them.

Owns its rule, and lending it to the network. It is kept as one more moment of the optimizer, so that a checkpoint carries it
as it carries the others. Every process has the same weights, so each makes the same average and none needs to be asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

MOMENT = "average"
"""Its name among the optimizer's moments."""


class WeightAverage:
    """Averages a network's parameters: a step moves the average towards them by 1 - min(decay, (1 + step) / (10 + step)).

    Source: Polyak and Juditsky 1992 for the idea; the rule is TensorFlow's ExponentialMovingAverage with num_updates, which
    forgets the first steps of a short run too. Buffers (running statistics) stay the network's own.

    Args:
        model: the network.
        optimizer: AdamW over its parameters.
        decay: above 0 and below 1; None averages nothing.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, decay: float | None) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = optimizer
        self._decay = decay
        if decay is None:
            for state in optimizer.state.values():
                state.pop(MOMENT, None)  # of a run that averaged before its config was changed

    @torch.no_grad()
    def update(self, step: int, is_masked: Tensor) -> None:
        """Take the weights after a step in.

        Args:
            step: 1 is the first.
            is_masked: bool scalar on the device: the step did not count, and leaves the average as it is.
        """
        if self._decay is None:
            return
        moved, averages = list[Tensor](), list[Tensor]()
        for parameter in self._parameters:
            if not (state := self._optimizer.state.get(parameter)):
                continue
            if MOMENT not in state:
                state[MOMENT] = parameter.detach().clone()
            moved.append(parameter)
            averages.append(state[MOMENT])
        if not moved:
            return
        weight = (1 - min(self._decay, (1 + step) / (10 + step))) * (~is_masked).double()
        weight = weight.to(averages[0].dtype)  # of another type torch multiplies tensor by tensor, to the same values
        changes = torch._foreach_sub(moved, averages)
        torch._foreach_mul_(changes, weight)
        torch._foreach_add_(averages, changes)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Inside, the network has the averaged weights; after it its own, to the bit."""
        states = ((p, self._optimizer.state.get(p, {}).get(MOMENT)) for p in self._parameters)
        pairs = [(p.detach(), average) for p, average in states if average is not None]
        own = [parameter.clone() for parameter, _ in pairs]
        for parameter, average in pairs:
            parameter.copy_(average)
        try:
            yield
        finally:
            for (parameter, _), values in zip(pairs, own, strict=True):
                parameter.copy_(values)
