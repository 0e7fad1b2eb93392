"""The start of a run: its network with the weights to begin from, and the files that describe it.

Owns the order in which weights come: a checkpoint, else published ones, else those of another run. Knows nothing of steps.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from unet_dist.assembly.data_set import open_data
from unet_dist.assembly.given import Given, describe_network
from unet_dist.assembly.network import build_network, load_published
from unet_dist.assembly.opening import load_run
from unet_dist.assembly.resuming import answer_changes, find_checkpoint, restore
from unet_dist.assembly.run_data import record_of
from unet_dist.assembly.run_folder import CONFIG_FILE, DATA_FILE, METRICS_FILE, SPLITS_FILE
from unet_dist.assembly.sizes import refuse_beyond_memory
from unet_dist.assembly.training import Layout, assemble, lay_out, place_network
from unet_dist.config.sections import Config, ModelConfig
from unet_dist.data.decoded.cache import Cache
from unet_dist.data.decoded.statistics import summarise
from unet_dist.errors import ConfigError
from unet_dist.machine.description import describe_machine
from unet_dist.models.contract import TrainableNetwork, as_module
from unet_dist.models.registry import package_of
from unet_dist.processes.group import Processes
from unet_dist.runs.checkpoint import Checkpoint
from unet_dist.runs.environment import record_start
from unet_dist.runs.metrics_log import MetricsLog
from unet_dist.storage.files import write_whole
from unet_dist.terminal import Teller
from unet_dist.training.optimizer import build_optimizer
from unet_dist.training.parts import Parts, Progress


@dataclass(frozen=True)
class Start:
    """A run that is ready to train.

    Attributes:
        parts: what it is made of; their config is resolved.
        cache: its data set.
        progress: where it stands.
    """

    parts: Parts
    cache: Cache
    progress: Progress

    def restore(self, checkpoint: Checkpoint) -> Progress:
        """Put a checkpoint into the network and its optimizer."""
        return restore(checkpoint, self.parts.model, self.parts.optimizer, self.parts.processes)

    def describe(self) -> None:
        """Write what describes the run: its resolved config, the ids of each split, its data in numbers, and this machine."""
        folder, config, processes = self.parts.folder, self.parts.config, self.parts.processes
        answers = ("resume", "allow_config_change", "extend_schedule")  # to a start, not of the run
        keys = {key: value for key, value in config.flat().items() if key not in answers}
        write_whole(folder / CONFIG_FILE, yaml.safe_dump(keys, sort_keys=False).encode())
        ids = {name: self.cache.split(name).ids for name in self.cache.splits}
        write_whole(folder / SPLITS_FILE, json.dumps(ids, indent=1).encode())
        data = {key: value for key, value in summarise(self.cache).to_json().items() if key != "cache_path"}
        data |= record_of(config, self.cache)
        write_whole(folder / DATA_FILE, json.dumps(data, indent=1).encode())
        MetricsLog(folder / METRICS_FILE).rewind(self.progress.step)
        described = describe_machine(processes.device, processes.world_size)
        record_start(folder, self.progress.step, described, time.strftime("%Y-%m-%d %H:%M:%S"))


def start(config: Config, given: Given, processes: Processes, teller: Teller) -> Start:
    """Put a run together, from its beginning or from where an earlier start left it.

    Raises:
        ConfigError, SizeError, LocalityError, DataError, CheckpointError: it cannot be as the config says.
    """
    folder = Path(config.run.output_path)
    if given.is_plain:  # measuring it needs the channels and classes of the data
        given = given.wrapped(open_data(config, teller, given.source))
    layout = lay_out(config, given, processes.world_size, teller)  # sizes and obstacles are known before data is read
    refuse_beyond_memory(layout.skeleton, layout.crops)
    checkpoint = find_checkpoint(layout.config, processes, teller, folder)
    cache = open_data(layout.config, teller, given.source)
    layout = layout.settled(cache, processes)
    model = place_network(_network(layout, cache, checkpoint, teller), layout, processes, teller)
    optimizer = build_optimizer(as_module(model), layout.config.schedule)
    progress = Progress()
    if checkpoint is not None:
        has_new_schedule = answer_changes(checkpoint, layout.config, cache.identity, given.named(), teller)
        progress = restore(checkpoint, model, optimizer, processes)
        if has_new_schedule:
            progress.schedule_start = progress.step
    return Start(assemble(layout, cache, model, optimizer, processes, teller, folder), cache, progress)


def _network(layout: Layout, cache: Cache, checkpoint: Checkpoint | None, teller: Teller) -> TrainableNetwork:
    """The network of a run; of a new one with the weights to begin from."""
    config = layout.config
    if layout.given.model is not None:
        describe_network(layout.skeleton, cache, layout.config)
        as_module(layout.skeleton).to(getattr(torch, config.run.dtype))
        return layout.skeleton
    model = build_network(config, cache)
    if checkpoint is None:
        load_published(config, model, teller)
        if config.model.init_from is not None:
            _start_from(config.model, model, teller)
    return model


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
