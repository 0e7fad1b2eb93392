"""How eight GPUs should scale, and whether the model's formula holds for gloo here.

python -m tests.measure.communication           the table of docs/explanation/scaling.md
python -m tests.measure.communication --gloo    sums of several sizes over two processes of this machine, against the formula
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import torch
import torch.distributed as dist

from tests.distributed.processes import quiet_environment
from tests.ports import free_ports
from unet_dist.benchmark.communication import Link, Part, exposed_s, nodes_s, ring_s, speedup

BYTES = 4 * 31_033_955
"""Gradients of the paper's network with three channels and 35 classes, in float32."""
PARTS = (Part(0.85 * BYTES, 0.73), Part(0.15 * BYTES, 1.0))
"""The rest of the network, whole once the backward pass has left the bottleneck, and the contracting path, whole at its end.
Derived: the path has 15 % of the parameters and 41 % of the products; the backward pass is two thirds of a step."""
CROP_S = 0.0035
"""assumption: a crop of 572 px on an H200 in bf16, forward and backward: 0.90 TFLOP at 260 TFLOP/s, a third of its peak."""
INSIDE = Link(5e-6, 300e9)
"""assumption: NVLink of an H200, two thirds of the 450 GB/s of one direction."""
BETWEEN = Link(20e-6, 40e9)
"""assumption: four ports of 100 Gb/s to a node, 80 % of them, shared by the node's devices, which each sum a part."""

SIZES = (2**12, 2**16, 2**18, 2**20, 2**22, 2**23, 2**24, 2**25, 2**26)
WARM_UP, ROUNDS = 3, 40


def table() -> None:
    """Print the model for eight GPUs."""
    print("nodes x GPUs  crops a GPU  step, ms  sums, ms  added, ms  times as fast")
    for nodes, per_node in ((1, 8), (2, 4), (8, 1)):
        for crops in (2, 4, 8):
            step_s = crops * CROP_S
            sums = [nodes_s(part.num_bytes, nodes, per_node, INSIDE, BETWEEN) for part in PARTS]
            added_s = exposed_s(PARTS, step_s, sums)
            figures = f"{1e3 * step_s:8.1f}  {1e3 * sum(sums):8.2f}  {1e3 * added_s:9.2f}  {speedup(8, step_s, added_s):13.2f}"
            print(f"{nodes:5d} x {per_node:d}     {crops:11d}  {figures}")


def sum_here() -> None:
    """One of two processes: print the least seconds of a sum of each size, of rounds that take the sizes in turn.

    The least, as other work on a machine can only lengthen a sum: a pause of the scheduler is a hundred latencies.
    """
    dist.init_process_group("gloo")
    tensors = {size: torch.zeros(size // 4) for size in SIZES}
    times: dict[int, list[float]] = {size: [] for size in SIZES}
    for number in range(WARM_UP + ROUNDS):
        for size, tensor in tensors.items():
            dist.barrier()
            started = time.perf_counter()
            dist.all_reduce(tensor)
            if number >= WARM_UP:
                times[size].append(time.perf_counter() - started)
    if dist.get_rank() == 0:
        for size in SIZES:
            print(size, min(times[size]), flush=True)
    dist.destroy_process_group()


def gloo() -> None:
    """Measure two processes, take latency and rate from the smallest and the largest sum, and predict the others."""
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(1)[0])}
    command = [sys.executable, "-m", "tests.measure.communication", "--rank"]
    ranks = [
        subprocess.Popen(command, env={**quiet_environment(), **place, "RANK": r}, stdout=subprocess.PIPE, text=True)
        for r in ("0", "1")
    ]
    said = [process.communicate(timeout=600)[0] for process in ranks]
    measured = {int(size): float(seconds) for size, seconds in (line.split() for line in said[0].splitlines())}
    latency_s = measured[SIZES[0]] / 2
    link = Link(latency_s, SIZES[-1] / (measured[SIZES[-1]] - measured[SIZES[0]]))
    print(f"latency {1e6 * link.latency_s:.0f} us, {link.bytes_per_s / 1e9:.2f} GB/s")
    for size in SIZES:
        model_s = ring_s(size, 2, link)
        took_s = measured[size]
        print(f"{size / 2**20:8.3f} MiB  {1e3 * took_s:8.3f} ms  model {1e3 * model_s:8.3f} ms  {model_s / took_s:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gloo", action="store_true")
    parser.add_argument("--rank", action="store_true")
    words = parser.parse_args()
    if words.rank:
        assert "RANK" in os.environ
        sum_here()
    elif words.gloo:
        gloo()
    else:
        table()
