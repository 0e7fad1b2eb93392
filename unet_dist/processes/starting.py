"""Starting processes and choosing a device in the words of the command line, before torch is loaded.

Owns what `--processes N` and `--device cuda:1` mean to a launcher and to the libraries, which read the environment, and how
many processes there are where nobody says so. Starts nothing itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from unet_dist.errors import ConfigError, LaunchError

DEVICE_WISH = "UNET_DIST_DEVICE"
"""Set where a GPU was asked for by name: then the CPU is no answer."""


LAUNCHER_ENVIRONMENT = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Else the launcher opens a store for its processes, too; they meet in a file."""


def launch_command(words: Sequence[str], count: int, environment: Mapping[str, str], *, folder: Path) -> list[str]:
    """The command that starts a program of ours on several processes of this machine, by torch's own launcher.

    Args:
        words: of unet-dist, without those that ask for processes.
        folder: an empty one that only this user may enter, where the launcher keeps its state; it removes the folder at its end.
            With --standalone the state is a store which listens on a port, asks nobody for a password, and is unpickled: every
            user of the machine could run code as this one.

    Raises:
        LaunchError: a launcher has started this process already.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        started = environment.get("WORLD_SIZE", "1")
        raise LaunchError(
            f"processes: got {count} below a launcher that has started {started}, expected one of the two. Remove --processes, or "
            "start unet-dist without the launcher."
        )
    name = f"unet-dist-{os.urandom(8).hex()}"  # by it the processes of this launch meet, and no others
    # Each sign of life would make the file longer, and there is nobody else to see one.
    settings = "store_type=file,keep_alive_interval=3600,keep_alive_max_attempt=1000000"
    meeting = [
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        str(folder / "store"),
        "--rdzv-conf",
        settings,
        "--rdzv-id",
        name,
    ]
    launcher = ["-m", "unet_dist.processes.torchrun", str(folder), *meeting, "--log_dir", str(folder)]
    expected = [] if _has_key(words, "expected_processes") else ["--expected_processes", str(count)]
    kept = [word.replace("$", "$$") for word in words]  # torch fills in ${local_rank}, and halves a double one
    return [sys.executable, *launcher, "--nproc_per_node", str(count), "-m", "unet_dist", *kept, *expected]


def past_a_clone(folder: Path) -> dict[str, str]:
    """What the environment of a child needs that starts in a folder which holds a clone of the repository.

    There `python -m unet_dist` would take the clone's folder for the package, without a file in it. (Python 3.11 and later.)
    """
    beside = folder / "unet_dist"
    is_other = beside.is_dir() and not beside.samefile(Path(__file__).parents[1])
    return {"PYTHONSAFEPATH": "1"} if is_other else {}


def is_launched(environment: Mapping[str, str]) -> bool:
    """Whether a launcher started this process: how many there are is then its affair, also where that is one."""
    several = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
    alone = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "ACCELERATE_MIXED_PRECISION")
    return any(key in environment for key in alone) or any(environment.get(key, "1") != "1" for key in several)


def num_gpus(device: str) -> int:
    """The GPUs that a device in words stands for; asks the driver, and touches none."""
    if device == "cpu" or ":" in device:
        return int(":" in device)
    import torch

    return torch.cuda.device_count()


def share_evenly(batch_size: int, most: int) -> int:
    """As many processes, up to `most`, as share a batch evenly.

    >>> share_evenly(4, 3), share_evenly(16, 8), share_evenly(3, 2)
    (2, 8, 1)
    """
    return next(count for count in range(max(most, 1), 0, -1) if batch_size % count == 0)


def without_key(words: Sequence[str], key: str) -> list[str]:
    """Words without `--key value` and `--key=value`."""
    kept: list[str] = []
    pending = list(words)
    while pending:
        word = pending.pop(0)
        if not _has_key([word], key):
            kept.append(word)
        elif "=" not in word:
            pending.pop(0)
    return kept


def _has_key(words: Sequence[str], key: str) -> bool:
    named = [word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")]
    return key in named


def device_environment(device: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What a device in words is in the environment, which torch and accelerate read.

    Args:
        device: auto, cpu, cuda or cuda:INDEX.

    Raises:
        ConfigError: no such index among the GPUs that the environment shows, or one GPU for several processes.
    """
    if device == "auto":
        return {}
    if device == "cpu":
        return {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    _, _, index = device.partition(":")
    if not index:
        return {DEVICE_WISH: device}
    if int(environment.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"device: got {device} on several processes, expected one GPU each. Set --device cuda.")
    shown = environment.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return {DEVICE_WISH: device, "CUDA_VISIBLE_DEVICES": index}
    visible = [name for name in shown.split(",") if name]
    if int(index) >= len(visible):
        raise ConfigError(
            f"device: got {device}, and CUDA_VISIBLE_DEVICES shows {len(visible)} ({shown}). Set --device cuda:0, or show more."
        )
    return {DEVICE_WISH: device, "CUDA_VISIBLE_DEVICES": visible[int(index)]}
