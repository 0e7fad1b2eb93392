"""The list of commands, which `unet-dist --help` shows. Needs no key of any, so that it stands there at once."""

from __future__ import annotations

import shutil
import textwrap

from unet_dist.command_line.command import find_commands


def list_commands() -> str:
    """The commands, a line or two for each."""
    lines = ["usage: unet-dist COMMAND [...]", "", "Distributed training of U-Nets for semantic segmentation.", ""]
    for name, command in find_commands().items():
        lines += textwrap.wrap(command.about, width(), initial_indent=f"  {name:<12}", subsequent_indent=" " * 14)
    lines += ["", "unet-dist COMMAND --help shows its keys, unet-dist --help KEY one of them.", ""]
    lines += ["train, evaluate and predict use all GPUs of this machine.", "For another number of processes:", ""]
    lines += ["  unet-dist COMMAND [...] --processes 2"]
    lines += ["  accelerate launch --multi_gpu --num_processes 2 -m unet_dist COMMAND [...]"]
    return "\n".join(lines)


def width() -> int:
    """The columns of a help: of the terminal, 100 at most."""
    return min(shutil.get_terminal_size().columns, 100)
