"""`unet-dist init`: writes the files that one begins with and edits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from unet_dist.command_line.command import Command
from unet_dist.command_line.starter import KINDS, starter_files
from unet_dist.config.options import InitOptions
from unet_dist.errors import ConfigError, suggest
from unet_dist.processes.launcher import is_first
from unet_dist.storage.files import write_whole
from unet_dist.wording import hanging

COMMAND = Command(
    about="write files for you to edit: a config with every key, accelerate's configs, or SLURM's scripts",
    usage="config|accelerate|slurm [--output DIR]",
    place=110,
    needs="what to write: config, accelerate or slurm",
    options="config.options:InitOptions",
    word_choices=("config", "accelerate", "slurm"),
)
_NEXT = {
    "config": "Next: edit it, then unet-dist train {folder}/config.yaml",
    "accelerate": "Next: accelerate launch --config_file {folder}/configs/accelerate/several_gpus.yaml -m unet_dist train ...",
    "slurm": "Next, in {folder}: edit launch/slurm/one_node.sbatch at its marked lines, then sbatch it.",
}


def run(words: Sequence[str], options: InitOptions) -> None:
    """Write the files of a kind."""
    (kind,) = words[:1]
    if len(words) > 1 or kind not in KINDS:
        raise ConfigError(f"init: got {' '.join(words)!r}. {suggest(kind, KINDS)}")
    if not is_first(os.environ):
        return
    folder = Path(options.output)
    texts = starter_files(kind)
    there = [place for place in texts if (folder / place).exists()]
    if there and not options.overwrite:
        raise ConfigError(f"output: {folder / there[0]} is there already. Set another --output, or --overwrite true.")
    for place, text in texts.items():
        write_whole(folder / place, text.encode())
        print(hanging(f"Written: {folder / place}"))
    print(hanging(_NEXT[kind].format(folder=folder)))
