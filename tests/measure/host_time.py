"""The host's time of a training step: what the processor spends to order it, on a GPU that computes nothing.

    python -m tests.measure.host_time --output FILE [--small] [--profile] [NAME ...]

On a GPU, or below the one of tests/nullgpu. Each setting is 64 wide, depth 4, 732 px, batch 2, bf16. With --small it is 4 wide, at
252 px, which makes the same calls. Other work on the machine lengthens the time. What does not vary stands beside it: the calls of
Python functions and of torch's operations.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from tests.measure.record import provenance
from unet_dist.benchmark.gpu_check import FULL, Check
from unet_dist.benchmark.step import BareStep
from unet_dist.processes.group import open_processes

SETTINGS: dict[str, dict[str, Any]] = {
    "norm none": {"norm": "none"},
    "norm weight": {"norm": "weight"},
    "norm weight, averages, clipping": {"norm": "weight", "ema_decay": 0.99, "max_grad_norm": 1.0},
}
SMALL: dict[str, Any] = {"base_channels": 4, "input_size": 252, "synthetic_size": "260x260"}
WARM_UP, STEPS, COUNTED = 5, 40, 5


def measure(bare: BareStep, *, shows_profile: bool) -> dict[str, float]:
    """Milliseconds of single steps, by the clock and of the processor; calls of Python functions and operations of a step."""
    torch.cuda.synchronize()
    times, processor = [], []
    for _ in range(STEPS):
        started, spent = time.perf_counter(), time.process_time()
        bare.make(1)
        times.append(time.perf_counter() - started)
        processor.append(time.process_time() - spent)
        torch.cuda.synchronize()
    return {
        "ms, median": 1e3 * statistics.median(times),
        "ms, least": 1e3 * min(times),
        "processor ms, median": 1e3 * statistics.median(processor),
        **count(bare, shows_profile=shows_profile),
    }


def count(bare: BareStep, *, shows_profile: bool) -> dict[str, float]:
    """Calls of Python functions and operations of torch in a step."""
    profiler = cProfile.Profile()
    profiler.runcall(bare.make, COUNTED)
    found = pstats.Stats(profiler)
    with profile(activities=[ProfilerActivity.CPU]) as operations:
        bare.make(1)
    averages = operations.key_averages()
    if shows_profile:
        found.sort_stats("tottime").print_stats(45)
        found.sort_stats("cumulative").print_stats(45)
        print(averages.table(sort_by="self_cpu_time_total", row_limit=45, max_name_column_width=60))
    return {
        "python calls": found.total_calls // COUNTED,  # type: ignore[attr-defined]
        "operations": sum(one.count for one in averages if one.key.startswith("aten::")),
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SETTINGS))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="count calls only, at a small size")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scale = replace(FULL, keys={**FULL.keys, **SMALL}) if options.small else FULL
    found = {}
    with tempfile.TemporaryDirectory() as scratch, open_processes(mixed_precision="bf16") as processes:
        check = Check(scale, processes, Path(scratch), time.monotonic() + 3600)
        for name in options.names or SETTINGS:
            bare = check.open(2, **SETTINGS[name]).subject.bare
            bare.make(WARM_UP)
            found[name] = (count if options.small else measure)(bare, shows_profile=options.profile)
            del bare
            check.free()
            print(name, {key: round(value, 2) for key, value in found[name].items()}, flush=True)
    report = {"device": torch.cuda.get_device_name(), **provenance(), "settings": found}
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
