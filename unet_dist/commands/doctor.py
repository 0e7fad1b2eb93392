"""`unet-dist doctor`: a page about this machine, to read or to paste into an issue; with --gpu, a check of its GPU."""

from __future__ import annotations

import faulthandler
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from unet_dist.benchmark.gpu_check import FAILED, FULL, JSON_FILE, PAGE_FILE, SMOKE, Check, run_stages
from unet_dist.benchmark.gpu_stages import STAGES
from unet_dist.command_line.command import Command
from unet_dist.config.options import DoctorOptions
from unet_dist.data.decoded.settings import cache_folder
from unet_dist.errors import ConfigError, LaunchError
from unet_dist.machine.description import describe_machine
from unet_dist.machine.doctor import as_text, examine
from unet_dist.processes.group import open_processes
from unet_dist.processes.launcher import is_first
from unet_dist.processes.starting import device_environment
from unet_dist.wording import counted, printable

COMMAND = Command(
    about="show versions, devices, memory and disks, and parts that are slow or missing; with --gpu, measure the GPU",
    usage="[--gpu] [--minutes 8] [--output DIR]",
    place=100,
    options="config.options:DoctorOptions",
)

_GRACE_S = 60.0
"""After the minutes are over: a stage that hangs in the driver, where no other end reaches it, ends the program."""


def run(words: Sequence[str], options: DoctorOptions) -> None:
    """Print the page, or check the GPU."""
    if words:
        raise ConfigError(f"doctor: got {' '.join(words)!r}, expected no words. Usage: {COMMAND.usage_line}")
    if options.gpu:
        _check(options)
    elif is_first(os.environ):
        folders = {"folder of runs": Path.cwd(), "folder of caches": cache_folder()}
        print(printable(as_text(examine(folders, os.environ))))


def _check(options: DoctorOptions) -> None:
    """Measure, and leave with 1 where a stage failed."""
    started = time.monotonic()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise LaunchError(
            "gpu: got several processes, expected one: it starts others itself. Start it without a launcher."
        )
    os.environ.update(device_environment(options.device, os.environ))
    output, scale = Path(options.output), SMOKE if options.smoke else FULL
    with open_processes(mixed_precision="auto") as processes:
        if processes.device.type == "cpu" and not options.smoke:
            raise ConfigError(
                "gpu: got a machine where torch sees no GPU, expected one. --smoke --device cpu tries the check."
            )
        head = {
            "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "scale": scale.name,
            "minutes": options.minutes,
            "precision": processes.precision,
            **describe_machine(processes.device, 1),
        }
        output.mkdir(parents=True, exist_ok=True)
        faulthandler.dump_traceback_later(options.minutes * 60 + _GRACE_S, exit=True, file=2)
        try:
            with tempfile.TemporaryDirectory(prefix=".check-", dir=output, ignore_cleanup_errors=True) as scratch:
                check = Check(scale, processes, Path(scratch), deadline_s=started + options.minutes * 60)
                outcomes = run_stages(STAGES, check, head, output, lambda line: print(printable(line), flush=True))
        finally:
            faulthandler.cancel_dump_traceback_later()
    print(f"The page: {output / PAGE_FILE}. The figures: {output / JSON_FILE}")
    failed = [outcome.name for outcome in outcomes if outcome.state == FAILED]
    if failed:
        print(f"{counted(len(failed), 'stage')} failed: {', '.join(failed)}.", file=sys.stderr)
        sys.exit(1)
