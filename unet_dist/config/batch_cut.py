"""How a global batch is cut over processes, accumulation and micro-batches.

Owns the arithmetic and its refusals. Knows neither data nor device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from unet_dist.config.sections import ScheduleConfig
from unet_dist.errors import ConfigError


@dataclass(frozen=True)
class BatchCut:
    """How a global batch is cut: batch_size = world_size * grad_accum_steps * micro_batch_size.

    Where samples are split, the tiles of the whole batch are shared out instead, and micro_batch_size is a number of tiles.
    """

    world_size: int
    grad_accum_steps: int
    micro_batch_size: int
    splits_samples: bool = False


def cut_batch(schedule: ScheduleConfig, world_size: int, *, has_tiles: bool = False) -> BatchCut:
    """Cut the global batch over processes, accumulation and micro-batches.

    Args:
        has_tiles: whether a crop is more than one tile.

    Raises:
        ConfigError: it does not divide; lists what does.
    """
    batch, micro, accum = schedule.batch_size, schedule.micro_batch_size, schedule.gradient_accumulation_steps
    splits = schedule.split_sample
    if splits or (splits is None and has_tiles and batch < world_size):
        if accum is not None:
            raise ConfigError(
                f"gradient_accumulation_steps: got {accum}, which has no effect where samples are split (split_sample): each "
                "process accumulates over its tiles. Remove it, and set --micro_batch_size for the tiles taken at a time."
            )
        return BatchCut(world_size, 1, micro or 1, splits_samples=True)
    share, rest = divmod(batch, world_size)
    if rest:
        divisors = _divisors(batch)
        multiples = f"{share * world_size} or {(share + 1) * world_size}" if share else str(world_size)
        raise ConfigError(
            f"batch_size: got {batch} for {world_size} processes, expected a multiple of {world_size}: {multiples}. "
            f"A batch of {batch} divides over {', '.join(map(str, divisors))} processes. Or set --split_sample true: then "
            "processes share tiles (--tile_size), not crops."
        )
    listed = ", ".join(map(str, _divisors(share)))
    if micro is None and accum is None:
        micro, accum = share, 1
    elif micro is None:
        assert accum is not None
        schedule.require(
            share % accum == 0,
            "gradient_accumulation_steps",
            accum,
            f"a divisor of {batch} / {world_size} = {share}: {listed}",
        )
        micro = share // accum
    elif accum is None:
        schedule.require(
            share % micro == 0, "micro_batch_size", micro, f"a divisor of {batch} / {world_size} = {share}: {listed}"
        )
        accum = share // micro
    elif micro * accum != share:
        raise ConfigError(
            f"micro_batch_size x gradient_accumulation_steps: got {micro} x {accum}, expected {batch} / {world_size} = {share} "
            f"(batch_size over processes). Remove one of them, or choose from {listed}."
        )
    return BatchCut(world_size, accum, micro)


def _divisors(number: int) -> list[int]:
    """All divisors, ascending; by its square root, as a mistyped batch size may have ten digits."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return small + [number // n for n in reversed(small) if n * n != number]
