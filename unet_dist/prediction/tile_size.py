"""The tile size of least time that memory allows.

Owns the choice for `--tile_size auto`: which windows are tried on the device, and the choice by
their times. What windows need and how long they should take is the planner's knowledge. The result of a prediction does not
depend on the choice.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from unet_dist.errors import ConfigError
from unet_dist.machine.memory import is_out_of_memory
from unet_dist.models.answers import Answers, answers_of
from unet_dist.models.contract import Network
from unet_dist.models.pretrained import BESIDE_THE_OPTIONS
from unet_dist.planner.fitting import fastest_tiles, largest_side, relative_time
from unet_dist.planner.memory import WEIGHTS
from unet_dist.planner.simulation import SimulatedRun, prediction_peak
from unet_dist.prediction.tiles import views_of
from unet_dist.prediction.values import Recipe, values_of
from unet_dist.tiling.geometry import TilePlan, WindowSizes
from unet_dist.tiling.windows import window_logits, windows_at_once
from unet_dist.wording import size

# Share of the memory that tensors may take; the rest is for gaps between them. On a CPU by tests/measure/auto_tile.py memory:
# of 1 GiB, 0.8 were taken in float32 and 0.9 in float64, whose convolutions unfold their input.
_USABLE = {torch.float32: 0.6, torch.float64: 0.4}
_USABLE_DEVICE = 0.8  # assumption
_LARGEST = 4096
_SHAPES = 16
"""Images of a data set have few shapes; of more, those with the most pixels decide."""
_CLOSE, _TRIALS = 1.25, 3
"""Tile sizes predicted to take at most this multiple of the least time are tried on the device, and at most this number."""
_TRIAL_SHARE = 0.1
"""Part of the predicted time that trials may take; a smaller prediction goes by what the planner says."""


def choose_tile_size(
    model: Network,
    image_shapes: Sequence[tuple[int, int]],
    *,
    plan: Callable[[tuple[int, int], int], TilePlan],
    smallest: int,
    window_batch: int,
    recipe: Recipe,
    memory_bytes: int,
    precision: str = "no",
    around_forward: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> int:
    """Choose the side of a window.

    The planner orders the tile sizes that fit by predicted time. The first is confirmed by a batch on the device; where the
    prediction is long against it, the next ones are tried too and the fastest taken.

    Args:
        plan: (image shape, tile size) -> tiles.
        smallest: tile size that the network takes.
        memory_bytes: for weights and activations.
        precision: mixed precision: no, bf16 or fp16.
        around_forward: context of a forward pass, for that precision.

    Raises:
        ConfigError: memory does not suffice for the smallest window, or what the model needs cannot be known.
    """
    config = model.config()
    if config is None:
        raise ConfigError(
            f"tile_size: got auto, expected a number for {type(model).__name__}: what its windows need is not known before "
            "they are computed. Set --tile_size, such as 572."
        )
    sizes: WindowSizes = model.window_sizes
    shapes = dict(Counter(image_shapes).most_common())
    if len(shapes) > _SHAPES:
        shapes = dict(sorted(shapes.items(), key=lambda item: -item[0][0] * item[0][1] * item[1])[:_SHAPES])
    setting = _setting(model, config, precision)
    device_type = setting.device_type
    usable = _USABLE.get(setting.dtype, 0.5) if device_type == "cpu" else _USABLE_DEVICE

    answers = answers_of(model)

    def compute(network: Network, pixels: Tensor, halo: int) -> None:
        _compute(recipe, network, pixels, halo, answers)  # those of the network that has weights

    @cache
    def need(side: int) -> int:
        peak = prediction_peak(setting, window_batch, (side, side), compute=compute)
        weights = peak.parts[WEIGHTS]
        return weights + int((peak.total_bytes - weights) / usable)

    largest = largest_side(setting, memory_bytes, need, start=sizes.round_up(572))
    if largest is None or largest < smallest:
        raise ConfigError(
            f"memory: got {size(memory_bytes)}, expected {size(need(smallest))} for {window_batch} "
            f"of the smallest windows ({smallest} px). Raise --memory or lower --window_batch."
        )
    sides = range(smallest, max(_LARGEST, smallest) + 1, sizes.stride)
    ranked = [
        (seconds, side)
        for seconds, side in fastest_tiles(shapes, plan, sides, device_type)
        if min(side * side, max(_pixels(plan(shape, side)) for shape in shapes)) <= largest * largest
    ]
    trial = _Trial(model, recipe, window_batch, around_forward)
    return _fastest(ranked, trial, plan, shapes, smallest)


def _fastest(
    ranked: Sequence[tuple[float, int]],
    trial: _Trial,
    plan: Callable[[tuple[int, int], int], TilePlan],
    shapes: dict[tuple[int, int], int],
    smallest: int,
) -> int:
    """Try tile sizes on the device, from the one of least predicted time on.

    Args:
        ranked: (predicted time, tile size).
        smallest: the tile size below which nothing is tried.

    Raises:
        ConfigError: memory runs out at the smallest as well.
    """
    best: tuple[float, int] | None = None
    limit, spent, tried = float("inf"), 0.0, 0
    for predicted, side in ranked:
        if side > limit:
            continue
        if best is not None and (predicted > _CLOSE * ranked[0][0] or tried == _TRIALS):
            break
        shape = max(shapes, key=lambda s: s[0] * s[1] * shapes[s])
        seconds = trial.seconds_a_unit(side, plan(shape, side))
        if seconds is None:  # no memory: larger ones have none either, and one near to it hardly
            limit = max(side * 3 // 4, smallest) if side > smallest else 0
            continue
        tried += 1
        spent += seconds.spent
        best = min(best or (float("inf"), side), (seconds.a_unit * predicted, side))
        if spent > _TRIAL_SHARE * best[0]:
            break
    if best is None:
        raise ConfigError(
            f"memory: it ran out with the smallest windows ({smallest} px). Free memory, or lower --window_batch."
        )
    return best[1]


@dataclass(frozen=True)
class _Timed:
    """What a trial took: seconds for each unit of predicted time, and in all."""

    a_unit: float
    spent: float


class _Trial:
    """Computes a batch of windows as the prediction will, without reading or writing."""

    def __init__(
        self,
        model: Network,
        recipe: Recipe,
        window_batch: int,
        around_forward: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._model = model
        self._recipe = recipe
        self._window_batch = window_batch
        self._around_forward = around_forward
        self._device = next(model.parameters()).device
        self._is_warm = False

    def seconds_a_unit(self, side: int, plan: TilePlan) -> _Timed | None:
        """Time a batch; None where memory runs out."""
        started = time.perf_counter()
        window = plan.window_shape if _pixels(plan) <= side * side else (side, side)
        count = min(self._window_batch, len(plan))
        pixels = torch.zeros(count, *window, self._model.in_channels, dtype=torch.uint8)
        try:
            if not self._is_warm:  # the first call of a device loads and chooses kernels
                self._run(pixels[:1], plan.halo)
                self._is_warm = True
            seconds = self._run(pixels, plan.halo)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            seconds = None
        if seconds is None:  # here, and not in the handler: the error holds the frames that hold the tensors
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            return None
        unit = relative_time(replace(plan, window_shape=window, grid=(1, 1)), self._device.type)
        return _Timed(seconds / count / unit, time.perf_counter() - started)

    def _run(self, pixels: Tensor, halo: int) -> float:
        started = time.perf_counter()
        with torch.inference_mode(), self._around_forward():
            for part in pixels.split(windows_at_once(pixels.shape[1:3], self._device.type)):
                _compute(self._recipe, self._model, part, halo, answers_of(self._model))
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - started


def _compute(recipe: Recipe, model: Network, pixels: Tensor, halo: int, answers: Answers) -> None:
    """Make the outputs of a batch of windows."""
    logits = window_logits(model, pixels, halo=halo)
    probabilities = answers.probabilities(logits) if recipe.needs_probabilities else None
    for _ in views_of(recipe)[1:]:
        assert probabilities is not None
        probabilities = probabilities + answers.probabilities(window_logits(model, pixels, halo=halo))
    values_of(recipe, answers, logits=logits, probabilities=probabilities)


def _setting(model: Network, config: dict[str, Any], precision: str) -> SimulatedRun:
    """Describe a finished network to the planner, which builds another without memory."""
    described = {name: value for name, value in config.items() if name not in BESIDE_THE_OPTIONS}
    parameter = next(model.parameters())
    return SimulatedRun(
        type(model),
        tuple(described.items()),
        device_type=parameter.device.type,
        precision=precision,
        dtype=parameter.dtype,
    )


def _pixels(plan: TilePlan) -> int:
    return plan.window_shape[0] * plan.window_shape[1]
