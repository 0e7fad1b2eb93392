"""A description of the machine: the device, the processor, the versions that decide a result or its speed.

Names no host and no user: the description travels with a run.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from unet_dist import __version__
from unet_dist.machine.cores import num_cores


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
    return {**described, "accelerate": version("accelerate"), "unet_dist": __version__}


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
