"""Measure batches of training crops from the decoded cache against decoding the files and cropping, alternately in one process.

The cache also flips half of the crops, mirrors at borders and builds the batch; the files are only decoded and cut.

    python -m tests.measure.cached_crop [--images 8] [--rounds 5] [--input_size 572]

    python -m tests.measure.cached_crop --visits 96 [--images 8] ...
        What it costs to verify the digests: crops of a cache just opened, with and without, so many of each image. The
        reference task reads 96 (6,000 steps of 16 crops from 1,000 images).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from unet_dist.data.batches.crops import CropReader
from unet_dist.data.batches.sampler import crop_generator, draw_batch
from unet_dist.data.batches.shares import RunShares
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.cache import Cache
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.sources.registry import open_source
from unet_dist.models.unet import UNet
from unet_dist.scenes.synthetic import SyntheticScenes
from unet_dist.tiling.crop_plan import CropPlanner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--input_size", type=int, default=572)
    parser.add_argument("--visits", type=int, help="crops of each image; measures what verifying costs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        scenes = SyntheticScenes(options.images, 1080, 1920)
        for name in ("images", "masks"):
            (root / "data" / name).mkdir(parents=True)
        for i in range(options.images):
            image, label = scenes.render(i)
            Image.fromarray(image).save(root / "data/images" / f"{i}.jpg", quality=90)
            Image.fromarray(label).save(root / "data/masks" / f"{i}.png")
        cache = prepare(open_source(root / "data"), CacheSettings(num_classes=35), seed=0, cache_path=root / "cache")
        samples = cache.split("all")
        if options.visits is not None:
            compare_checks(cache, options)
            return
        model = UNet(base_channels=1)
        planner = CropPlanner(model.window_sizes, model.locality, halo=92)
        crops = CropReader(samples, seed=0, window_side=options.input_size, halo=92)
        shares = RunShares(crops, planner=planner, batch_size=16, micro_batch_size=16, rank=0, world_size=1)
        steps = range(1, 1 + max(1, 4 * options.images // 16))
        draws = [draw for step in steps for draw in draw_batch(0, step, 16, options.images)]

        def from_cache() -> None:
            for step in steps:
                shares[step]

        def from_files() -> None:
            side = options.input_size
            for draw in draws:
                name = samples.ids[draw.index]
                image = np.asarray(Image.open(root / "data/images" / f"{name}.jpg"))
                label = np.asarray(Image.open(root / "data/masks" / f"{name}.png"))
                row, col = crop_generator(0, draw.position).integers(1080 - side), 300
                np.ascontiguousarray(image[row : row + side, col : col + side])
                np.ascontiguousarray(label[row + 92 : row + side - 92, col + 92 : col + side - 92])

        ways = {"cache": from_cache, "files": from_files}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                seconds[name].append(_cpu_seconds(way) / len(draws))
    pace = 1 / statistics.median(seconds["cache"])
    print(f"{pace:.0f} crops of input {options.input_size} a second and core, in batches of 16")
    ratios = [files / cached for files, cached in zip(seconds["files"], seconds["cache"], strict=True)]
    for name, values in seconds.items():
        print(f"{name}: {1e3 * statistics.median(values):.2f} ms of CPU a crop (median of {options.rounds} rounds)")
    print(f"files / cache: {statistics.median(ratios):.1f} (from {min(ratios):.1f} to {max(ratios):.1f})")


def compare_checks(cache: Cache, options: argparse.Namespace) -> None:
    """Read crops of the same images with and without verifying them, alternately."""
    model = UNet(base_channels=1)
    planner = CropPlanner(model.window_sizes, model.locality, halo=92)
    num_steps = max(1, options.visits * options.images // 16)

    def read(*, checks: bool) -> None:
        opened = Cache(cache.path, seed=0)  # which has verified nothing
        if not checks:
            opened._checked.update(range(len(opened)))
        crops = CropReader(opened.split("all"), seed=0, window_side=options.input_size, halo=92)
        shares = RunShares(crops, planner=planner, batch_size=16, micro_batch_size=16, rank=0, world_size=1)
        for step in range(1, num_steps + 1):
            shares[step]

    read(checks=True)
    pairs = [
        (_cpu_seconds(lambda: read(checks=True)), _cpu_seconds(lambda: read(checks=False)))
        for _ in range(options.rounds)
    ]
    ratios = [checked / unchecked for checked, unchecked in pairs]
    crop_ms = 1e3 * statistics.median(unchecked for _, unchecked in pairs) / (16 * num_steps)
    print(f"{crop_ms:.2f} ms of CPU a crop without verifying (median of {options.rounds} rounds)")
    print(f"with / without: {statistics.median(ratios):.4f} (from {min(ratios):.4f} to {max(ratios):.4f})")


def _cpu_seconds(way: Callable[[], None]) -> float:
    started = time.process_time()
    way()
    return time.process_time() - started


if __name__ == "__main__":
    main()
