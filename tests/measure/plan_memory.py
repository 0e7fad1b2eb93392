"""Memory that torch's allocator reserves on a GPU for training steps at full size, against the plan.

`python -m tests.measure.plan_memory --output FILE [NAME ...]`, on a GPU; or below tests/nullgpu, whose allocator is torch's own and
whose convolutions take no workspace: the plan is then made without it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tests.measure.record import provenance
from unet_dist.benchmark.gpu_check import FULL, Check
from unet_dist.processes.group import open_processes

SETTINGS: dict[str, dict[str, Any]] = {
    "batch 2": {},
    "batch 16": {"batch_size": 16},
    "float32": {"mixed_precision": "no"},
    "norm weight": {"norm": "weight"},
    "norm batch": {"norm": "batch"},
    "norm group": {"norm": "group"},
    "accumulation": {"batch_size": 8, "micro_batch_size": 2},
    "checkpointing": {"batch_size": 8, "checkpoint_activations": True},
    "averages, dice": {"ema_decay": 0.99, "loss": "cross_entropy+dice"},
    "tiles": {"input_size": 1084, "tile_size": 572},
    "bilinear, same": {"upsampling": "bilinear", "padding": "same", "input_size": 512, "batch_size": 8},
    "deep supervision": {"deep_supervision": 3, "norm": "weight"},
    "depth 5, contiguous": {"depth": 5, "base_channels": 32, "input_size": 764, "memory_format": "contiguous"},
}
"""Keys of a config beside those of the check of a GPU at full size: 64 wide, depth 4, 732 px."""
STEPS = 3
NULL_GPU = "Null GPU"


def measure(check: Check, keys: dict[str, Any]) -> dict[str, float]:
    """Bytes reserved and allocated in some steps, and planned."""
    check.free()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    setting = check.open(**{"batch_size": 2, **keys})
    setting.subject.bare.make(STEPS)
    reserved, allocated = torch.cuda.max_memory_reserved() - before, torch.cuda.max_memory_allocated()
    planned = setting.predicted_bytes(has_workspace=torch.cuda.get_device_name() != NULL_GPU)
    return {"reserved": reserved, "allocated": allocated, "plan": planned, "plan / reserved": planned / reserved}


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SETTINGS))
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.names or SETTINGS:
            keys = dict(SETTINGS[name])
            precision = keys.pop("mixed_precision", "bf16")
            with open_processes(mixed_precision=precision) as processes:
                check = Check(FULL, processes, Path(scratch) / name.replace(" ", "-"), time.monotonic() + 3600)
                found[name] = measure(check, keys)
                check.free()
            print(name, {k: round(v / 2**30, 3) if v > 2 else round(v, 4) for k, v in found[name].items()}, flush=True)
            report = {"device": torch.cuda.get_device_name(), **provenance(), "settings": found}
            options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
