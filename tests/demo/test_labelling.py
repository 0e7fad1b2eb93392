"""Proves that the demo's label map is the file that predict writes, at any tile size, and that its view shows the same labels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from unet_dist.assembly.inference import choose_tiles
from unet_dist.cli import run
from unet_dist.demo.labelling import WINDOW_BATCH, Labeller, shrink
from unet_dist.errors import DataError
from unet_dist.imaging.palette import class_palette
from unet_dist.imaging.reader import ArrayReader
from unet_dist.models.unet import UNet
from unet_dist.scenes.synthetic import SyntheticScenes


@pytest.fixture
def model() -> UNet:
    torch.manual_seed(0)
    return UNet(num_classes=4, base_channels=3, depth=2).eval()


def make_labeller(model: UNet, folder: Path, tile_size: int = 60, limit_s: float = float("inf")) -> Labeller:
    tiles = choose_tiles(model, window_batch=WINDOW_BATCH, say=lambda _: None)
    return Labeller(tiles, tile_size=tile_size, folder=folder, limit_s=limit_s)


@pytest.mark.parametrize("name", ["scene.png", "scene.tif"])
def test_the_file_is_that_of_predict(model: UNet, tmp_path: Path, name: str) -> None:
    scene = SyntheticScenes(1, 90, 150, seed=5).render(0)[0]
    if name.endswith(".tif"):
        tifffile.imwrite(tmp_path / name, scene, tile=(32, 32), photometric="rgb")
    else:
        Image.fromarray(scene).save(tmp_path / name)
    model.save_pretrained(tmp_path / "model")
    run(
        [
            "predict",
            str(tmp_path / "model"),
            str(tmp_path / name),
            "--output",
            str(tmp_path / "out"),
            "--mixed_precision",
            "no",
        ]
    )
    told: list[tuple[int, int]] = []
    for tile_size in (60, 100):
        labeller = make_labeller(model, tmp_path, tile_size)
        found = labeller.label(tmp_path / name, lambda done, total: told.append((done, total)))
        assert found.labels.name == name
        assert found.labels.read_bytes() == (tmp_path / "out" / name).read_bytes()
        assert [path.name for path in found.labels.parent.iterdir()] == [name]
    assert told[0][0] == 0
    assert told[0][1] > 1


@pytest.mark.parametrize(("suffix", "num_classes"), [(".png", 4), (".tif", 4), (".png", 300)])
def test_the_view_is_small_and_shows_the_labels(
    tmp_path: Path, suffix: str, num_classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = UNet(num_classes=num_classes, base_channels=3, depth=2).eval()
    with torch.no_grad():
        model.classifier.bias[-1] += 100  # the last class is everywhere
    monkeypatch.setattr("unet_dist.demo.labelling.VIEW_SIDE_PX", 40)
    flat = np.full((90, 150, 3), 200, np.uint8)
    path = tmp_path / f"flat{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, flat, photometric="rgb")
    else:
        Image.fromarray(flat).save(path)
    found = make_labeller(model, tmp_path).label(path, lambda *_: None)
    assert found.step == 4
    picture, colours = (
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (found.picture, found.colours)
    )
    assert picture.shape == colours.shape == (23, 38, 3)
    ((label, share),) = found.shares.items()  # a flat image has one class everywhere
    assert share == 1.0
    assert np.abs(picture.astype(int) - 200).max() <= 2, "WebP loses a little"
    assert label == num_classes - 1
    assert (colours == class_palette(num_classes)[label]).all()


def test_shrunk_blocks_are_means() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 10, 2), np.uint8)
    small = shrink(ArrayReader(image), 4)
    assert small.shape == (2, 3, 2)
    assert np.abs(small[0, 1] - image[:4, 4:8].reshape(-1, 2).mean(axis=0)).max() <= 0.5
    assert np.abs(small[1, 2] - image[4:, 8:].reshape(-1, 2).mean(axis=0)).max() <= 0.5
    assert np.array_equal(shrink(ArrayReader(image), 1), image)


def test_a_network_without_a_halo_is_blended(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = UNet(num_classes=4, base_channels=3, depth=2, norm="group").eval()
    Image.fromarray(np.zeros((90, 110, 3), np.uint8)).save(tmp_path / "a.png")
    found = make_labeller(model, tmp_path).label(tmp_path / "a.png", lambda *_: None)
    assert np.asarray(Image.open(found.labels)).shape == (90, 110)


def test_a_wrong_image_is_a_sentence(model: UNet, tmp_path: Path) -> None:
    np.save(tmp_path / "bands.npy", np.zeros((9, 9, 4), np.uint8))
    with pytest.raises(DataError, match=r"got 4 channels, expected 3"):
        make_labeller(model, tmp_path).label(tmp_path / "bands.npy", lambda *_: None)


def test_a_grey_image_is_read_as_colour(model: UNet, tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
    found = []
    for name, pixels in (("grey", grey), ("colour", np.dstack([grey] * 3))):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        labelled = make_labeller(model, tmp_path).label(tmp_path / f"{name}.png", lambda *_: None)
        found.append(np.asarray(Image.open(labelled.labels)))
    assert np.array_equal(*found)


def test_an_image_that_takes_too_long_is_left_and_nothing_of_it_stays(model: UNet, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((90, 90, 3), np.uint8)).save(tmp_path / "large.png")
    with pytest.raises(
        DataError, match=r"takes longer than .*, of which 0 of \d+ batches are done.*--seconds_per_image"
    ):
        make_labeller(model, tmp_path, limit_s=-1e-9).label(tmp_path / "large.png", lambda *_: None)
    assert [path.name for path in tmp_path.iterdir()] == ["large.png"]
