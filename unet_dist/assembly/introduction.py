"""A run in a few lines, printed before its first step."""

from __future__ import annotations

import math

from unet_dist.assembly.run_folder import METRICS_FILE
from unet_dist.data.decoded.cache import Cache
from unet_dist.data.decoded.classes import warn_of_one_class, warn_of_void
from unet_dist.training.parts import Parts, Progress
from unet_dist.wording import counted


def introduce(parts: Parts, cache: Cache, progress: Progress) -> None:
    """Describe the run in a few lines."""
    model, cut, schedule = parts.model, parts.cut, parts.config.schedule
    parameters = sum(p.numel() for p in model.parameters())
    sizes = ", ".join(f"{name} {len(positions)}" for name, positions in cache.splits.items())
    parts.teller.say(f"{cache.name}: {sizes} images, {cache.num_classes} classes")
    for line in filter(None, (warn_of_void(cache), warn_of_one_class(cache))):
        parts.teller.say(line)
    precision = parts.config.run.dtype if parts.processes.precision == "no" else parts.processes.precision
    side, halo = parts.shares.crops.window_side, parts.shares.crops.halo
    size = "whole images" if side is None else f"input {side}, output {side - 2 * halo}"
    parts.teller.say(f"{type(model).__name__}: {parameters:,} parameters, {size}, {precision}")
    device = parts.processes.device.type
    if cut.splits_samples:
        shared = f"batch {schedule.batch_size}: its tiles over {cut.world_size} processes"
        parts.teller.say(f"{shared}, {cut.micro_batch_size} at a time, on {device}")
    else:
        parts.teller.say(
            f"batch {schedule.batch_size} = {counted(cut.world_size, 'process', 'es')} x {cut.grad_accum_steps} accumulation x "
            f"{cut.micro_batch_size} crops on {device}"
        )
    _introduce_tiles(parts)
    parts.teller.say(
        f"{schedule.total_steps} steps, learning rate {schedule.learning_rate:g} ({schedule.schedule}), a validation every "
        f"{schedule.eval_steps}, all in {parts.folder}"
    )
    if schedule.ema_decay is not None:
        parts.teller.say(
            f"Validations, best/ and last/ have weights averaged over the steps (ema_decay {schedule.ema_decay:g})"
        )
    if progress.step:
        best = (
            f" (best mean IoU of labelled classes so far {progress.best_present:.4f})"
            if progress.best_present > 0
            else ""
        )
        parts.teller.say(f"Resuming at step {progress.step} of {schedule.total_steps}{best}")
    elif (record := parts.folder / METRICS_FILE).is_file() and record.stat().st_size:
        parts.teller.say(
            "An earlier start of this run left no checkpoint, so it begins at step 0 again. --checkpoint_steps saves more often."
        )


def _introduce_tiles(parts: Parts) -> None:
    """Say how crops are cut into tiles, and what that costs; of whole images the largest is described."""
    crops, planner = parts.shares.crops, parts.shares.planner
    shape = max((crops.output_shape(index) for index in range(len(crops.samples))), key=math.prod)
    plan = planner.plan(shape)
    if len(plan) == 1:
        return
    height, width = plan.window_shape
    of = "" if crops.window_side else f" for an image of {shape[0]}x{shape[1]}"
    parts.teller.say(
        f"tiles: {plan.grid[0]}x{plan.grid[1]} windows of {height}{'' if height == width else f'x{width}'}{of}, "
        f"recomputation {planner.recompute(shape):.1f}x"
    )
    idle = parts.cut.world_size - parts.config.schedule.batch_size * len(plan)
    if parts.cut.splits_samples and idle > 0:
        parts.teller.say(
            f"{idle} of {parts.cut.world_size} processes have no tile to compute. Set a smaller --tile_size."
        )
