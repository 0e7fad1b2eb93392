"""Predicted against measured peak memory: prints a table.

    python -m tests.memory_table [--device cuda]

Measured is torch's own allocation record: on a CPU the profiler's, which has every allocation of torch's allocator, summed up in
the order of time; on a GPU max_memory_allocated. Two steps are run, so that the optimizer's state exists in the second.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from unet_dist.config.sections import ScheduleConfig
from unet_dist.losses.pixelwise import CrossEntropy
from unet_dist.machine.memory_format import choose_memory_format
from unet_dist.models.unet import UNet
from unet_dist.planner.memory import Peak
from unet_dist.planner.simulation import SimulatedRun, prediction_peak, training_peak
from unet_dist.tiling.gradient import WindowGradient
from unet_dist.tiling.windows import classify, window_logits, windows_at_once
from unet_dist.training.optimizer import build_optimizer


@dataclass(frozen=True)
class Case:
    """One configuration: the network's options, the window, and how many windows at once."""

    options: dict[str, Any] = field(default_factory=dict)
    side: int = 204
    count: int = 1
    is_training: bool = True

    def __str__(self) -> str:
        words = [f"{key} {value}" for key, value in self.options.items() if key not in ("base_channels", "depth")]
        return ", ".join(words) or "-"


CASES = (
    Case({"base_channels": 8, "depth": 3}, 204, 1),
    Case({"base_channels": 8, "depth": 3}, 204, 4),
    Case({"base_channels": 16, "depth": 3, "norm": "weight"}, 300, 2),
    Case({"base_channels": 16, "depth": 4}, 300, 1),
    Case({"base_channels": 32, "depth": 4}, 252, 2),
    Case({"base_channels": 8, "depth": 4}, 572, 1),
    Case({"base_channels": 16, "depth": 4, "checkpoint_activations": True}, 300, 2),
    Case({"base_channels": 8, "depth": 3, "norm": "batch", "upsampling": "bilinear"}, 204, 2),
    Case({"base_channels": 16, "depth": 4}, 572, 2, is_training=False),
    Case({"base_channels": 32, "depth": 3, "norm": "weight"}, 300, 4, is_training=False),
)


def predict(case: Case, device_type: str) -> Peak:
    """What the planner says."""
    setting = SimulatedRun(UNet, tuple(case.options.items()), device_type=device_type)
    simulate = training_peak if case.is_training else prediction_peak
    return simulate(setting, case.count, (case.side, case.side))


def measure(case: Case, device_type: str) -> int:
    """What torch records, in bytes."""
    work = _train if case.is_training else _predict
    if device_type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work(case, device_type)
        return torch.cuda.max_memory_allocated() - before
    return recorded_peak(lambda: work(case, device_type))


def recorded_peak(work: Callable[[], object]) -> int:
    """Sum up the profiler's record of the CPU allocator while something runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    now = peak = 0
    for _, change in changes:
        now += change
        peak = max(peak, now)
    return peak


def _model(case: Case, device_type: str) -> Any:
    model = UNet(**case.options).to(device_type)
    return model.to(memory_format=choose_memory_format("auto", device_type)) if case.is_training else model


def _train(case: Case, device_type: str) -> None:
    model = _model(case, device_type)
    optimizer = build_optimizer(model, ScheduleConfig())
    output = model.window_sizes.output(case.side)
    windows = torch.zeros(case.count, case.side, case.side, 3, dtype=torch.uint8, device=device_type)
    labels = torch.zeros(case.count, output, output, dtype=torch.uint8, device=device_type)
    keys = torch.zeros(case.count, 3, dtype=torch.int64, device=device_type)
    for _ in range(2):
        WindowGradient(model, model, CrossEntropy()).add(
            windows, labels, keys, scale=torch.ones((), device=device_type)
        )
        optimizer.step()
        optimizer.zero_grad()


def _predict(case: Case, device_type: str) -> None:
    model = _model(case, device_type).eval()
    pixels = torch.zeros(case.count, case.side, case.side, 3, dtype=torch.uint8)
    for part in pixels.split(windows_at_once(pixels.shape[1:3], device_type)):
        classify(window_logits(model, part, halo=model.window_sizes.margin), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--cases", type=int, nargs="*", help="numbers of the cases, from 1; by default all")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    print("| what | width | depth | side | at once | other options | predicted MiB | measured MiB | error |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for number, case in enumerate(CASES, 1):
        if arguments.cases and number not in arguments.cases:
            continue
        predicted, measured = predict(case, arguments.device).total_bytes, measure(case, arguments.device)
        what, width = ("training" if case.is_training else "prediction"), case.options["base_channels"]
        print(
            f"| {what} | {width} | {case.options['depth']} | {case.side} | {case.count} | {case} | {predicted / 2**20:.1f} | "
            f"{measured / 2**20:.1f} | {predicted / measured - 1:+.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
