"""The images of TIFF and Zarr stacks, by number and by place on an axis, are those of the array that was written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

from unet_dist.config.quantities import parse_select
from unet_dist.data.sources.folder import FolderSource
from unet_dist.data.sources.registry import open_source
from unet_dist.errors import ConfigError, DataError
from unet_dist.imaging.reader import open_image
from unet_dist.imaging.stacks import images_in
from unet_dist.prediction.jobs import find_sources

VALUES = np.random.default_rng(3).integers(0, 60000, (3, 4, 2, 19, 23), dtype=np.uint16)  # t, z, c, y, x


def read(path: Path) -> np.ndarray:
    with open_image(path) as reader:
        return reader.read(0, reader.shape[0], 0, reader.shape[1])


def write(folder: Path, kind: str, values: np.ndarray = VALUES, axes: str = "tzcyx") -> Path:
    if kind == "ome-tiff":
        path = folder / "v.ome.tif"
        tifffile.imwrite(path, values, ome=True, photometric="minisblack", metadata={"axes": axes.upper()})
        return path
    if kind == "imagej":
        path = folder / "v.tif"
        tifffile.imwrite(path, values, imagej=True, metadata={"axes": axes.upper()})
        return path
    zarr = pytest.importorskip("zarr")
    path = folder / "v.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=3 if kind == "ome-zarr 0.5" else 2)
    options = {} if kind == "ome-zarr 0.5" else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    array = group.create_array("0", shape=values.shape, dtype=values.dtype, chunks=(1, 1, *values.shape[2:]), **options)
    array[...] = values
    scale = [{"type": "scale", "scale": [1.0] * values.ndim}]
    described = {
        "axes": [
            {"name": name, "type": "space" if name in "zyx" else {"t": "time", "c": "channel"}[name]} for name in axes
        ],
        "datasets": [{"path": "0", "coordinateTransformations": scale}],
    }
    if kind == "ome-zarr 0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": [described]}
    else:
        group.attrs["multiscales"] = [{"version": "0.4", **described}]
    return path


KINDS = ["ome-tiff", "imagej", "ome-zarr 0.4", "ome-zarr 0.5"]


@pytest.mark.parametrize("kind", KINDS)
def test_places_of_time_and_depth(tmp_path: Path, kind: str):
    """Channels stay together; one image, a range, or all."""
    path = write(tmp_path, kind)
    pages = images_in(path)
    assert len(pages) == 12
    assert np.array_equal(read(pages[7]), np.moveaxis(VALUES[1, 3], 0, -1))
    (one,) = images_in(path, parse_select("z=2,t=3"))
    assert np.array_equal(read(one), np.moveaxis(VALUES[2, 1], 0, -1))
    found = images_in(path, parse_select("Z=2-4 t=1"))
    assert np.array_equal(np.stack([read(page) for page in found]), np.moveaxis(VALUES[0, 1:4], 1, -1))
    assert find_sources([str(path)], parse_select("z=2,t=3")) == [one]
    with pytest.raises(DataError, match=r"holds images along t 3, z 4, and select asks for z 5\. Choose others"):
        images_in(path, parse_select("z=5"))
    with pytest.raises(DataError, match="and select asks for q 2"):
        images_in(path, parse_select("q=2"))


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_choice_one_sentence_names_it(tmp_path: Path, kind: str):
    path = write(tmp_path, kind)
    with pytest.raises(DataError, match=r"is a stack of images \(axes [\s\S]*Name one of its 12 images[\s\S]*--select"):
        open_image(path)
    with pytest.raises(DataError, match=r"holds 12 images\. Name one of them"):
        open_image(f"{path}#13")


@pytest.mark.parametrize("kind", ["ome-tiff", "ome-zarr 0.5"])
def test_a_folder_of_stacks_trains_on_the_slice_that_is_chosen(tmp_path: Path, kind: str):
    """Its mask is a stack of the same axes, or the one picture of that slice; another slice is another data set."""
    for name in ("images", "masks", "single/images", "single/masks"):
        (tmp_path / name).mkdir(parents=True)
    masks = (VALUES[:, :, 0] % 3).astype(np.uint8)
    write(tmp_path / "images", kind)
    write(tmp_path / "masks", kind, masks, "tzyx")
    chosen = parse_select("t=2,z=3")
    source = FolderSource(tmp_path, select=chosen)
    pair = source.read_pair("train", 0)
    assert sum(source.splits.values()) == 1
    assert np.array_equal(read(Path(str(pair.image))), np.moveaxis(VALUES[1, 2], 0, -1))
    assert np.array_equal(read(Path(str(pair.mask)))[..., 0], masks[1, 2])
    other = FolderSource(tmp_path, select=parse_select("t=2,z=4"))
    assert source.signature(tmp_path / "memo") != other.signature(tmp_path / "memo")
    assert sum(FolderSource(tmp_path).splits.values()) == 12

    write(tmp_path / "single/images", kind)
    suffix = ".ome.tif" if kind == "ome-tiff" else ".tif"
    tifffile.imwrite(tmp_path / f"single/masks/v{suffix}", masks[1, 2])
    assert sum(open_source(tmp_path / "single", select=chosen).splits.values()) == 1


def test_a_choice_without_effect_is_refused():
    with pytest.raises(ConfigError, match="select: synthetic is not a folder of images and masks"):
        open_source("synthetic", select=parse_select("z=1"))


@pytest.mark.parametrize("text", ["", "z", "z=0", "z=3-2", "z=1,z=2", "3", "z=1.5"])
def test_what_is_no_choice_is_refused(text: str):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_select(text)
