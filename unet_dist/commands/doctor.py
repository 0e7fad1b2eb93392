"""`unet-dist doctor`: a page about this machine, to read or to paste into an issue."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from unet_dist.command_line.command import Command
from unet_dist.data.decoded.cache import cache_folder
from unet_dist.errors import ConfigError
from unet_dist.machine.doctor import as_text, examine
from unet_dist.processes.launcher import is_first
from unet_dist.wording import printable

COMMAND = Command(
    about="versions, devices, memory and disks of this machine, and what is slow or missing; a page to paste into an issue",
    usage="",
    place=100,
)


def run(words: Sequence[str]) -> None:
    """Print the page."""
    if words:
        raise ConfigError(f"doctor: got {' '.join(words)!r}, expected no words. Usage: {COMMAND.usage_line}")
    if is_first(os.environ):
        folders = {"folder of runs": Path.cwd(), "folder of caches": cache_folder()}
        print(printable(as_text(examine(folders, os.environ))))
