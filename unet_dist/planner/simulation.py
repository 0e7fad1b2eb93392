"""Training steps and predictions on torch's fake tensors: their memory by part and their FLOPs.

Owns what happens in a step, in order, as far as memory goes: it runs the product's own normalisation, network, loss, backward
pass and optimizer. Must not know what to choose from the numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from unet_dist.config.loss_terms import parse_loss
from unet_dist.config.sections import ScheduleConfig
from unet_dist.losses.mixture import build_loss
from unet_dist.machine.memory_format import choose_memory_format
from unet_dist.models.contract import Network, TrainableNetwork, as_module
from unet_dist.models.normalisation import GroupNorm, standardised_once
from unet_dist.models.step_weights import StepWeights
from unet_dist.planner.memory import GRADIENTS, INPUT, OPTIMIZER, WEIGHTS, LiveMemory, Peak
from unet_dist.planner.operations import OWN_COUNTS
from unet_dist.tiling.gradient import WindowGradient
from unet_dist.tiling.windows import classify, window_logits, windows_at_once
from unet_dist.training.averaging import WeightAverage
from unet_dist.training.optimizer import build_optimizer


@contextmanager
def _values_left_out() -> Iterator[None]:
    """Have torch make tensors without values; what an older one warns of is a device that need not be there."""
    with warnings.catch_warnings(), FakeTensorMode():
        warnings.filterwarnings("ignore", message="cuDNN cannot be used for large")
        yield


_AUTOCAST = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class SimulatedRun:
    """What decides the memory of one process.

    Attributes:
        build: makes the network from `options`, its keyword arguments.
        trim: pixels cut off each side of the logits in training, beyond the network's own margin.
        device_type: cpu or cuda.
        precision: no, bf16 or fp16 (mixed precision).
        dtype: of the weights.
        held_bytes: pixels and labels in the device's memory beside the micro-batch being computed.
        keeps_gradients: whether gradients exist before the pass: several processes, or a second micro-batch.
        loss: its terms in words.
        averages: whether the weights are averaged over the steps.
        optimizer: adamw or muon.
        memory_format: of training, as the config has it.
        multi_label: whether classes overlap.
        has_workspace: whether a GPU's convolutions take memory beside their results; only where there is none to be measured, not.
    """

    build: Callable[..., Any]
    options: tuple[tuple[str, Any], ...]
    trim: int = 0
    device_type: str = "cuda"
    precision: str = "no"
    dtype: torch.dtype = torch.float32
    held_bytes: int = 0
    keeps_gradients: bool = False
    loss: str | dict[str, float] = "cross_entropy"
    averages: bool = False
    optimizer: Literal["adamw", "muon"] = "adamw"
    memory_format: str = "auto"
    has_workspace: bool = True
    multi_label: bool = False

    def with_option(self, name: str, value: Any) -> SimulatedRun:
        """The same with another option of the network."""
        return replace(self, options=tuple({**dict(self.options), name: value}.items()))

    @cached_property
    def network(self) -> TrainableNetwork:
        """The network without memory, for its sizes and its number of parameters."""
        with torch.device("meta"):
            return self.build(**dict(self.options))


def training_peak(setting: SimulatedRun, micro_batch_size: int, window: tuple[int, int]) -> Peak:
    """Simulate the training step of one micro-batch, the optimizer's state made by an earlier one.

    Args:
        window: height and width of the input window.
    """
    with _values_left_out(), LiveMemory(setting.device_type, has_workspace=setting.has_workspace) as memory:
        model = _build(setting, memory)
        with memory.making(WEIGHTS):
            choice = choose_memory_format(
                setting.memory_format, setting.device_type, is_convolutional=model.is_convolutional
            )
            _set_format(model, choice)
        optimizer = build_optimizer(model, ScheduleConfig(optimizer=setting.optimizer))
        average = WeightAverage(model, optimizer, 0.5 if setting.averages else None)
        parameters = list(model.parameters())
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(lambda p: memory.count_as(GRADIENTS, [p.grad]))
        with memory.making(INPUT):
            held = torch.empty(setting.held_bytes, dtype=torch.uint8)
        if (
            setting.device_type == "cuda"
        ):  # where the first step leaves the optimizer's state decides which gaps later ones find
            _pass(setting, memory, model, micro_batch_size, window)
        else:
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter)
        with memory.making(OPTIMIZER):
            optimizer.step()
            average.update(1, torch.zeros((), dtype=torch.bool))
        memory.count_as(GRADIENTS, [p.grad for p in parameters if p.grad is not None])
        if not setting.keeps_gradients:
            optimizer.zero_grad()
        memory.forget_peak()
        _pass(setting, memory, model, micro_batch_size, window)
        del held
    return memory.peak


def label_windows(model: Network, pixels: Tensor, halo: int) -> None:
    """Compute the labels of windows and nothing else."""
    classify(window_logits(model, pixels, halo=halo), model.ignore_index)


def prediction_peak(
    setting: SimulatedRun,
    window_batch: int,
    window: tuple[int, int],
    halo: int | None = None,
    compute: Callable[[Any, Tensor, int], None] = label_windows,
) -> Peak:
    """Simulate the prediction of a batch of windows.

    Args:
        window: height and width of the input window.
        halo: of the plan; None takes the network's margin.
        compute: from windows to results, (network, (N, H, W, C) uint8, halo).
    """
    with _values_left_out(), LiveMemory(setting.device_type, has_workspace=setting.has_workspace) as memory:
        model = _build(setting, memory).eval()
        memory.forget_peak()
        with memory.making(INPUT):
            pixels = torch.empty(window_batch, *window, model.in_channels, dtype=torch.uint8)
        margin = model.window_sizes.margin
        with ExitStack() as stack:
            stack.enter_context(_autocast(setting))
            with memory.making(WEIGHTS):
                stack.enter_context(standardised_once(as_module(model)))
            for part in pixels.split(windows_at_once(window, setting.device_type)):
                compute(model, part, margin if halo is None else halo)
        del pixels
    return memory.peak


def training_flops(setting: SimulatedRun, window: tuple[int, int]) -> int:
    """Count the floating-point operations of one window's forward and backward pass (a product and a sum are two)."""
    return _count_flops(setting, window, is_training=True)


