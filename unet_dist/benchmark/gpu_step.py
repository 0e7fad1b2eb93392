"""The training step under a magnifying glass, for the check of a GPU: whether it waits, how long it takes, and for what.

Owns the three ways of computing that are compared. Must not know what else is checked.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from unet_dist.benchmark.ceilings import compute_dtype
from unet_dist.benchmark.gpu_check import Check, Figures, reason_of, require_cuda
from unet_dist.benchmark.step import BareStep
from unet_dist.benchmark.timing import affordable, synchronise
from unet_dist.errors import UnetDistError
from unet_dist.machine.compiling import compiled_within
from unet_dist.models.normalisation import NORMS
from unet_dist.wording import first_line, shorten

EAGER, AUTOTUNED, COMPILED, GRAPHED = "eager", "cudnn.benchmark", "compile", "CUDA graphs"
_GRAPHS = "cudagraphs"  # a backend of torch.compile
_RESERVED, _PLAN = "reserved, GiB", "plan, GiB"
_COMPILE_NEED_S = 60.0
_WATCHED_STEPS = 5
_KERNELS = 25


def synchronisations(check: Check) -> Figures:
    """Make training steps in which waiting for the device is an error."""
    require_cuda(check, "only CUDA tells where a step waits for the device")
    bare = check.open(check.scale.batches[0]).subject.bare
    bare.seconds(2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        bare.make(_WATCHED_STEPS)
    except RuntimeError as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}: {place.line}"
        raise UnetDistError(f"A step waits for the device, at {where} ({first_line(error)}).") from error
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"steps": _WATCHED_STEPS, "synchronisations": 0}


def steps(check: Check) -> Figures:
    """Time the training step by itself, in each way of computing it."""
    ways = [EAGER, AUTOTUNED, COMPILED, *[GRAPHED] * (check.processes.device.type == "cuda")]
    rows: list[Figures] = []
    for batch_size in check.scale.batches:
        planned: dict[str, float] = {}
        rows += _rows(check, [{"batch": batch_size, "way": way} for way in ways], planned)
    return {"precision": check.processes.precision, "steps": rows}


def norms(check: Check) -> Figures:
    """Time the training step of each norm, in the usual way of computing it."""
    rows = [{"batch": check.scale.batches[0], "way": EAGER, "norm": norm} for norm in NORMS]
    return {"precision": check.processes.precision, "steps": [row for one in rows for row in _rows(check, [one], {})]}


def _rows(check: Check, rows: list[Figures], planned: dict[str, float]) -> list[Figures]:
    """Measure rows of batch, way and further keys of a config, one after the other; one that fails leaves a note."""
    longest_s = 0.0
    for row in rows:
        batch_size, way, keys = row["batch"], row["way"], {k: v for k, v in row.items() if k not in ("batch", "way")}
        need_s = max(longest_s, _COMPILE_NEED_S * check.scale.pace if way == COMPILED else 0.0)
        if need_s > check.left_s:
            row["note"] = f"skipped: it needs about {need_s:.0f} s, and {max(0.0, check.left_s):.0f} s were left"
            continue
        started = check.clock()
        try:
            row.update(_step(check, batch_size, way, planned, keys))
        except Exception as error:  # noqa: BLE001 a compiler fails in many ways, and another way may still do
            row["note"] = f"failed: {reason_of(error)}"
        check.free()
        longest_s = max(longest_s, check.clock() - started)
    return rows


def _step(check: Check, batch_size: int, way: str, planned: dict[str, float], keys: Figures) -> Figures:
    """One row.

    Args:
        planned: holds the plan of this batch size once it is made, which takes seconds.
        keys: of the config.
    """
    device = check.processes.device
    backend = {COMPILED: check.scale.compiler, GRAPHED: _GRAPHS}.get(way)
    with _computing(way, backend):
        setting = check.open(batch_size, **keys)
        compiled = compiled_within(setting.parts.wrapped)
        if compiled is not None and compiled.obstacle is not None:
            return {"note": f"skipped: it does not compile here: {compiled.obstacle}"}
        bare = setting.subject.bare
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        first_s = bare.seconds(1)
        bare.seconds(1)
        count = affordable(check.scale.steps, bare.seconds(1), check.left_s / 4)
        device_s, host_s = device_seconds(bare, device, count), host_seconds(bare, device)
    memory = _memory(device)
    planned.setdefault(_PLAN, setting.predicted_bytes() / 2**30)
    rate = setting.amounts.flops / device_s
    name = str(compute_dtype(check.processes.precision, torch.float32)).removeprefix("torch.")
    roof = check.matmul_flops_per_s.get(name)
    return {
        "first step, s": first_s,
        "step, ms": 1e3 * device_s,
        "host, ms": 1e3 * host_s,
        "images/s": batch_size / device_s,
        "TFLOP/s": rate / 1e12,
        "share of matmul": None if roof is None else rate / roof,
        **memory,
        **planned,
        "reserved / plan": memory[_RESERVED] / planned[_PLAN] if memory else None,
    }


def device_seconds(bare: BareStep, device: torch.device, count: int) -> float:
    """Seconds of the device for a step, of `count` in a row: between two events where it has them."""
    if device.type == "cpu":
        return bare.seconds(count)
    start, end = (torch.Event(device=device.type, enable_timing=True) for _ in range(2))
    synchronise(device)
    start.record()
    bare.make(count)
    end.record()
    synchronise(device)
    return float(start.elapsed_time(end)) / 1e3 / count


def host_seconds(bare: BareStep, device: torch.device, count: int = 5) -> float:
    """Seconds in which the host orders a step: the median of single ones, as a full queue would make it wait."""
    times = []
    for _ in range(count):
        synchronise(device)
        started = time.perf_counter()
        bare.make(1)
        times.append(time.perf_counter() - started)
    synchronise(device)
    return median(times)


def _memory(device: torch.device) -> dict[str, float]:
    """The most that the device held; a CPU has no record of it."""
    if device.type != "cuda":
        return {}
    return {
        "allocated, GiB": torch.cuda.max_memory_allocated(device) / 2**30,
        _RESERVED: torch.cuda.max_memory_reserved(device) / 2**30,
    }


@contextmanager
def _computing(way: str, backend: str | None) -> Iterator[None]:
    """Within it runs are opened, and steps computed, in one of the ways."""
    key, before = "ACCELERATE_DYNAMO_BACKEND", torch.backends.cudnn.benchmark
    wish = os.environ.get(key)
    torch.backends.cudnn.benchmark = way == AUTOTUNED
    os.environ[key] = backend or "no"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
        os.environ.pop(key)
        if wish is not None:
            os.environ[key] = wish


def longest_kernels(check: Check) -> Figures:
    """Where the time of a step goes: the kernels of a GPU, the operations of a CPU."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    is_cuda = check.processes.device.type == "cuda"
    bare = check.open(check.scale.batches[0]).subject.bare
    bare.seconds(2)
    count = 3
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * is_cuda]) as profiler:
        bare.seconds(count)
    averages = [one for one in profiler.key_averages() if not is_cuda or one.device_type == DeviceType.CUDA]
    times = [(float(one.self_device_time_total if is_cuda else one.self_cpu_time_total), one) for one in averages]
    total_us = sum(us for us, _ in times)
    rows = [
        {"kernel": shorten(one.key, 100), "calls": one.count / count, "ms": us / 1e3 / count, "share": us / total_us}
        for us, one in sorted(times, key=lambda pair: -pair[0])[:_KERNELS]
    ]
    return {"ms of a step, all": total_us / 1e3 / count, "kernels of a step": rows}
