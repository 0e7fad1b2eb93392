"""Predict one image by one network at several tile sizes, and compare with the undivided pass; then by abutting tiles.

python -m tests.measure.tile_sizes [RUN] [--image FILE] [--tile_sizes 572 668 732 1100 2108] [--base_channels 4]

In float64, where rounding (1e-14: products of another shape are summed in another order) cannot hide a difference. Without RUN
the network is the paper's with random weights, and narrow: what it computes does not matter. Abutting tiles lay outputs side by
side without regard to the stride, as is usual. Exits with 1 where an aligned plan gives another label, or a logit that differs by
more than rounding.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unet_dist.assembly.opening import load_run
from unet_dist.imaging.reader import ArrayReader, as_reader, read_window
from unet_dist.models.unet import UNet
from unet_dist.prediction.image import predict_logits
from unet_dist.scenes.synthetic import SyntheticScenes
from unet_dist.tiling.geometry import covering_tile_size, plan_abutting, plan_tiles
from unet_dist.tiling.windows import classify, require_locality, window_logits

ROUNDING = 1e-10  # of float64, with room; abutting tiles differ by whole numbers


def main(words: Sequence[str] | None = None) -> None:
    """Print the table; words are those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--image")
    parser.add_argument("--image_size", default="1080x1920")
    parser.add_argument("--tile_sizes", type=int, nargs="+", default=[572, 668, 732, 1100, 2108])
    parser.add_argument("--base_channels", type=int, default=4)
    options = parser.parse_args(words)
    if options.run:
        model = load_run(options.run, torch.device("cpu"))[0]
    else:
        torch.manual_seed(0)
        model = UNet(base_channels=options.base_channels)
    model.double().eval()
    if options.image:
        reader: Any = as_reader(options.image)
    else:
        reader = ArrayReader(SyntheticScenes(1, *map(int, options.image_size.split("x")), seed=572).render(0)[0])
    sys.exit(0 if compare(model, reader, options.tile_sizes) else 1)


def compare(model: Any, reader: Any, tile_sizes: list[int]) -> bool:
    """Print a line for each way to tile; say whether all aligned ones equal the undivided pass."""
    shape, locality = reader.shape[:2], require_locality(model)
    covering = covering_tile_size(shape, model.window_sizes, locality)
    whole = predict_logits(model, reader, covering)  # (K, H, W)
    print("| tiles | tile size | windows | step | labels that differ | largest difference of a logit |")
    print("|---|---|---|---|---|---|")
    print(f"| undivided | {covering} | 1 | - | - | - |")
    all_equal = True
    for side in tile_sizes:
        plan = plan_tiles(shape, side, model.window_sizes, locality)
        logits = predict_logits(model, reader, side)
        all_equal &= torch.equal(logits.argmax(0), whole.argmax(0)) and (logits - whole).abs().max().item() < ROUNDING
        tell("aligned", side, len(plan), "x".join(map(str, plan.step)), logits, whole, model)
    for side in tile_sizes:
        abutting = plan_abutting(shape, side, margin=model.window_sizes.margin)
        step = f"{abutting.output}x{abutting.output}"
        tell("abutting", side, abutting.rows * abutting.cols, step, abut(model, reader, side), whole, model)
    return all_equal


def tell(kind: str, side: int, windows: int, step: str, logits: Tensor, whole: Tensor, model: Any) -> None:
    """Print what one way to tile gives, against the undivided pass."""
    labels, expected = (classify(each[None], model.ignore_index) for each in (logits, whole))
    share = (labels != expected).double().mean().item()
    difference = (logits - whole).abs().max().item()
    print(f"| {kind} | {side} | {windows} | {step} | {share:.3%} | {difference:.2g} |", flush=True)


def abut(model: Any, reader: Any, side: int) -> Tensor:
    """Logits of whole outputs laid side by side: (K, H, W)."""
    height, width, _ = reader.shape
    margin = model.window_sizes.margin
    step = side - 2 * margin
    rows = []
    for row in range(0, height, step):
        parts = []
        for col in range(0, width, step):
            pixels = np.array(read_window(reader, row - margin, col - margin, side, side))[None]
            parts.append(window_logits(model, torch.from_numpy(pixels), halo=margin)[0])
        rows.append(torch.cat(parts, dim=2)[:, :, :width])
    return torch.cat(rows, dim=1)[:, :height]


if __name__ == "__main__":
    main()
