"""One sum of a flat buffer of all gradients against DDP's buckets, which are summed beside the backward pass: two processes, gloo.

    python -m tests.measure.flat_gradient [--base_channels 32] [--input_size 252] [--rounds 15]

Each round makes a training pass in each way, in turn. Printed are medians of the ratios of a round, and their quartiles.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.distributed.processes import quiet_environment
from tests.ports import free_ports
from unet_dist.machine.allocator import keep_freed_memory
from unet_dist.models.unet import UNet


def flatten(model: nn.Module) -> Tensor:
    """Make the gradients of a network views of one buffer, as DDP does for each of its buckets."""
    parameters = list(model.parameters())
    flat = torch.zeros(sum(p.numel() for p in parameters))
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view(parameter.shape)
    return flat


def ways(base_channels: int) -> dict[str, Callable[[Tensor], None]]:
    """A training pass each: DDP, one sum at the end, and no sum at all."""
    plain, alone, bucketed = (UNet(3, 12, base_channels=base_channels) for _ in range(3))
    averaged = DistributedDataParallel(bucketed, gradient_as_bucket_view=True, static_graph=True)
    flat, own = flatten(plain), flatten(alone)

    def by_buckets(images: Tensor) -> None:
        averaged.zero_grad(set_to_none=False)
        averaged(images).square().mean().backward()

    def at_the_end(images: Tensor) -> None:
        flat.zero_()
        plain(images).square().mean().backward()
        dist.all_reduce(flat)
        flat.div_(dist.get_world_size())

    def not_at_all(images: Tensor) -> None:
        own.zero_()
        alone(images).square().mean().backward()

    return {"DDP": by_buckets, "one sum": at_the_end, "no sum": not_at_all}


def measure(options: argparse.Namespace) -> None:
    """One of two processes."""
    dist.init_process_group("gloo")
    keep_freed_memory()
    torch.manual_seed(0)
    passes = ways(options.base_channels)
    images = torch.randn(1, 3, options.input_size, options.input_size)
    times: dict[str, list[float]] = {name: [] for name in passes}
    for number in range(options.rounds + 2):
        for name, one in passes.items():
            dist.barrier()
            started = time.perf_counter()
            one(images)
            dist.barrier()  # a step ends with the last process
            if number >= 2:
                times[name].append(time.perf_counter() - started)
    if dist.get_rank() == 0:
        print(f"DDP: {1e3 * statistics.median(times['DDP']):.0f} ms, the median")
        for name in ("one sum", "no sum"):
            ratios = [own / ddp for own, ddp in zip(times[name], times["DDP"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(f"{name} / DDP: {middle:.3f} ({low:.3f} to {high:.3f})", flush=True)
    dist.destroy_process_group()


def main() -> None:
    """Start two processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base_channels", type=int, default=32)
    parser.add_argument("--input_size", type=int, default=252)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if "RANK" in os.environ:
        measure(options)
        return
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(1)[0])}
    command = [sys.executable, "-m", "tests.measure.flat_gradient", *sys.argv[1:]]
    ranks = [subprocess.Popen(command, env={**quiet_environment(), **place, "RANK": r}) for r in ("0", "1")]
    sys.exit(max(process.wait() for process in ranks))


if __name__ == "__main__":
    main()
