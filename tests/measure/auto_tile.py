"""Hold the tile that `--tile_size auto` chooses against ten others: its time, and its memory against the budget.

python -m tests.measure.auto_tile time [--image_size 1080x1920] [--base_channels 16] [--rounds 3]
    Predicts one image in memory at each size in turn, round after round; the median of each counts.

python -m tests.measure.auto_tile memory [--budgets_mib 256 512 1024] [--dtype float32]
    For each budget, in a process of its own: the anonymous memory (RssAnon) that a batch of the chosen windows adds at its peak.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import numpy as np
import torch

from tests.measure.anonymous_memory import highest_during, rss_anon
from unet_dist import UNet
from unet_dist.imaging.reader import ArrayReader
from unet_dist.machine.allocator import keep_freed_memory
from unet_dist.prediction.exact import ExactTiles
from unet_dist.prediction.tile_size import choose_tile_size
from unet_dist.prediction.tiles import Piece
from unet_dist.prediction.values import Recipe
from unet_dist.tiling.batches import plan_batches
from unet_dist.tiling.geometry import TilePlan, covering_tile_size, smallest_tile_size

MIB = 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["time", "memory", "one"])
    parser.add_argument("--image_size", default="1080x1920")
    parser.add_argument("--base_channels", type=int, default=16)
    parser.add_argument("--window_batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, default=10, help="tile sizes beside the chosen one")
    parser.add_argument("--budgets_mib", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    shape = tuple(int(side) for side in options.image_size.split("x"))
    if options.what == "memory":
        given = [
            f"--{key}={getattr(options, key)}"
            for key in ("image_size", "base_channels", "window_batch", "threads", "dtype")
        ]
        for budget in options.budgets_mib:
            command = [sys.executable, "-m", "tests.measure.auto_tile", "one", "--budgets_mib", str(budget), *given]
            subprocess.run(command, check=True)
        return
    model = UNet(3, 35, base_channels=options.base_channels).to(getattr(torch, options.dtype)).eval()
    if options.what == "one":
        measure_memory(model, shape, options.window_batch, options.budgets_mib[0])
    else:
        compare_times(model, shape, options)


def choose(model: UNet, shape: tuple[int, int], window_batch: int, memory_bytes: int) -> int:
    return choose_tile_size(
        model,
        [shape],
        plan=ExactTiles(model, say=print).plan,
        smallest=smallest_tile_size(model.window_sizes, model.locality),
        window_batch=window_batch,
        recipe=Recipe(),
        memory_bytes=memory_bytes,
    )


def compare_times(model: UNet, shape: tuple[int, int], options: argparse.Namespace) -> None:
    started = time.perf_counter()
    chosen = choose(model, shape, options.window_batch, 8 * 2**30)
    choosing_s = time.perf_counter() - started
    tiles = ExactTiles(model, say=print)
    covering = covering_tile_size(shape, model.window_sizes, model.locality)
    spread = np.geomspace(smallest_tile_size(model.window_sizes, model.locality) + 100, covering, options.sizes)
    others = {
        tiles.plan(shape, model.window_sizes.round_up(int(side))): model.window_sizes.round_up(int(side))
        for side in spread
    }
    sides = sorted({chosen, *others.values()})
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    seconds: dict[int, list[float]] = {side: [] for side in sides}
    for _ in range(options.rounds):
        for side in sides:
            started = time.perf_counter()
            predict(tiles, tiles.plan(shape, side), image, options.window_batch)
            seconds[side].append(time.perf_counter() - started)
    medians = {side: statistics.median(times) for side, times in seconds.items()}
    best = min(medians.values())
    print("| tile size | windows | seconds | against the fastest |\n|---|---|---|---|")
    for side, median in medians.items():
        plan = tiles.plan(shape, side)
        name = f"**{side}** (auto)" if side == chosen else str(side)
        window = "x".join(map(str, plan.window_shape))
        print(f"| {name} | {len(plan)} of {window} | {median:.2f} | {median / best:.3f} |")
    print(f"chosen in {choosing_s:.1f} s")


def predict(tiles: ExactTiles, plan: TilePlan, image: np.ndarray, window_batch: int) -> None:
    """Compute the labels of all tiles, batch after batch."""
    reader = ArrayReader(image)
    for batch in plan_batches([plan], window_batch):
        pieces: list[Piece] = [tiles.read(0, reader, plan, plan[ref.tile]) for ref in batch]
        tiles.compute(pieces)


def measure_memory(model: UNet, shape: tuple[int, int], window_batch: int, budget_mib: int) -> None:
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    side = choose(model, shape, window_batch, budget_mib * MIB)
    tiles = ExactTiles(model, say=print)
    plan = tiles.plan(shape, side)
    before = rss_anon()  # the trial of the choice itself has taken memory already, and counts
    highest = highest_during(lambda: predict(tiles, plan, np.zeros((*shape, 3), np.uint8), window_batch))
    added = max(highest, before) - START
    print(f"budget {budget_mib} MiB: {len(plan)} windows of {plan.window_shape}, {window_batch} at once: "
          f"{added / MIB:.0f} MiB beyond the imports, of which weights {weights / MIB:.0f}")  # fmt: skip


START = rss_anon()

if __name__ == "__main__":
    main()
