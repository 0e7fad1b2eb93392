"""Train and predict a GeoTIFF of 7 deep bands with holes on two processes, and look at it by rasterio; and what a crop costs.

    python -m tests.measure.large_raster [--side 2000] [--steps 4]
    python -m tests.measure.large_raster --crops

The first prints what rasterio reads of image and prediction: transform, CRS, nodata and the pixels without data, which must agree.
The second reads crops of decoded images of 8-bit and of 16-bit pixels, in turns in one process, and prints the cost of a byte.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from tests.commands.test_raster import train_words, write_scenes
from tests.distributed.processes import quiet_environment
from unet_dist.data.batches.crops import CropReader
from unet_dist.data.batches.sampler import Draw
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.sources.registry import open_source


def measure_round_trip(side: int, steps: int) -> None:
    import rasterio

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        images = write_scenes(root / "data", side=side)
        run, out = root / "run", root / "out"
        keys = {"total_steps": steps, "eval_steps": steps, "input_size": 220, "learning_rate": 0.001}
        for words in (
            train_words(root / "data", run, **keys),
            ["predict", str(run), str(images[0]), "--output", str(out), "--overlay", "false"],
        ):
            started = time.perf_counter()
            command = [sys.executable, "-m", "unet_dist", *words, "--processes", "2"]
            subprocess.run(command, env=quiet_environment(), check=True)
            print(f"{words[0]}: {time.perf_counter() - started:.0f} s")
        with rasterio.open(images[0]) as image, rasterio.open(out / images[0].name) as labels:
            for key in ("shape", "transform", "crs"):
                one, other = getattr(image, key), getattr(labels, key)
                print(f"{key}: {str(other)!r} {'as the image' if one == other else f'and the image {str(one)!r}'}")
            print(f"nodata: {labels.nodata}, the image's {image.nodata}")
            agree = np.array_equal(image.dataset_mask(), labels.dataset_mask())
            print(f"pixels without data: {'the same' if agree else 'OTHERS'}")


def measure_crops(side: int = 1024, window: int = 572, rounds: int = 15) -> None:
    with tempfile.TemporaryDirectory() as name:
        readers = {}
        for dtype in (np.uint8, np.uint16):
            root = Path(name) / np.dtype(dtype).name
            for kind in ("images", "masks"):
                (root / kind).mkdir(parents=True)
            for number in range(3):
                image = np.random.default_rng(number).integers(0, 255, (side, side, 3)).astype(dtype)
                tifffile.imwrite(root / "images" / f"{number}.tif", image, photometric="rgb")
                tifffile.imwrite(root / "masks" / f"{number}.tif", (image[..., 0] > 99).astype(np.uint8))
            cache = prepare(open_source(root), CacheSettings(), seed=0, cache_path=root / "cache")
            readers[np.dtype(dtype)] = CropReader(cache.split("all"), 0, window, 92)
        seconds: dict[np.dtype, list[float]] = {dtype: [] for dtype in readers}
        for number in range(rounds):
            for dtype, reader in readers.items():
                started = time.process_time()
                for position in range(20):
                    reader.read(Draw(20 * number + position, position % 3))
                seconds[dtype].append((time.process_time() - started) / 20)
        ratios = [deep / 2 / plain for plain, deep in zip(*seconds.values(), strict=True)]
        for dtype, values in seconds.items():
            print(f"{dtype}: {1e3 * statistics.median(values):.2f} ms of CPU a crop of {window} px")
        print(
            f"a byte of uint16 / a byte of uint8: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2000, help="of the images, px")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--crops", action="store_true", help="measure crops alone")
    options = parser.parse_args()
    if options.crops:
        measure_crops()
    else:
        measure_round_trip(options.side, options.steps)


if __name__ == "__main__":
    main()
