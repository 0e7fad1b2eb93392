"""What fits into a given memory: the largest input, micro-batch and tile, and what to change where nothing does.

Owns the search. The numbers come from simulation.py; sizes and tiles from geometry.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from unet_dist.planner.memory import Peak
from unet_dist.planner.simulation import (
    SimulatedRun,
    prediction_flops,
    prediction_peak,
    training_flops,
    training_peak,
)
from unet_dist.tiling.geometry import TilePlan, covering_tile_size, plan_tiles, smallest_tile_size

# Outside of torch's record: the CUDA context with its kernels. assumption: not measured, no GPU was at hand.
CUDA_CONTEXT_BYTES = 600 * 2**20
# A window's time beside its pixels (Python, reading, transfers). assumption: as 5,000 px, some 4 ms at width 16 on one core.
WINDOW_OVERHEAD_PX = 5_000
# On a CPU a pixel of a larger window takes longer, as its layers leave the cache: at 0.61 and 2.69 Mpx 1.14 and 1.31 times as long
# as at 556 x 572 px (width 16, one core), 1.17 and 1.55 times (width 64, two cores; tests/measure/auto_tile.py time).
CPU_GROWTH, CPU_FLAT_PX = 0.18, 556 * 572
LARGEST_SIDE_PX = 65_536


@dataclass(frozen=True)
class Remedy:
    """A change that makes a run fit.

    Attributes:
        keys: what to set on the command line.
        peak_bytes: predicted with it.
        cost: what it costs, in words.
    """

    keys: str
    peak_bytes: int
    cost: str


@lru_cache(maxsize=256)
def training_parts(setting: SimulatedRun, micro_batch_size: int, window: tuple[int, int]) -> Peak:
    """Predicted peak of a training step, by its parts; simulated once."""
    return training_peak(setting, micro_batch_size, window)


def training_bytes(setting: SimulatedRun, micro_batch_size: int, window: tuple[int, int]) -> int:
    """Predicted peak of a training step."""
    return training_parts(setting, micro_batch_size, window).total_bytes


@lru_cache(maxsize=256)
def operations(setting: SimulatedRun, window: tuple[int, int], *, is_training: bool) -> int:
    """Floating-point operations of one window in training or in prediction; counted once."""
    return (training_flops if is_training else prediction_flops)(setting, window)


@lru_cache(maxsize=256)
def prediction_bytes(setting: SimulatedRun, window_batch: int, window: tuple[int, int]) -> int:
    """Predicted peak of a batch of windows."""
    return prediction_peak(setting, window_batch, window).total_bytes


def usable_bytes(memory_bytes: int, device_type: str) -> int:
    """The part of a device's memory that torch can allocate from."""
    return memory_bytes - (CUDA_CONTEXT_BYTES if device_type == "cuda" else 0)


def largest_side(setting: SimulatedRun, memory_bytes: int, need: Callable[[int], int], start: int) -> int | None:
    """Find the largest valid side whose need fits; None where the smallest does not.

    A need grows with the square of the side, so a few simulations suffice: each guess is the side that the last one's bytes per
    pixel promise, until two neighbours are known of which one fits.

    Args:
        need: side -> bytes.
        start: side of the first guess.
    """
    sizes, locality = setting.network.window_sizes, setting.network.locality
    smallest = sizes.minimum if locality is None else smallest_tile_size(sizes, locality)
    usable = usable_bytes(memory_bytes, setting.device_type)
    if need(smallest) > usable:
        return None
    fixed = need(smallest)
    fits, fails = smallest, sizes.round_up(LARGEST_SIDE_PX)
    guess = sizes.round_up(max(start, smallest + sizes.stride))
    while fails - fits > sizes.stride:
        guess = min(max(guess, fits + sizes.stride), fails - sizes.stride)
        needed = need(guess)
        if needed <= usable:
            fits = guess
        else:
            fails = guess
        per_pixel = max(needed - fixed, 1) / (guess**2 - smallest**2)
        promised = sizes.round_down(int((smallest**2 + (usable - fixed) / per_pixel) ** 0.5)) or smallest
        # One stride off the promise towards the unknown side closes the bracket in two more steps.
        guess = (
            promised
            if fits < promised < fails
            else (promised + sizes.stride if promised == fits else fails - sizes.stride)
        )
    return fits


def largest_micro_batch(setting: SimulatedRun, memory_bytes: int, share: int, window: tuple[int, int]) -> int | None:
    """Find the largest divisor of a process's share of the batch that fits; None where one crop does not.

    More samples take more of the same: the need is a constant and a slope, from one and two samples, and is then confirmed.
    """
    usable = usable_bytes(memory_bytes, setting.device_type)
    one = training_bytes(setting, 1, window)
    if one > usable:
        return None
    slope = max(training_bytes(setting, 2, window) - one, 1)
    affordable = 1 + (usable - one) // slope
    divisors = [count for count in range(1, share + 1) if share % count == 0 and count <= affordable]
    for count in reversed(divisors):
        if training_bytes(setting, count, window) <= usable:
            return count
    return 1


