"""Proves that images of one kind train, are evaluated and predicted alike, from the values that were written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.commands.test_raster import train_words
from tests.imaging.test_envi import write_envi
from unet_dist import load_model, predict_image
from unet_dist.cli import main
from unet_dist.imaging.reader import open_image

pytestmark = pytest.mark.usefixtures("own_process")

HEIGHT, WIDTH = 50, 83


def write_gif(path: Path, values: np.ndarray) -> None:
    grey = Image.fromarray(values[..., 0])
    grey.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    grey.save(path)


def write_turned(path: Path, values: np.ndarray) -> None:
    turned = [(274, "H", 1, 6, True)]
    tifffile.imwrite(path, np.rot90(values), photometric="rgb", tile=(16, 16), compression="zlib", extratags=turned)


def write_ome_zarr(path: Path, values: np.ndarray) -> None:
    zarr = pytest.importorskip("zarr")
    planes = np.moveaxis(values, -1, 0)[:, None]
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    array = group.create_array("0", shape=planes.shape, chunks=(1, 1, 32, 32), dtype=planes.dtype)
    array[...] = planes
    axes = [{"name": name} for name in "czyx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]


def write_jpeg_2000(path: Path, values: np.ndarray) -> None:
    options = {"level": 0, "reversible": True, "bitspersample": 12, "codecformat": "jp2"}
    path.write_bytes(imagecodecs.jpeg2k_encode(values[..., 0], **options))


def write_bands(path: Path, values: np.ndarray) -> None:
    tifffile.imwrite(path, values, photometric="rgb", extrasamples=["unspecified"])


def as_palette(values: np.ndarray) -> np.ndarray:
    return np.dstack([values, 255 - values, np.full_like(values, 7)])


Write = Callable[[Path, np.ndarray], object]
KINDS: dict[str, tuple[str, Write, int, str, float]] = {
    "GIF": (".gif", write_gif, 1, "uint8", 255),
    "JPEG 2000 of 12 bits": (".jp2", write_jpeg_2000, 1, "uint16", 4095),
    "turned TIFF": (".tif", write_turned, 3, "uint8", 255),
    "TIFF of 4 bands": (".tif", write_bands, 4, "uint8", 255),
    "ENVI": (".img", write_envi, 5, "float32", 1),
    "OME-Zarr": (".ome.zarr", write_ome_zarr, 2, "uint16", 4000),
}


QUICK = "JPEG 2000 of 12 bits"


@pytest.mark.parametrize("kind", [pytest.param(one, marks=[pytest.mark.slow] * (one != QUICK)) for one in KINDS])
def test_what_trains_is_predicted_from_the_values_that_were_written(tmp_path: Path, kind: str) -> None:
    suffix, write, channels, dtype, top = KINDS[kind]
    images, masks, run, out = (tmp_path / name for name in ("data/images", "data/masks", "run", "out"))
    images.mkdir(parents=True)
    masks.mkdir()
    written = []
    for number in range(6):
        random = np.random.default_rng(number)
        label = (random.random((HEIGHT, WIDTH)) > 0.5).astype(np.uint8)
        values = (random.random((HEIGHT, WIDTH, channels)) * top * (0.5 + 0.5 * label[..., None])).astype(dtype)
        write(images / f"x{number}{suffix}", values)
        Image.fromarray(label).save(masks / f"x{number}{'.ome' * ('ome' in suffix)}.png")
        written.append(as_palette(values[..., 0]) if kind == "GIF" else values)
    size = ["--mixed_precision", "no"]
    for words in (
        train_words(tmp_path / "data", run, batch_size=2, total_steps=3, eval_steps=3),
        ["evaluate", str(run), "--split", "all", *size],
        ["predict", str(run), str(images), "--output", str(out), *size],
    ):
        with pytest.raises(SystemExit) as leaving:
            main(words)
        assert leaving.value.code == 0, words
    config = json.loads((run / "best/config.json").read_text())
    assert (config["in_channels"], config.get("pixels", {}).get("dtype", "uint8")) == (written[0].shape[2], dtype)
    model = load_model(run)
    for number, values in enumerate(written):
        found = sorted(
            path for path in out.glob(f"x{number}.*") if not path.name.endswith((".aux.xml", "_overlay.png"))
        )
        assert len(found) == 1, found
        with open_image(found[0]) as labels:
            stored = labels.read(0, HEIGHT, 0, WIDTH)
        if found[0].suffix == ".png":
            stored = np.asarray(Image.open(found[0]))[..., None]
        elif found[0].suffix == ".tif":
            stored = tifffile.imread(found[0])[..., None]
        np.testing.assert_array_equal(stored[..., 0], predict_image(model, values))
