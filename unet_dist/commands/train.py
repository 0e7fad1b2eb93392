"""`unet-dist train`: from a config to a trained network, or on from where an earlier start was interrupted."""

from __future__ import annotations

import os

import torch

from unet_dist.assembly.train import train
from unet_dist.command_line.command import Command
from unet_dist.commands import plan, prepare
from unet_dist.config.options import PlanOptions, TrainOptions
from unet_dist.config.sections import Config
from unet_dist.machine.memory import free_bytes
from unet_dist.processes.launcher import is_first
from unet_dist.terminal import Teller

COMMAND = Command(
    about="train a network; resume if the output folder holds an unfinished run",
    usage="[CONFIG.yaml] [--key value ...]",
    place=10,
    takes_config=True,
    options="config.options:TrainOptions",
    starts_processes=True,
)


def run(config: Config, options: TrainOptions | None = None) -> None:
    """Train as a config says."""
    if options is not None and options.dry_run:
        _rehearse(config)
    else:
        train(config)


def _rehearse(config: Config) -> None:
    """Check the data, print what the run would need here, and train nothing."""
    prepare.check(config, Teller(speaks=True))
    has_gpu = torch.cuda.is_available()
    memory = torch.cuda.mem_get_info()[1] if has_gpu else free_bytes(torch.device("cpu"), 1)
    plan.run(config, PlanOptions(device="cuda" if has_gpu else "cpu", memory=f"{memory}B"))
    Teller(speaks=is_first(os.environ)).say("Nothing was trained (dry_run). Without --dry_run this trains.")
