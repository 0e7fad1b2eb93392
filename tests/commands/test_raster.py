"""Proves that a GeoTIFF of many deep bands, with pixels without data, trains and is predicted, and keeps its place in the world.

The same on two processes and 2,000 px: `python -m tests.measure.large_raster`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from unet_dist.cli import main

pytestmark = pytest.mark.usefixtures("own_process")

BANDS, SIDE, NODATA = 7, 64, 0
# EPSG:32633, pixels of 10 m.
GEO = [
    (33550, "d", 3, (10.0, 10.0, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 4e6, 0.0), True),
    (34735, "H", 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633), True),
    (42113, "s", 0, str(NODATA), True),
]


def write_scenes(folder: Path, *, side: int = SIDE, count: int = 4) -> list[Path]:
    """Write images (side, side, 7) uint16 in tiles, of two classes, and their masks; a corner of each has no data."""
    paths = []
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        random = np.random.default_rng(number)
        label = np.zeros((side, side), np.uint8)
        label[:, side // 2 :] = 1
        image = random.normal(3000, 400, (side, side, BANDS)) + 4000.0 * label[..., None]
        image = image.clip(1, 65535).astype(np.uint16)
        image[: side // 4, : side // 4] = NODATA
        paths.append(folder / "images" / f"{number}.tif")
        options: dict[str, Any] = {
            "photometric": "minisblack",
            "planarconfig": "contig",
            "tile": (32, 32),
            "metadata": None,
        }
        tifffile.imwrite(paths[-1], image, extratags=GEO, compression="zlib", **options)
        tifffile.imwrite(folder / "masks" / f"{number}.tif", label, tile=(32, 32))
    return paths


def train_words(root: Path, run: Path, **keys: Any) -> list[str]:
    said = {
        "data_path": root,
        "cache_path": run.parent / "cache",
        "output_path": run,
        "depth": 1,
        "base_channels": 2,
        "input_size": 44,
        "batch_size": 4,
        "total_steps": 30,
        "eval_steps": 30,
        "learning_rate": 0.01,
        "trackers": "[]",
        "mixed_precision": "no",
        **keys,
    }
    return ["train", *(str(word) for key, value in said.items() for word in (f"--{key}", value))]


def test_deep_bands_with_holes_train_and_keep_their_place(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    images = write_scenes(tmp_path / "data")
    run, out = tmp_path / "run", tmp_path / "out"
    predict = ["predict", str(run), str(images[0]), "--output", str(out), "--mixed_precision", "no"]
    train = train_words(tmp_path / "data", run, normalisation="percentile", bands="7,5,2")
    for words in (train, predict, ["evaluate", str(run), "--split", "all"]):
        with pytest.raises(SystemExit) as leaving:
            main(words)
        assert leaving.value.code == 0, words
    config = json.loads((run / "best" / "config.json").read_text())
    assert (config["in_channels"], config["pixels"]["dtype"], config["pixels"]["bands"]) == (3, "uint16", [7, 5, 2])
    assert json.loads((run / "evaluation-all.json").read_text())["miou"] > 0.9
    with rasterio.open(out / "0.tif") as labels, rasterio.open(images[0]) as image:
        assert (labels.transform, labels.crs, labels.shape) == (image.transform, image.crs, image.shape)
        assert labels.crs.to_epsg() == 32633
        assert labels.nodata == 255
        np.testing.assert_array_equal(labels.dataset_mask(), image.dataset_mask())
        assert (labels.read(1)[:, SIDE // 2 + 2 :] == 1).mean() > 0.9
    assert (out / "0_overlay.png").is_file()
