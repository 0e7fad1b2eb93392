"""Measure a training step with and without unet_dist.machine.allocator, alternately, each in a process of its own.

python -m tests.measure.allocator [--rounds 3] [--batch 8] [--input_size 444] [--base_channels 16]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--input_size", type=int, default=444)
    parser.add_argument("--base_channels", type=int, default=16)
    parser.add_argument("--one", choices=("kept", "returned"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options)))
        return
    found: dict[str, list[tuple[float, int]]] = {"kept": [], "returned": []}
    for _ in range(options.rounds):
        for name, values in found.items():
            command = [sys.executable, "-m", "tests.measure.allocator", *sys.argv[1:], "--one", name]
            seconds, faults = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
            values.append((seconds, faults))
    for name, values in found.items():
        seconds, faults = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"freed memory is {name}: {seconds:.2f} s and {faults:,.0f} page faults a step")
    ratios = [b[0] / a[0] for a, b in zip(found["kept"], found["returned"], strict=True)]
    print(f"returned / kept: {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


def measure(options: argparse.Namespace) -> tuple[float, int]:
    """Seconds and page faults of the median of four steps after the first."""
    if options.one == "kept":
        from unet_dist.machine.allocator import keep_freed_memory

        assert keep_freed_memory()
    import torch
    import torch.nn.functional as F

    from unet_dist.models.unet import UNet

    torch.manual_seed(0)
    model = UNet(3, 12, base_channels=options.base_channels)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    side = options.input_size
    images = torch.randn(options.batch, 3, side, side)
    labels = torch.randint(0, 12, (options.batch, side - 184, side - 184))
    steps = []
    for _ in range(5):
        started, faults = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        now = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        steps.append((time.perf_counter() - started, now - faults))
    return sorted(steps[1:])[1]


if __name__ == "__main__":
    main()
