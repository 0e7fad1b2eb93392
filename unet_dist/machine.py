"""What a run was computed on, as a record: the device, the processor, the versions that decide a result or its speed.

Owns environment.json in a run's folder: its starts, and its evaluations by split. Whatever else the folder holds is the same on
every machine. Names no host and no user: the record travels with the run.
"""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from unet_dist.cores import num_cores
from unet_dist.files import write_whole

ENVIRONMENT_FILE = "environment.json"


def describe_machine(device: torch.device, world_size: int) -> dict[str, Any]:
    """Name the device of this process and what surrounds it; all values are words and whole numbers."""
    described: dict[str, Any] = {
        "device": device_name(device),
        "device_type": device.type,
        "processes": world_size,
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
    if device.type == "cuda":
        described["device_memory_bytes"] = torch.cuda.get_device_properties(device).total_memory
        described["cuda"] = torch.version.cuda or torch.version.hip
    for package in ("accelerate", "unet_dist"):
        try:
            described[package] = version(package)
        except PackageNotFoundError:  # run from a checkout
            continue
    return described


def device_name(device: torch.device) -> str:
    """The name its maker gave it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name() if device.type == "cpu" else device.type


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name where the system tells it, else its architecture."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names and names[0] else platform.machine()


def read_environment(folder: Path) -> dict[str, Any]:
    """The record of a run: starts, oldest first, and evaluations by split; empty where the file is missing or damaged."""
    try:
        record = json.loads((folder / ENVIRONMENT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = None
    record = record if isinstance(record, dict) else {}
    starts, evaluations = record.get("starts"), record.get("evaluations")
    return {
        "starts": [start for start in starts if isinstance(start, dict)] if isinstance(starts, list) else [],
        "evaluations": evaluations if isinstance(evaluations, dict) else {},
    }


def record_start(folder: Path, step: int, described: dict[str, Any], started: str) -> None:
    """Add a start to a run's record; those that went on from a later step are no part of the run any more.

    Args:
        step: that the run goes on from, 0 at first.
        described: as describe_machine does.
        started: date and time.
    """
    record = read_environment(folder)
    kept = [start for start in record["starts"] if start.get("step", 0) < step]
    _write(folder, {**record, "starts": [*kept, {"step": step, "started": started, **described}]})


def record_evaluation(folder: Path, split: str, described: dict[str, Any], seconds: float) -> None:
    """Say what a split was evaluated on and how long it took, in place of what was said before."""
    record = read_environment(folder)
    _write(folder, {**record, "evaluations": {**record["evaluations"], split: {"seconds": seconds, **described}}})


def _write(folder: Path, record: dict[str, Any]) -> None:
    write_whole(folder / ENVIRONMENT_FILE, json.dumps(record, indent=1).encode())
