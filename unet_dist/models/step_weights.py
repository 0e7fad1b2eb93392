"""The weights as a training step computes with them, made once per step and not for every window.

Owns the way from a network's parameters to the filters of its convolutions, and of their gradients back: standardised where the
layer wants it, and in the type of mixed precision, which autocast else casts to tensor by tensor, for every window anew. Both
ways are a few operations over all layers. Must not know the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from unet_dist.models.flat_filters import FlatFilters, Layer, Standardised, copy_all, dense_strides
from unet_dist.models.normalisation import ScaledStdConv2d, ScaledStdConvTranspose2d

_STANDARDISED = (ScaledStdConv2d, ScaledStdConvTranspose2d)
_CAST = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, *_STANDARDISED)
"""Kinds of layers whose weight and bias autocast casts. Those derived from them may do anything with theirs."""


_LAST_SHARE = 1 / 8
"""Of the parameters, at least: of the paper's network it is the contracting path, 15 %, whose backward pass takes longer than the
sum of all others over eight GPUs (docs/explanation/scaling.md)."""


class StepWeights:
    """Lends a network the weights of a step.

    Args:
        model: the network.
        dtype: of mixed precision; None computes in the parameters' own.
        is_overlapped: whether gradients are summed over processes during the backward pass. The gradients of layers whose
            weights are made together are whole together, so the last to come are made apart, and are few.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype | None, *, is_overlapped: bool = False) -> None:
        layers = [m for m in model.modules() if type(m) in _CAST]
        self._parts = [Part(some, dtype) for some in (_cut(layers) if is_overlapped else [layers])]
        self._parts = [part for part in self._parts if part.parameters]

    @contextmanager
    def lent(self, *, is_last: bool = True) -> Iterator[None]:
        """Around a forward pass and its backward pass: the network computes with the weights of this step.

        Args:
            is_last: whether it is the last one before the weights change. Its backward pass gives the parameters their gradient,
                of all passes of the step.
        """
        changed: list[tuple[nn.Module, str, nn.Parameter | None]] = []
        is_whole = False
        try:
            for part in self._parts:
                for module, name, tensor in part.lend(is_last):
                    changed.append((module, name, module._parameters[name]))
                    module._parameters[name] = tensor  # type: ignore[assignment]
            yield
            is_whole = not is_last
        finally:
            for module, name, parameter in reversed(changed):
                module._parameters[name] = parameter
            if not is_whole:
                for part in self._parts:
                    part.forget()


class Part:
    """Layers whose weights are made together.

    Attributes:
        parameters: those that are lent.
    """

    def __init__(self, layers: Sequence[nn.Module], dtype: torch.dtype | None) -> None:
        self._layers = [layer for layer in layers if isinstance(layer, _STANDARDISED) and _learns(layer)]
        self._filters = FlatFilters(self._layers) if self._layers else None
        standardised = {id(layer.weight) for layer in self._layers}
        self._dtype = dtype
        places: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}  # one parameter may be of several layers
        if dtype is not None:
            for layer in layers:
                for name in ("weight", "bias"):
                    parameter = layer._parameters.get(name)
                    is_cast = parameter is not None and parameter.requires_grad and parameter.dtype != dtype
                    if parameter is not None and is_cast and id(parameter) not in standardised:
                        places.setdefault(parameter, []).append((layer, name))
        self._places = places
        self._strides = [dense_strides(parameter) for parameter in places]
        self.parameters: list[Tensor] = [
            *[layer.weight for layer in self._layers],
            *[layer.gain for layer in self._layers if layer.gain is not None],
            *places,
        ]
        self._made: list[Tensor] | None = None
        self._standardised: Standardised | None = None
        self._gradient: list[Tensor] = []  # of the passes so far

    def lend(self, is_last: bool) -> Iterator[tuple[nn.Module, str, Tensor | None]]:
        """Make the weights, unless this step has; where each belongs."""
        count = len(self._layers)
        lent = _Lend.apply(self, is_last, *self.parameters)
        for layer, tensor in zip(self._layers, lent[:count], strict=True):
            yield layer, "weight", tensor
            yield layer, "gain", None  # as it is in the weight
        for places, tensor in zip(self._places.values(), lent[count:], strict=True):
            for module, name in places:
                yield module, name, tensor

    def forget(self) -> None:
        """The parameters change, or the step has failed."""
        self._made, self._standardised, self._gradient = None, None, []

    def make(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """The weights of this step."""
        if self._made is None:
            self._made, count = [], len(self._layers)
            if self._filters is not None:
                weights, gains = parameters[:count], parameters[count : 2 * count]
                self._standardised = self._filters.standardise(weights, gains, self._dtype or weights[0].dtype)
                self._made += self._standardised.filters
            if self._places:
                casts = _one_block(parameters[2 * count :], self._dtype)
                copy_all(casts, parameters[2 * count :], self._strides)
                self._made += casts
        return self._made

    def take(self, gradients: Sequence[Tensor | None]) -> None:
        """Add the gradients of a pass to those of the passes before, in the parameters' own type."""
        assert self._made is not None, "a backward pass without the weights of its step"
        whole = [torch.zeros_like(m) if g is None else g for m, g in zip(self._made, gradients, strict=True)]
        count = len(self._layers)
        taken = [] if self._filters is None else [self._filters.gather(whole[:count])]
        if self._places:
            casts = _one_block(list(self._places), None)
            copy_all(casts, whole[count:], self._strides)
            taken += casts
        if self._gradient:
            torch._foreach_add_(self._gradient, taken)
        else:
            self._gradient = taken

    def differentiate(self) -> list[Tensor]:
        """The parameters' gradients of all passes."""
        if self._filters is None:
            return self._gradient
        assert self._standardised is not None
        weights, gains = self._filters.differentiate(self._gradient[0], self._standardised)
        return [*weights, *gains, *self._gradient[1:]]


class _Lend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Part, is_last: bool, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.part, ctx.is_last = part, is_last
        return tuple(tensor.detach() for tensor in part.make(parameters))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        part: Part = ctx.part
        part.take(gradients)
        taken = part.differentiate() if ctx.is_last else [None] * len(part.parameters)
        return None, None, *taken


def _learns(layer: Layer) -> bool:
    return layer.weight.requires_grad and layer.gain is not None and layer.gain.requires_grad


def _cut(layers: Sequence[nn.Module]) -> list[list[nn.Module]]:
    """Cut layers into the first ones, with a share of the parameters, and the rest."""
    before = list(accumulate(sum(p.numel() for p in layer.parameters(recurse=False)) for layer in layers))
    first = sum(count < _LAST_SHARE * before[-1] for count in before) + 1 if before else 0
    return [list(layers[:first]), list(layers[first:])]


def _one_block(tensors: Sequence[Tensor], dtype: torch.dtype | None) -> list[Tensor]:
    """New tensors, laid out as others, in one block of memory."""
    starts = list(accumulate((tensor.numel() for tensor in tensors), initial=0))
    block = torch.empty(starts.pop(), dtype=dtype or tensors[0].dtype, device=tensors[0].device)
    return [block.as_strided(t.shape, t.stride(), start) for start, t in zip(starts, tensors, strict=True)]
