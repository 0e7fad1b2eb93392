"""`unet-dist train`: from a config to a trained network, or on from where an earlier start was interrupted."""

from __future__ import annotations

import json
import math
import os
import shlex
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from unet_dist.assembly.data_set import open_data
from unet_dist.assembly.network import build_network, load_published
from unet_dist.assembly.opening import load_run, open_for, teller_of
from unet_dist.assembly.resuming import answer_changes, find_checkpoint, restore
from unet_dist.assembly.run_folder import CONFIG_FILE
from unet_dist.assembly.sizes import CropSizes
from unet_dist.assembly.training import assemble, lay_out, place_network
from unet_dist.command_line.command import Command
from unet_dist.commands import plan, prepare
from unet_dist.config.options import PlanOptions, TrainOptions
from unet_dist.config.sections import Config, ModelConfig
from unet_dist.data.decoded.cache import Cache
from unet_dist.data.decoded.statistics import summarise
from unet_dist.debug.mode import debug, debugging_config
from unet_dist.errors import ConfigError, LaunchError
from unet_dist.machine.description import describe_machine
from unet_dist.machine.memory import free_bytes
from unet_dist.models.contract import TrainableNetwork, as_module
from unet_dist.models.registry import package_of
from unet_dist.processes.group import Processes
from unet_dist.processes.launcher import is_first
from unet_dist.processes.stopping import StopWish
from unet_dist.runs.environment import record_start
from unet_dist.runs.metrics_log import MetricsLog
from unet_dist.storage.files import write_whole
from unet_dist.storage.lock import lock_run
from unet_dist.terminal import Teller
from unet_dist.training.optimizer import build_optimizer
from unet_dist.training.parts import Parts, Progress
from unet_dist.training.trainer import Trainer
from unet_dist.wording import duration

COMMAND = Command(
    about="train a network; resumes by itself when its output folder holds an unfinished run",
    usage="[CONFIG.yaml] [--key value ...]",
    place=10,
    takes_config=True,
    options="config.options:TrainOptions",
    begins="assembly.data_set:begin_drawing",
    starts_processes=True,
)


def run(config: Config, options: TrainOptions | None = None) -> None:
    """Train as a config says."""
    if options is not None and options.dry_run:
        _rehearse(config)
        return
    if config.run.debug:
        config = debugging_config(config)
    with open_for(config) as processes:
        if config.run.debug and processes.world_size > 1:
            raise LaunchError(
                f"debug: got {processes.world_size} processes, expected one. Start it without a launcher: unet-dist train --debug."
            )
        teller = teller_of(processes)
        folder = Path(config.run.output_path)
        if processes.is_main:
            with lock_run(folder):
                _run(config, processes, teller, folder)
        else:
            _run(config, processes, teller, folder)


def _rehearse(config: Config) -> None:
    """Check the data, print what the run would need here, and train nothing."""
    prepare.run(config)
    has_gpu = torch.cuda.is_available()
    memory = torch.cuda.mem_get_info()[1] if has_gpu else free_bytes(torch.device("cpu"), 1)
    plan.run(config, PlanOptions(device="cuda" if has_gpu else "cpu", memory=f"{memory}B"))
    Teller(speaks=is_first(os.environ)).say("Nothing was trained (dry_run). Without --dry_run this trains.")


def _run(config: Config, processes: Processes, teller: Teller, folder: Path) -> None:
    layout = lay_out(config, processes.world_size, teller)  # sizes and obstacles are known before any data is read
    _refuse_beyond_memory(layout.skeleton, layout.crops)
    checkpoint = find_checkpoint(layout.config, processes, teller, folder)

    cache = open_data(layout.config, teller)
    model = build_network(layout.config, cache)
    layout = layout.settled(cache, processes)
    config = layout.config
    has_new_schedule = False
    if checkpoint is not None:
        has_new_schedule = answer_changes(checkpoint, config, cache.identity, teller)
    else:
        load_published(config, model, teller)
        if config.model.init_from is not None:
            _start_from(config.model, model, teller)
    model = place_network(model, layout, processes, teller)
    optimizer = build_optimizer(as_module(model), config.schedule)
    progress = Progress()
    if checkpoint is not None:
        progress = restore(checkpoint, model, optimizer, processes)
        if has_new_schedule:
            progress.schedule_start = progress.step
    parts = assemble(layout, cache, model, optimizer, processes, teller, folder)
    if config.run.debug:
        _introduce(parts, cache, progress)
        debug(parts, lambda checkpoint: restore(checkpoint, model, optimizer, processes), progress)
        return
    if processes.is_main:
        _write_folder(folder, config, cache, progress)
        described = describe_machine(processes.device, processes.world_size)
        record_start(folder, progress.step, described, time.strftime("%Y-%m-%d %H:%M:%S"))
    # TensorBoard keeps a config as a run of its own beside the curves; the run's folder has it in config.yaml.
    settings = None if config.run.trackers == ["tensorboard"] else {k: str(v) for k, v in config.flat().items()}
    processes.accelerator.init_trackers("tensorboard", config=settings)
    _introduce(parts, cache, progress)

    trainer = Trainer(parts, progress)
    with StopWish(folder, watches_file=processes.is_main) as wish:
        outcome = trainer.fit(wish)
    if not outcome:
        done = trainer.progress
        teller.say(
            f"Finished at step {done.step} in {duration(done.seconds)}: best mean IoU {done.best_miou:.4f} at step "
            f"{done.best_step}. "
            f"Models: {folder / 'best'} and {folder / 'last'}. Next: unet-dist evaluate {shlex.quote(str(folder))}"
        )


