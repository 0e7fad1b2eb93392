"""Measure what two processes of one thread reach at most on this machine, and what averaging gradients takes from it.

    OMP_NUM_THREADS=1 accelerate launch --multi_gpu --num_processes 2 --main_process_port 0 -m tests.measure.process_ceiling
        [--base_channels 16] [--input_size 444] [--rounds 7] [--steps 3]

Each round times training steps (forward, cross-entropy, backward, AdamW) of one crop a process three times: by the first process
while the others wait, by all without a word between them, which is the most that the cores and the memory give, and by all with
their gradients averaged as in training. Printed are the images/s of all processes against those of the one: the median of the
rounds with its spread, and the fastest time of each against the fastest of the one, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F

from unet_dist.models.unet import UNet
from unet_dist.processes.group import Processes, open_processes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base_channels", type=int, default=16)
    parser.add_argument("--input_size", type=int, default=444)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    with open_processes(mixed_precision="no") as processes:
        own, shared = Training(options), Training(options, processes)
        times: dict[str, list[float]] = {"one": [], "apart": [], "averaged": []}
        for _ in range(1 + options.rounds):
            alone = own.seconds(options.steps) if processes.is_main else 0.0
            times["one"].append(together(processes, alone))
            for name, training in (("apart", own), ("averaged", shared)):
                processes.barrier()
                times[name].append(together(processes, training.seconds(options.steps)))
        if processes.is_main:
            report(times, processes.world_size)


class Training:
    """Training steps of one crop, on a network of its own or one whose gradients the processes average."""

    def __init__(self, options: Any, processes: Processes | None = None) -> None:
        torch.manual_seed(0)
        model = UNet(3, 12, base_channels=options.base_channels)
        side = options.input_size
        self._images = torch.randn(1, 3, side, side)
        self._labels = torch.randint(0, 12, (1, side - 184, side - 184))
        self._network: Any = model if processes is None else processes.prepare(model)
        self._optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def seconds(self, steps: int) -> float:
        """Seconds of so many steps in a row."""
        started = time.perf_counter()
        for _ in range(steps):
            F.cross_entropy(self._network(self._images), self._labels).backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=False)
        return time.perf_counter() - started


def together(processes: Processes, seconds: float) -> float:
    """The seconds of the slowest process."""
    return max(processes.gather(seconds))


def report(times: dict[str, list[float]], world_size: int) -> None:
    """Print the ratios of every round but the first, which warms up."""
    one = times["one"][1:]
    print(
        f"{world_size} processes, {torch.get_num_threads()} thread(s) each, {len(one)} rounds; images/s against one process"
    )
    for name, said in (("apart", "without a word between them"), ("averaged", "with averaged gradients")):
        ratios = [world_size * alone / all_ for alone, all_ in zip(one, times[name][1:], strict=True)]
        fastest = world_size * min(one) / min(times[name][1:])
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        print(f"{spread}, of the fastest {fastest:.3f}  {said}")


if __name__ == "__main__":
    main()
