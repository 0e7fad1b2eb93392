"""Classes are named by the masks themselves where nothing else names them, and never by names that mean something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from tests.imaging.test_envi import write_envi
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.classes import warn_of_one_class
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.sources.folder import FolderSource
from unet_dist.errors import DataError
from unet_dist.imaging.legend import write_category_names

NAMES = ("water", "field", "road")


def write_zarr_mask(path: Path, ids: np.ndarray, names: tuple[str, ...], first: int = 0) -> None:
    array = zarr.create_array(
        str(path.with_suffix(".zarr")), shape=ids.shape, dtype="uint8", chunks=ids.shape, dimension_names=("y", "x")
    )
    array[...] = ids + first
    array.attrs["flag_values"] = [*range(first, first + len(names))]
    array.attrs["flag_meanings"] = " ".join(names)


def write_tiff_mask(path: Path, ids: np.ndarray, names: tuple[str, ...]) -> None:
    tifffile.imwrite(path.with_suffix(".tif"), ids)
    write_category_names(path.with_suffix(".tif.aux.xml"), names)


def write_envi_mask(path: Path, ids: np.ndarray, names: tuple[str, ...]) -> None:
    write_envi(path, ids[..., None], more=f"classes = {len(names)}\nclass names = {{{', '.join(names)}}}\n")


def data(
    root: Path, write: Callable[[Path, np.ndarray, tuple[str, ...]], None], *more: tuple[str, ...]
) -> FolderSource:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    ids = np.broadcast_to(np.arange(30, dtype=np.uint8) // 10, (20, 30))
    for i in range(4):
        Image.fromarray(np.dstack([ids * 80 + i] * 3)).save(root / f"images/s{i}.png")
        write(root / f"masks/s{i}", ids.copy(), more[i] if i < len(more) else NAMES)
    return FolderSource(root)


def named(source: FolderSource, cache_path: Path, **settings: object) -> list[str]:
    return prepare(source, CacheSettings(**settings), seed=0, cache_path=cache_path).class_names


@pytest.mark.parametrize("write", [write_zarr_mask, write_tiff_mask, write_envi_mask])
def test_masks_name_their_classes(tmp_path, write):
    assert named(data(tmp_path / "d", write), tmp_path / "c") == [*NAMES]
    (tmp_path / "d/classes.txt").write_text("a\nb\nc\n")  # goes first
    assert named(FolderSource(tmp_path / "d"), tmp_path / "c") == ["a", "b", "c"]


def test_a_label_map_renames_and_joins(tmp_path):
    source = data(tmp_path / "d", write_zarr_mask)
    assert named(source, tmp_path / "c", label_map={2: 0, 0: 1, 1: 1}) == ["road", "water, field"]
    assert named(source, tmp_path / "c", label_map={0: 7, 1: 1, 2: 0}, ignore_index=7) == ["road", "field"]
    assert named(source, tmp_path / "c", label_map={"0-2": 0, 9: 1}) == ["class_0"]  # 9 has no name


def test_ids_from_1_and_ids_with_gaps(tmp_path):
    source = data(tmp_path / "d", lambda path, ids, names: write_zarr_mask(path, ids, names, first=1))
    assert named(source, tmp_path / "c") == ["class_0", *NAMES]
    source = data(tmp_path / "e", lambda path, ids, names: write_zarr_mask(path, ids, names, first=40))
    with pytest.raises(DataError, match=r"3 ids with gaps between 0 and 42.*--label_map '\{40: 0, 41: 1, 42: 2\}'"):
        named(source, tmp_path / "c")
    assert named(source, tmp_path / "c", label_map={40: 0, 41: 1, 42: 2}) == [*NAMES]


def test_masks_that_name_their_ids_differently_are_refused(tmp_path):
    source = data(tmp_path / "d", write_zarr_mask, NAMES, ("field", "water", "road"))
    with pytest.raises(DataError, match=r"masks masks/s0\.zarr and masks/s1\.zarr name their ids differently\. Write"):
        named(source, tmp_path / "c")


def test_data_of_one_class_are_named_as_such(tmp_path):
    source = data(tmp_path / "d", lambda path, ids, names: write_tiff_mask(path, ids * 0 + 1, names))
    cache = prepare(source, CacheSettings(), seed=0, cache_path=tmp_path / "c")
    sentence = warn_of_one_class(cache)
    assert sentence is not None
    assert sentence.startswith("Every labelled pixel is of the class 'field': there is nothing to learn.")
    assert (
        warn_of_one_class(
            prepare(data(tmp_path / "e", write_tiff_mask), CacheSettings(), seed=0, cache_path=tmp_path / "c")
        )
        is None
    )


def test_a_changed_legend_is_other_data(tmp_path):
    data(tmp_path / "d", write_tiff_mask)
    before = FolderSource(tmp_path / "d").signature(tmp_path / "memo")
    for i in range(4):
        write_category_names(tmp_path / f"d/masks/s{i}.tif.aux.xml", ["a", "b", "c"])
    assert FolderSource(tmp_path / "d").signature(tmp_path / "memo") != before


@pytest.mark.parametrize("attributes", [{"flag_masks": [1, 2, 4]}, {"flag_meanings": "water"}, {"flag_values": "0, 1"}])
def test_what_names_no_ids_is_left_aside(tmp_path, attributes):
    source = data(tmp_path / "d", write_zarr_mask)
    for path in (tmp_path / "d/masks").iterdir():
        zarr.open(str(path), mode="r+").attrs.update(attributes)
    if "flag_masks" in attributes:
        with pytest.raises(DataError, match="holds flags"):
            named(source, tmp_path / "c")
        return
    assert named(source, tmp_path / "c") == ["class_0", "class_1", "class_2"]