# -------------------------------------------------------------------------------------------------- starting and resuming


def _refuse_beyond_memory(skeleton: Any, crops: CropSizes) -> None:
    """Refuse what cannot fit by any account: weights, gradient and two moments, or the pixels of one micro-batch.

    Raises:
        ConfigError: more than this machine's memory.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    parameters = sum(p.numel() for p in skeleton.parameters())
    if 16 * parameters > memory:
        raise ConfigError(
            f"base_channels, depth: got a network of {parameters:,} parameters, which with gradient and moments takes "
            f"{16 * parameters / 2**30:,.0f} GiB; this machine has {memory / 2**30:,.0f} GiB. Set a smaller --base_channels."
        )
    cut, side = crops.cut, crops.side or 0
    window = min(side, crops.planner.tile_size or side)
    pixels = cut.micro_batch_size * window**2
    if not cut.splits_samples and pixels > memory:
        raise ConfigError(
            f"batch_size, input_size: got {cut.micro_batch_size} windows of {window}x{window} at a time, whose pixels alone take "
            f"{pixels / 2**30:,.0f} GiB; this machine has {memory / 2**30:,.0f} GiB. Set a smaller --micro_batch_size, or a "
            "--tile_size."
        )


def _start_from(said: ModelConfig, model: TrainableNetwork, teller: Teller) -> None:
    """Copy trained weights into a new network; what has another shape, such as the head of other classes, stays new.

    Raises:
        ConfigError: not one tensor fits.
    """
    path = str(said.init_from)
    source, _, _ = load_run(path, torch.device("cpu"), package_of(said.model))
    theirs, ours = source.state_dict(), model.state_dict()
    fitting = {name: t for name, t in theirs.items() if name in ours and ours[name].shape == t.shape}
    if not fitting:
        raise ConfigError(
            f"init_from: {path} has no tensor that fits this network. Set the same base_channels, depth and norm."
        )
    model.load_state_dict({**ours, **fitting})
    new = [name for name in ours if name not in fitting]
    teller.say(
        f"Starting from {path}: {len(fitting)} of {len(ours)} tensors"
        + (f"; new: {', '.join(new[:6])}." if new else ".")
    )


def _write_folder(folder: Path, config: Config, cache: Cache, progress: Progress) -> None:
    """Write what describes the run: its resolved config, the ids of each split, and its data in numbers."""
    answers = ("resume", "allow_config_change", "extend_schedule")  # to a start, not of the run
    keys = {key: value for key, value in config.flat().items() if key not in answers}
    write_whole(folder / CONFIG_FILE, yaml.safe_dump(keys, sort_keys=False).encode())
    ids = {name: cache.split(name).ids for name in cache.splits}
    write_whole(folder / "splits.json", json.dumps(ids, indent=1).encode())
    data = {key: value for key, value in summarise(cache).to_json().items() if key != "cache_path"}
    write_whole(folder / "data.json", json.dumps(data, indent=1).encode())
    MetricsLog(folder / "metrics.jsonl").rewind(progress.step)


def _introduce(parts: Parts, cache: Cache, progress: Progress) -> None:
    """Say in a few lines what is about to run."""
    model, cut, schedule = parts.model, parts.cut, parts.config.schedule
    parameters = sum(p.numel() for p in model.parameters())
    sizes = ", ".join(f"{name} {len(positions)}" for name, positions in cache.splits.items())
    parts.teller.say(f"{cache.name}: {sizes} images, {cache.num_classes} classes")
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
            f"batch {schedule.batch_size} = {cut.world_size} process(es) x {cut.grad_accum_steps} accumulation x "
            f"{cut.micro_batch_size} crops on {device}"
        )
    _introduce_tiles(parts)
    if schedule.ema_decay is not None:
        parts.teller.say(
            f"Validations, best/ and last/ have weights averaged over the steps (ema_decay {schedule.ema_decay:g})"
        )
    if progress.step:
        parts.teller.say(
            f"Going on from step {progress.step} of {schedule.total_steps} (best mean IoU so far {progress.best_miou:.4f})"
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
