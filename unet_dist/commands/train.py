"""`unet-dist train`: from a config to a trained network, or on from where an earlier start was interrupted."""

from __future__ import annotations

import os

import torch

from unet_dist.assembly.train import train
from unet_dist.command_line.command import Command
from unet_dist.commands import plan, prepare
from unet_dist.commands.configure import choose
from unet_dist.config.choosing import leaves_the_choice
from unet_dist.config.options import PlanOptions
from unet_dist.config.sections import Config
from unet_dist.config.start_options import TrainOptions
from unet_dist.errors import ConfigError
from unet_dist.machine.memory import free_bytes
from unet_dist.processes.launcher import is_first
from unet_dist.processes.starting import is_launched
from unet_dist.terminal import Teller

COMMAND = Command(
    about="train a network; resume if the output folder holds an unfinished run",
    usage="[CONFIG.yaml] [--key value ...]",
    place=10,
    takes_config=True,
    options="config.start_options:TrainOptions",
    starts_processes=True,
    uses_all_gpus=True,
    chooses=True,
)
_TIME = "1h"


def settle(config: Config, options: TrainOptions, *, processes: int) -> Config | None:
    """A config chosen for the data and this device, where the words leave the choice; None where they make it.

    Raises:
        ConfigError: a time to choose for, and nothing to choose.
    """
    if leaves_the_choice(config):
        return choose(config, time=options.time or _TIME, processes=processes)
    if options.time is not None:
        raise _nothing_to_choose(options.time)
    return None


def run(config: Config, options: TrainOptions | None = None) -> None:
    """Train as a config says.

    Raises:
        ConfigError: below a launcher, a time to choose for.
    """
    if is_launched(os.environ):
        if options is not None and options.time is not None:
            raise _nothing_to_choose(options.time)
        if leaves_the_choice(config):
            Teller(speaks=is_first(os.environ)).say(
                "Below a launcher nothing is chosen: the settings are those of the U-Net paper. "
                "`unet-dist configure DATA > config.yaml` chooses."
            )
    if options is not None and options.dry_run:
        _rehearse(config)
    else:
        train(config)


def _nothing_to_choose(time: str) -> ConfigError:
    return ConfigError(
        f"time: got {time} beside settings of the network or its training, or below a launcher, where nothing is chosen; "
        "expected data_path alone. Remove --time, or choose first: unet-dist configure DATA --time TIME > config.yaml."
    )


def _rehearse(config: Config) -> None:
    """Check the data, print what the run would need here, and train nothing."""
    prepare.check(config, Teller(speaks=True))
    has_gpu = torch.cuda.is_available()
    memory = torch.cuda.mem_get_info()[1] if has_gpu else free_bytes(torch.device("cpu"), 1)
    plan.run(config, PlanOptions(device="cuda" if has_gpu else "cpu", memory=f"{memory}B"))
    Teller(speaks=is_first(os.environ)).say("Nothing was trained (dry_run). Without --dry_run this trains.")