def relative_time(plan: TilePlan, device_type: str) -> float:
    """Predicted time of a plan in units of a pixel's."""
    pixels = plan.window_shape[0] * plan.window_shape[1]
    growth = 1 + CPU_GROWTH * math.log(max(1.0, pixels / CPU_FLAT_PX)) if device_type == "cpu" else 1.0
    return len(plan) * (pixels * growth + WINDOW_OVERHEAD_PX)


def fastest_tiles(
    image_shapes: Mapping[tuple[int, int], int],
    plan: Callable[[tuple[int, int], int], TilePlan],
    sides: range,
    device_type: str,
) -> list[tuple[float, int]]:
    """Order tile sizes by their predicted time, the smaller of equals first.

    Args:
        image_shapes: shape -> how many images have it.
        plan: (image shape, tile size) -> tiles.
        sides: tile sizes to choose from.

    Returns:
        (time in units of a pixel's, tile size), one tile size for those with the same tiles.
    """
    found: dict[tuple[TilePlan, ...], tuple[float, int]] = {}
    for side in sides:
        plans = tuple(plan(shape, side) for shape in image_shapes)
        time = sum(relative_time(p, device_type) * count for p, count in zip(plans, image_shapes.values(), strict=True))
        found.setdefault(plans, (time, side))
    return sorted(found.values())


def best_tile(
    setting: SimulatedRun, memory_bytes: int, image_shape: tuple[int, int], window_batch: int
) -> TilePlan | None:
    """Find the tiles of least predicted time for an image that fit; None where the smallest window does not.

    Raises:
        LocalityError: the network has no finite halo; ask before.
    """
    sizes, locality = setting.network.window_sizes, setting.network.locality
    assert locality is not None, setting.network.locality_obstacle
    usable = usable_bytes(memory_bytes, setting.device_type)
    first, last = smallest_tile_size(sizes, locality), covering_tile_size(image_shape, sizes, locality)
    sides = range(first, last + 1, sizes.stride)

    def plan_of(shape: tuple[int, int], side: int) -> TilePlan:
        return plan_tiles(shape, side, sizes, locality)

    for _, side in fastest_tiles({image_shape: 1}, plan_of, sides, setting.device_type):
        plan = plan_of(image_shape, side)
        if prediction_bytes(setting, min(window_batch, len(plan)), plan.window_shape) <= usable:
            return plan
    return None


def remedies(
    setting: SimulatedRun, memory_bytes: int, *, share: int, micro_batch_size: int, window: tuple[int, int]
) -> list[Remedy]:
    """List what would make training fit, the cheapest first; nothing where it fits already or nothing helps.

    Args:
        share: crops of a step that a process computes.
        window: height and width of the training window, px.
    """
    usable = usable_bytes(memory_bytes, setting.device_type)
    if training_bytes(setting, micro_batch_size, window) <= usable:
        return []
    found: list[Remedy] = []
    accumulating = replace(setting, keeps_gradients=True)
    smaller = largest_micro_batch(accumulating, memory_bytes, share, window)
    if smaller is not None and smaller < micro_batch_size:
        need = training_bytes(accumulating, smaller, window)
        is_coupled = setting.network.couples_batch is not None
        cost = "other batch statistics: another result" if is_coupled else "smaller batches on the device"
        found.append(Remedy(f"--micro_batch_size {smaller}", need, cost))
    is_open = "checkpoint_activations" in setting.network.config_keys
    if is_open and not dict(setting.options).get("checkpoint_activations"):
        checkpointing = setting.with_option("checkpoint_activations", True)
        found += _checkpointing(checkpointing, memory_bytes, share, micro_batch_size, window)
    if setting.network.locality is not None and setting.network.couples_batch is None:
        tile = largest_side(setting, memory_bytes, lambda s: training_bytes(accumulating, 1, (s, s)), start=max(window))
        if tile is not None and tile < max(window):
            need = training_bytes(accumulating, 1, (tile, tile))
            found.append(
                Remedy(f"--tile_size {tile} --micro_batch_size 1", need, "pixels under the halo computed again")
            )
    return found


def _checkpointing(
    setting: SimulatedRun, memory_bytes: int, share: int, micro_batch_size: int, window: tuple[int, int]
) -> list[Remedy]:
    usable = usable_bytes(memory_bytes, setting.device_type)
    need = training_bytes(setting, micro_batch_size, window)
    if need <= usable:
        return [Remedy("--checkpoint_activations true", need, "about a third more time")]
    count = largest_micro_batch(replace(setting, keeps_gradients=True), memory_bytes, share, window)
    if count is None:
        return []
    need = training_bytes(replace(setting, keeps_gradients=True), count, window)
    return [Remedy(f"--checkpoint_activations true --micro_batch_size {count}", need, "about a third more time")]
