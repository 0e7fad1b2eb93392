"""Time the augmentations that happen on the device, beside a training step of a U-Net.

    OMP_NUM_THREADS=1 python -m tests.measure.augmentation --base_channels 16 --output augmentation.json

Crops of 572 px of images of 720x960 px, two a step, float32. Processor time, so that other work on the machine counts little;
medians. Per recipe: the host's part (places, labels, reading), the device's part, and its share of a step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from unet_dist.data.batches.crops import CropReader
from unet_dist.data.batches.recipes import RECIPES
from unet_dist.data.batches.shares import RunShares
from unet_dist.models.registry import build_model
from unet_dist.tiling.crop_plan import CropPlanner
from unet_dist.tiling.windows import normalise

SHAPE, SIDE, BATCH = (720, 960), 572, 2


class Noise:
    """A split of images of noise."""

    ids = tuple(f"image-{number}" for number in range(8))

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._images = rng.integers(0, 256, (2, *SHAPE, 3), dtype=np.uint8)
        self._labels = rng.integers(0, 11, (2, *SHAPE), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> np.ndarray:
        return self._images[index % 2]

    def label(self, index: int) -> np.ndarray:
        return self._labels[index % 2]


def main() -> None:
    """Print the table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base_channels", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="training steps that are timed")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    model: Any = build_model("unet", num_classes=11, base_channels=arguments.base_channels).train()
    planner = CropPlanner.of(model, side=SIDE)
    figures: dict[str, dict[str, float]] = {}
    for name, recipe in [("none", None), *RECIPES.items()]:
        crops = CropReader(Noise(), 0, window_side=SIDE, halo=planner.halo, recipe=recipe)
        shares = RunShares(crops, planner=planner, batch_size=BATCH, micro_batch_size=BATCH, rank=0, world_size=1)
        host, device = [], []
        for step in range(1, arguments.rounds + 2):
            seconds, share = timed(shares.__getitem__, step)
            host.append(seconds)
            device.append(timed(share.batches[0].on, torch.device("cpu"))[0])
        figures[name] = {
            "host_ms_per_crop": round(1000 * statistics.median(host[1:]) / BATCH, 1),
            "device_ms_per_crop": round(1000 * statistics.median(device[1:]) / BATCH, 1),
        }
    batch = shares[1].batches[0].on(torch.device("cpu"))
    laps = [timed(train_step, model, batch)[0] for _ in range(arguments.steps + 1)]
    step_ms = 1000 * statistics.median(laps[1:]) / BATCH
    for figure in figures.values():
        figure["device_share_of_step"] = round(
            figure["device_ms_per_crop"] / (step_ms + figure["device_ms_per_crop"]), 4
        )
    record = {"base_channels": arguments.base_channels, "step_ms_per_crop": round(step_ms, 1), "recipes": figures}
    print(json.dumps(record, indent=1))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(record, indent=1))


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds of processor time, and the result."""
    began = time.process_time()
    result = work(*arguments)
    return time.process_time() - began, result


def train_step(model: Any, batch: Any) -> None:
    """A forward and a backward pass."""
    logits = model(normalise(batch.windows, model.mean, model.std, torch.float32))
    F.cross_entropy(logits, batch.labels.long(), ignore_index=255).backward()


if __name__ == "__main__":
    main()
