"""Measure what a checkpoint costs a run: the copy that training waits for, and the whole write behind it.

    python -m tests.measure.checkpoint_cost [CONFIG.yaml] [--rounds 10]

The network and the optimizer are those of the config, after one real step on one crop; the share is that of the config's own
interval (checkpoint_steps, or eval_steps), with the step timed in the same run. The write is counted whole, as if none of it
ran behind the training: an upper bound.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch

from unet_dist.cli import parse
from unet_dist.models.unet import UNet
from unet_dist.runs.checkpoint import Checkpoint, CheckpointWriter, optimizer_tensors
from unet_dist.training.optimizer import build_optimizer
from unet_dist.training.parts import Progress


def main() -> None:
    """Measure and say it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="configs/camvid_unet_cpu.yaml")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    config = parse("train", [arguments.config])[0]
    interval = config.run.checkpoint_steps or config.schedule.eval_steps
    model = UNet(3, 12, base_channels=config.model.base_channels, depth=config.model.depth, norm=config.model.norm)
    optimizer = build_optimizer(model, config.schedule)
    side = model.window_sizes.round_up(int(config.schedule.input_size))
    images = torch.randn(config.schedule.batch_size, 3, side, side)
    output = side - 2 * model.window_sizes.margin
    labels = torch.randint(0, 12, (len(images), output, output))

    def step() -> None:
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    steps, copies, wholes = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        writer = CheckpointWriter(Path(folder) / "checkpoints", keep=config.run.keep_checkpoints)
        for number in range(1, arguments.rounds + 1):
            started = time.perf_counter()
            step()
            steps.append(time.perf_counter() - started)
            state = Checkpoint(
                number,
                dict(model.state_dict()),
                optimizer_tensors(model, optimizer),
                config.flat(),
                asdict(Progress(number)),
            )
            started = time.perf_counter()
            writer.write(state)
            copies.append(time.perf_counter() - started)
            writer.wait()
            wholes.append(time.perf_counter() - started)
        writer.close()
    one, copy, whole = (statistics.median(values) for values in (steps, copies, wholes))
    print(f"a step {one:.2f} s, a checkpoint every {interval} steps; medians of {arguments.rounds}")
    print(
        f"copy to the host, for which training waits: {1000 * copy:.1f} ms, {copy / (interval * one):.4%} of the steps' time"
    )
    print(f"the whole write: {1000 * whole:.0f} ms (at most {1000 * max(wholes):.0f}), {whole / (interval * one):.4%}")


if __name__ == "__main__":
    main()