def prediction_flops(setting: SimulatedRun, window: tuple[int, int]) -> int:
    """Count the floating-point operations of one window's forward pass."""
    return _count_flops(setting, window, is_training=False)


def _count_flops(setting: SimulatedRun, window: tuple[int, int], *, is_training: bool) -> int:
    setting = replace(setting, precision="no")
    counter = FlopCounterMode(display=False, custom_mapping=OWN_COUNTS)
    with _values_left_out(), LiveMemory(setting.device_type) as memory, counter:
        model = _build(setting, memory)
        if is_training:
            _pass(setting, memory, model, 1, window)
        else:
            pixels = torch.empty(1, *window, model.in_channels, dtype=torch.uint8)
            window_logits(model, pixels, halo=model.window_sizes.margin)
    return int(counter.get_total_flops())


def _build(setting: SimulatedRun, memory: LiveMemory) -> Any:
    default = torch.get_default_dtype()
    torch.set_default_dtype(setting.dtype)
    try:
        with memory.making(WEIGHTS):
            model = setting.build(**dict(setting.options))
    finally:
        torch.set_default_dtype(default)
    for layer in model.modules() if setting.device_type == "cuda" else ():
        if isinstance(layer, GroupNorm):
            layer.forward = _normalise_as_a_gpu  # type: ignore[method-assign]
    return model


class _GroupNormOfAGpu(torch.autograd.Function):
    """What torch's group norm takes on a GPU: contiguous copies of what comes in, both ways."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return torch.empty_like(features.contiguous())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (features,) = ctx.saved_tensors
        copies = gradient.contiguous(), features.contiguous()
        return torch.empty_like(copies[1])


def _normalise_as_a_gpu(features: Tensor) -> Tensor:
    """In float32, as autocast wants it there, and back (models.normalisation.GroupNorm)."""
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    normalised: Tensor = _GroupNormOfAGpu.apply(wide)
    is_last = features.is_contiguous(memory_format=torch.channels_last)
    return normalised.to(features.dtype, memory_format=torch.channels_last) if is_last else normalised


def _set_format(model: nn.Module, memory_format: torch.memory_format) -> None:
    """Do what model.to(memory_format=...) does, which cannot swap every fake parameter."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.dim() == 4:
                module.register_parameter(
                    name, nn.Parameter(parameter.detach().contiguous(memory_format=memory_format))
                )


def _pass(
    setting: SimulatedRun, memory: LiveMemory, model: TrainableNetwork, count: int, window: tuple[int, int]
) -> None:
    """Run forward and backward pass of `count` windows."""

    def wrapped(images: Tensor, keys: Tensor) -> Any:
        memory.count_as(INPUT, [images])
        with _autocast(setting):
            given = model(images, keys)
        if setting.precision == "no":
            return given
        return tree_map(Tensor.float, given)  # accelerate gives back float32

    margin = model.window_sizes.margin + setting.trim
    kind = torch.int64 if setting.multi_label else torch.uint8 if model.num_classes <= 255 else torch.uint16
    with memory.making(INPUT):
        windows = torch.empty(count, *window, model.in_channels, dtype=torch.uint8)
        labels = torch.empty(count, *(side - 2 * margin for side in window), dtype=kind)
        keys = torch.zeros(count, 3, dtype=torch.int64)
    loss = build_loss(parse_loss(setting.loss), multi_label=setting.multi_label)
    gradient = WindowGradient(model, wrapped, loss, trim=setting.trim)
    with StepWeights(as_module(model), _AUTOCAST[setting.precision]).lent():
        gradient.add(windows, labels, keys, scale=torch.ones(()), totals=lambda counts: counts)


def _autocast(setting: SimulatedRun) -> AbstractContextManager[Any]:
    dtype = _AUTOCAST[setting.precision]
    # Fake tensors are of the CPU: for what a U-Net computes, its list of operations in low precision is the GPU's.
    return nullcontext() if dtype is None else torch.autocast("cpu", dtype=dtype)
