"""How busy a GPU is in a validation, by formula: the host's part measured, the device's computed.

    python -m tests.measure.validation_busy --output FILE [--rate FLOP/S] [NAME ...]

On a GPU that computes nothing (tests/nullgpu), or on a real one. There the host's time is that of its own work, which is measured
here: the time of the processor in ordering a batch, and in reading it in the thread beside. Then

    device_s  = windows * flops(window) / rate         the network alone; counting and copies are left out, in favour of "idle"
    copy_s    = bytes / link                           on a stream of its own
    batch_s   = max(device_s, copy_s, order_s, read_s)     the copies of the host release Python's lock
    total_s   = start_s + read_s + order_s + batches * batch_s + end_s
    busy      = batches * device_s / total_s

"one core" has order_s + read_s in their place. start_s is what comes before the first batch: the plans of tiles, the standardised
filters. end_s is what follows the last one on the host: the scores. Of the rounds the least counts, as other work on the machine
can only lengthen them; the medians stand beside it. Each setting is 64 wide, depth 4, 732 px, bf16, 4 windows at once, 100 images
of 1080x1920, as in the reference data set.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from tests.measure.communication import CROP_S
from tests.measure.record import provenance
from unet_dist.benchmark.gpu_check import FULL, Check
from unet_dist.benchmark.setting import Setting
from unet_dist.planner.simulation import prediction_flops, training_flops
from unet_dist.prediction import evaluation
from unet_dist.processes.group import open_processes
from unet_dist.training.boundary import Boundary
from unet_dist.training.parts import Progress
from unet_dist.training.trainer import Trainer

SETTINGS: dict[str, dict[str, Any]] = {
    "norm none": {"norm": "none"},
    "norm weight": {"norm": "weight"},
    "norm weight, averages": {"norm": "weight", "ema_decay": 0.99},
}
IMAGES, ROUNDS = 100, 12
LINK = 25e9
"""assumption: bytes a second of PCIe 5 from page-locked memory, half of its 64 GB/s at most, as processors share it."""
CROP_PX = 572


@dataclass(frozen=True)
class Host:
    """Seconds of the processor in one validation.

    Attributes:
        batches: how many it had.
        start_s: before the first one.
        order_s, read_s: of all batches, in the thread that orders and in the one that reads.
        end_s: after the last one.
        best_s: in writing best/, where the validation is the best so far; the disk's own time is not in it.
    """

    batches: int
    start_s: float
    order_s: float
    read_s: float
    end_s: float
    best_s: float = 0.0


def busy(host: Host, *, batches: float, device_s: float, copy_s: float) -> dict[str, float]:
    """The formula of this file's first lines.

    Args:
        host: as measured; its batches may be fewer.
        batches: of the validation that is meant.
        device_s, copy_s: of one batch.
    """
    order_s, read_s = host.order_s / host.batches, host.read_s / host.batches
    around_s = host.start_s + read_s + order_s + host.end_s

    def share(host_s: float, after_s: float = 0.0) -> float:
        return batches * device_s / (around_s + batches * max(device_s, copy_s, host_s) + after_s)

    return {
        "device, ms per batch": 1e3 * device_s,
        "copies, ms per batch": 1e3 * copy_s,
        "start, ms": 1e3 * host.start_s,
        "ordering, ms per batch": 1e3 * order_s,
        "reading, ms per batch": 1e3 * read_s,
        "end, ms": 1e3 * host.end_s,
        "best/, ms": 1e3 * host.best_s,
        "busy": share(max(order_s, read_s)),
        "busy, one core": share(order_s + read_s),
        "busy, best/ written": share(max(order_s, read_s), host.best_s),
    }


def _measure(evaluate: Callable[[Callable[[], bool]], object]) -> Host:
    read, read_s, batches, asked = evaluation._read, 0.0, 0, list[float]()

    def timed(*arguments: Any, **more: Any) -> Any:
        nonlocal read_s, batches
        started = time.thread_time()
        try:
            return read(*arguments, **more)
        finally:
            read_s, batches = read_s + time.thread_time() - started, batches + 1

    def is_stopped() -> bool:  # asked before each batch
        asked.append(time.thread_time())
        return False

    with mock.patch.object(evaluation, "_read", timed):
        started = time.thread_time()
        evaluate(is_stopped)
        ended = time.thread_time()
    # The last batch is ordered after the last question: as long as any other.
    order_s = (asked[-1] - asked[0]) / (batches - 1) * batches
    return Host(batches, asked[0] - started, order_s, read_s, max(0.0, ended - asked[0] - order_s))


def _best_s(boundary: Boundary) -> float:
    started = time.thread_time()
    boundary.write_model("best")
    return time.thread_time() - started


def _of_rounds(hosts: Sequence[Host], choose: Callable[[list[float]], float]) -> Host:
    names = ("start_s", "order_s", "read_s", "end_s", "best_s")
    return replace(hosts[0], **{name: choose([getattr(host, name) for host in hosts]) for name in names})


def main() -> None:
    """Measure, compute, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SETTINGS))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rate", type=float, help="FLOP/s of the network; else that of docs/explanation/scaling.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch, open_processes(mixed_precision="bf16") as processes:
        check = Check(FULL, processes, Path(scratch), time.monotonic() + 3600)
        for name in options.names or SETTINGS:
            setting = check.open(2, **SETTINGS[name])
            found[name] = _figures(setting, options.rate)
            del setting
            check.free()
            print(name, {key: round(value, 3) for key, value in found[name].items()}, flush=True)
    report = {
        "device": torch.cuda.get_device_name(),
        **provenance(),
        "images": IMAGES,
        "settings": found,
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _figures(setting: Setting, rate: float | None) -> dict[str, float]:
    setting.parts.model.eval()
    window = int(setting.config.schedule.input_size)
    simulated = setting._simulated
    rate = rate or training_flops(simulated, (CROP_PX, CROP_PX)) / CROP_S
    flops = prediction_flops(simulated, (window, window))
    windows = setting.config.run.window_batch
    boundary = Trainer(setting.parts, Progress()).boundary
    hosts = [replace(_measure(setting.parts.evaluate), best_s=_best_s(boundary)) for _ in range(ROUNDS + 1)][1:]
    boundary.writer.close()
    amounts = {
        "batches": -(-hosts[0].batches * IMAGES // len(setting.cache.split("validation"))),
        "device_s": windows * flops / rate,
        # Pixels, and at most as many labels.
        "copy_s": windows * window**2 * (setting.cache.channels + 1) / LINK,
    }
    found = busy(_of_rounds(hosts, min), **amounts)
    medians = busy(_of_rounds(hosts, statistics.median), **amounts)
    return {
        **found,
        **{f"{name}, medians": medians[name] for name in ("busy", "busy, one core", "busy, best/ written")},
    }


if __name__ == "__main__":
    main()
