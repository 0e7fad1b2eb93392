"""One step layer by layer: shapes, ranges, gradient norms, and where it stops being finite.

Owns the notes of a step and their words. The step is the training's own gradient; the remedy for a finding comes from
whoever asked for it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from rich import box
from rich.table import Table
from torch import Tensor, nn

from unet_dist.data.batches.shares import StepShare
from unet_dist.tiling.gradient import WindowGradient


@dataclass
class InspectedLayer:
    """What one layer gave in a step.

    Attributes:
        shape: of its output, of the first micro-batch.
        low, mean, high: of its output.
        largest_weight: the largest magnitude among its parameters; None where it has none.
        grad_norm: of the gradient of its parameters; None where it has none.
    """

    name: str
    shape: tuple[int, ...]
    low: float
    mean: float
    high: float
    largest_weight: float | None = None
    grad_norm: float | None = None


@dataclass
class InspectedStep:
    """A step, layer by layer, in the order of the forward pass.

    Attributes:
        loss: over the valid pixels.
        fed: the normalised windows, as if a layer had given them.
        layers: those without layers inside.
        bad_output: the first layer whose output is not finite.
        bad_gradient: the first layer, from the loss down, that is given or gives its parameters a gradient that is not finite.
        bad_operation: autograd's name of the first operation whose gradient is not a number.
    """

    loss: float = math.nan
    fed: list[InspectedLayer] = field(default_factory=list)
    layers: list[InspectedLayer] = field(default_factory=list)
    bad_output: str | None = None
    bad_gradient: str | None = None
    bad_operation: str | None = None

    @property
    def without_gradient(self) -> list[str]:
        """The layers whose parameters learn nothing."""
        return [layer.name for layer in self.layers if layer.grad_norm == 0]

    def complaint(self) -> str | None:
        """Describe values that are not finite, in sentences; None where all are."""
        if self.bad_output is not None:
            return f"The first layer whose output is not finite is {self.bad_output}. {self._cause(self.bad_output)}"
        operation = f" (in {self.bad_operation})" if self.bad_operation else ""
        if self.bad_gradient is not None:
            return (
                f"The first layer, from the loss down, whose gradient is not finite is {self.bad_gradient}{operation}. Every "
                "output is finite: look at the range of its output above."
            )
        if not math.isfinite(self.loss):
            return f"The loss is {self.loss}{operation}, though every layer's output is finite."
        return None

    def _cause(self, name: str) -> str:
        """Whether a layer's output is not finite by its own weights or by what it was given."""
        at = next(number for number, layer in enumerate(self.layers) if layer.name == name)
        weight = self.layers[at].largest_weight
        if weight is not None and not math.isfinite(weight):
            return "Its own weights are not finite."
        before = self.layers[at - 1] if at else next(iter(self.fed), None)
        given = "" if before is None else f"; the layer before it gives {before.low:.3g} to {before.high:.3g}"
        return f"Its weights are finite{'' if weight is None else f', up to {weight:.3g}'}{given}."


def inspect_step(
    model: nn.Module,
    gradient: WindowGradient,
    share: StepShare,
    divisor: Tensor,
    device: torch.device,
    loss_scale: float = 1.0,
) -> InspectedStep:
    """Make a forward and a backward pass under autograd's anomaly detection, and note what every layer gives.

    The gradient stays in the parameters; nothing is updated.

    Args:
        loss_scale: of fp16, whose small gradients are else 0; a power of two, taken out of the gradient again.
    """
    found = InspectedStep()
    scale = 1 / torch.where(divisor > 0, divisor, 1.0)
    sums = []
    with _watched(model, found), warnings.catch_warnings(), torch.autograd.set_detect_anomaly(True):
        warnings.simplefilter("ignore")  # where the operation stands in our own code says less than the layer's name
        totals = gradient.count(share.batches, device) if gradient.loss.has_statistics else None
        for batch in share.batches:
            there = batch.on(device)
            tensors = there.windows, there.labels, there.keys
            try:
                added = gradient.add(*tensors, scale=scale * loss_scale, borders=there.borders, totals=totals)
                sums.append((added.sum(0) * scale).sum().item())
            except RuntimeError as error:
                if "returned nan values" not in str(error):
                    raise
                found.bad_operation = str(error).split("'")[1]
                sums.append(math.nan)
    found.loss = sum(sums)
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad /= loss_scale
    modules = dict(model.named_modules())
    for layer in reversed(found.layers):
        parameters = list(modules[layer.name].parameters()) if layer.name else []
        if parameters:
            layer.largest_weight = max(p.detach().abs().max().item() for p in parameters)
            if not all(bool(torch.isfinite(p).all()) for p in parameters):
                layer.largest_weight = math.nan
        grads = [p.grad for p in parameters if p.grad is not None]
        if grads:
            layer.grad_norm = torch.nn.utils.get_total_norm(grads).item()
            if not math.isfinite(layer.grad_norm) and found.bad_gradient is None:
                found.bad_gradient = layer.name
    return found


@contextmanager
def _watched(model: nn.Module, found: InspectedStep) -> Iterator[None]:
    """Note what the model is fed, the output of every layer without layers inside, and the gradient that it is given."""
    handles = [
        layer.register_forward_hook(partial(_note, found, name))
        for name, layer in model.named_modules()
        if next(layer.children(), None) is None
    ]
    handles.append(model.register_forward_pre_hook(partial(_note_fed, found)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _note_fed(found: InspectedStep, _model: nn.Module, inputs: tuple[Any, ...]) -> None:
    _merge(found.fed, "input, scaled", inputs[0].detach())


def _note(found: InspectedStep, name: str, _layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    if not isinstance(output, Tensor) or (inputs and output is inputs[0]):  # a layer that does nothing
        return
    if not _merge(found.layers, name, output.detach()) and found.bad_output is None:
        found.bad_output = name

    def check(gradient: Tensor) -> None:
        if found.bad_gradient is None and not bool(torch.isfinite(gradient).all()):
            found.bad_gradient = name

    if output.requires_grad:
        output.register_hook(check)


def _merge(layers: list[InspectedLayer], name: str, values: Tensor) -> bool:
    """Note the range of what a layer gave; returns whether it is finite."""
    values = values if values.dtype == torch.float64 else values.float()
    low, mean, high = values.min().item(), values.mean().item(), values.max().item()
    known = next((layer for layer in layers if layer.name == name), None)
    if known is None:
        layers.append(InspectedLayer(name, tuple(values.shape), low, mean, high))
    else:  # a later micro-batch, or activations that are computed again
        known.low, known.high = min(known.low, low), max(known.high, high)
    return math.isfinite(low + mean + high)


def layer_table(step: InspectedStep, title: str) -> Table:
    """A step as a table: layer, output shape and range, largest weight, gradient norm of the parameters."""
    # No rules between the columns, so that a deep network's names fit into 80 characters, as logs have them.
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("layer", overflow="fold")
    table.add_column("output", overflow="fold")
    for name in ("min", "mean", "max", "|weight|", "|grad|"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in (*step.fed, *step.layers):
        numbers = (layer.low, layer.mean, layer.high, layer.largest_weight, layer.grad_norm)
        row = ("" if value is None else f"{value:.3g}" for value in numbers)
        table.add_row(layer.name, "x".join(map(str, layer.shape)), *row)
    return table
