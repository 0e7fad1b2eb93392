"""Proves that masks of overlapping classes come out of the cache as they were written, and that bad ones end in a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.circles import (
    NAMES,
    draw_scene,
    write_circles,
    write_folders,
    write_npy,
    write_pages,
    write_suffixes,
    write_tiff,
)
from unet_dist.data.batches.crops import CropReader
from unet_dist.data.batches.recipes import RECIPES
from unet_dist.data.batches.sampler import ClassBalance, Draw
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.cache import Cache
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.data.decoded.planes import is_class, pack, plane_of
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.sources.registry import open_source
from unet_dist.errors import UnetDistError

Write = Callable[[Path, str, np.ndarray], None]


def open_circles(root: Path, cache: Path, **settings: Any) -> Cache:
    """Decode a folder of circles."""
    max_pixels = settings.pop("max_pixels", 2**26)
    source = open_source(root, multi_label=True)
    told = CacheSettings(multi_label=True, **settings)
    return prepare(source, told, seed=0, cache_path=cache, max_pixels=max_pixels)


def planes_in(cache: Cache, index: int) -> np.ndarray:
    """The planes of a training sample, (H, W, K)."""
    label = np.asarray(cache.split("train").label(index)[:, :])
    return np.stack([plane_of(label, k) for k in range(cache.num_classes)], axis=2)


@pytest.mark.parametrize("write", [write_tiff, write_pages, write_npy, write_folders, write_suffixes])
def test_every_form_gives_the_planes_that_were_written(tmp_path: Path, write: Write) -> None:
    root = write_circles(tmp_path / "data", count=4, write=write)
    cache = open_circles(root, tmp_path / "cache")
    by_files = write in (write_folders, write_suffixes)
    assert cache.class_names == (sorted(NAMES) if by_files else ["class_0", "class_1"])
    for index, number in enumerate((0, 1, 2)):
        _, planes = draw_scene(number)
        expected = planes[..., ::-1] if by_files else planes  # blue comes before red
        np.testing.assert_array_equal(planes_in(cache, index), expected)
    counts = sum(draw_scene(number)[1].sum(axis=(0, 1), dtype=np.int64) for number in (0, 1, 2))
    expected_counts = counts[::-1] if by_files else counts
    assert cache.split("train").class_counts.tolist() == expected_counts.tolist()
    assert cache.split("train").class_shares == pytest.approx(expected_counts / (3 * 64 * 64))


def test_large_masks_are_read_by_windows_to_the_same_planes(tmp_path: Path) -> None:
    root = write_circles(tmp_path / "data", count=4, write=write_tiff)
    for path in (root / "images").rglob("*.png"):
        tifffile.imwrite(path.with_suffix(".tif"), np.asarray(Image.open(path)), photometric="rgb", tile=(16, 16))
        path.unlink()
    windowed = open_circles(root, tmp_path / "one", max_pixels=1000)
    decoded = open_circles(root, tmp_path / "two")
    assert len(windowed.windowed) == 4
    for index in range(3):
        np.testing.assert_array_equal(planes_in(windowed, index), planes_in(decoded, index))
    assert windowed.split("train").class_counts.tolist() == decoded.split("train").class_counts.tolist()


def test_values_that_count_nowhere_are_of_one_plane_alone(tmp_path: Path) -> None:
    def write(folder: Path, name: str, planes: np.ndarray) -> None:
        planes = planes.copy()
        planes[:8, :, 0] = 255
        write_tiff(folder, name, planes)

    cache = open_circles(write_circles(tmp_path / "data", count=4, write=write), tmp_path / "cache")
    found, expected = planes_in(cache, 0), draw_scene(0)[1]
    assert (found[:8, :, 0] == IGNORED).all()
    np.testing.assert_array_equal(found[8:], expected[8:])
    np.testing.assert_array_equal(found[..., 1], expected[..., 1])
    valid = cache.table["valid_counts"][0].tolist()
    assert valid == [56 * 64, 64 * 64]


def black_and_white(folder: Path, name: str, planes: np.ndarray) -> None:
    """White is the class, as image editors have it."""
    write_suffixes(folder, name, planes * 255)


def test_white_is_a_class_only_where_the_user_says_so(tmp_path: Path) -> None:
    root = write_circles(tmp_path / "data", count=4, write=black_and_white)
    with pytest.raises(
        UnetDistError, match=r"no pixel is 1 in the masks of blue, red\. If 255 is the class, set --label_map"
    ):
        open_circles(root, tmp_path / "cache")
    cache = open_circles(root, tmp_path / "cache", label_map={"0": 0, "1": 1, "255": 1})
    np.testing.assert_array_equal(planes_in(cache, 0), draw_scene(0)[1][..., ::-1])


def break_band(folder: Path, name: str, planes: np.ndarray) -> None:
    write_tiff(folder, name, planes[..., [0, 1, 0]] if name == "s1" else planes)


def break_value(folder: Path, name: str, planes: np.ndarray) -> None:
    write_tiff(folder, name, planes * (7 if name == "s1" else 1))


def lose_plane(folder: Path, name: str, planes: np.ndarray) -> None:
    write_folders(folder, name, planes)
    if name == "s1":
        (folder / "blue" / f"{name}.png").unlink()


def resize_plane(folder: Path, name: str, planes: np.ndarray) -> None:
    write_folders(folder, name, planes)
    if name == "s1":
        Image.fromarray(planes[:32, :, 0]).save(folder / "blue" / f"{name}.png")


def two_white(folder: Path, name: str, planes: np.ndarray) -> None:
    write_tiff(folder, name, planes * np.array([1, 255], dtype=np.uint8))


@pytest.mark.parametrize(
    ("write", "settings", "sentence"),
    [
        (break_band, {}, r"mask masks/train/s1\.tif has 3 bands, expected 2: one for each class"),
        (write_tiff, {"num_classes": 3}, r"has 2 bands, expected 3: one for each class"),
        (
            break_value,
            {},
            r"s1\.tif holds 7 \([\d,]+ px\), expected 0, 1 or 255 \(counts nowhere\) in the plane of a class",
        ),
        (lose_plane, {}, r"1 image without the mask of a class: s1 \(blue\)"),
        (resize_plane, {}, r"mask red/s1\.png is 64 x 64 with 1 channel, expected 32 x 64 with 1, as blue/s1\.png"),
        (two_white, {}, r"no pixel is 1 in the masks of class_1"),
        (write_tiff, {"ignore_index": 1}, r"ignore_index: got 1 with multi_label, expected 2 to 65535"),
        (write_tiff, {"label_map": {"0": 0, "1": 2}}, r"label_map: got the target 2 with multi_label"),
    ],
)
def test_bad_masks_end_in_a_sentence(tmp_path: Path, write: Write, settings: dict[str, Any], sentence: str) -> None:
    root = write_circles(tmp_path / "data", count=4, write=write)
    with pytest.raises(UnetDistError) as caught:
        open_circles(root, tmp_path / "cache", **settings)
    assert re.search(sentence, str(caught.value)), caught.value


def test_names_and_folders_of_classes_must_agree(tmp_path: Path) -> None:
    root = write_circles(tmp_path / "data", count=4, write=write_folders)
    (root / "classes.txt").write_text("red\nblue\n", encoding="utf-8")
    cache = open_circles(root, tmp_path / "cache")
    assert cache.class_names == ["red", "blue"]
    np.testing.assert_array_equal(planes_in(cache, 0), draw_scene(0)[1])
    (root / "classes.txt").write_text("red\ngreen\n", encoding="utf-8")
    with pytest.raises(UnetDistError, match="there are masks of blue, and the file of names has red, green"):
        open_circles(root, tmp_path / "cache")


@pytest.mark.parametrize("recipe", [None, "strong"])
def test_crops_move_every_plane_as_they_move_one(tmp_path: Path, recipe: str | None) -> None:
    """A crop of packed planes is the crop of each plane taken for a label map, flips, scales and borders included."""
    cache = open_circles(write_circles(tmp_path / "data", count=4), tmp_path / "cache")
    train = cache.split("train")

    class Plane:
        ids = train.ids

        def __init__(self, k: int) -> None:
            self.k = k

        def __len__(self) -> int:
            return len(train)

        def image(self, index: int) -> Any:
            return train.image(index)

        def label(self, index: int) -> np.ndarray:
            return plane_of(np.asarray(train.label(index)), self.k)

    made = None if recipe is None else RECIPES[recipe]
    for position in range(6):
        readers = [
            CropReader(samples, 5, window_side=84, halo=4, recipe=made) for samples in (train, Plane(0), Plane(1))
        ]
        packed, *planes = [_labels(reader, Draw(position, position % 3)) for reader in readers]
        assert packed.dtype == np.int16
        for k in range(2):
            np.testing.assert_array_equal(plane_of(packed, k), planes[k])
    assert (planes[0] == IGNORED).any(), "the crop reaches beyond the image"


def _labels(reader: CropReader, draw: Draw) -> np.ndarray:
    from unet_dist.tiling.geometry import Tile

    crop = reader.open(draw)
    labels = np.empty(crop.output_shape, dtype=crop.label.dtype)
    crop.read_labels(labels, None, Tile(0, 0, *crop.output_shape))
    return labels


def test_crops_can_be_centred_on_a_class(tmp_path: Path) -> None:
    cache = open_circles(write_circles(tmp_path / "data", count=4), tmp_path / "cache")
    train = cache.split("train")
    balance = ClassBalance.of(0.9, cache.table["class_counts"][list(train.positions), :-1])
    reader = CropReader(train, 1, window_side=9, halo=0, horizontal_flip=False, balance=balance)
    for position in range(10):
        _, labels = reader.read(Draw(position, 0, centre=1))
        assert is_class(labels, 1).any()


def test_pixels_without_data_count_in_no_plane() -> None:
    packed = pack(np.zeros((2, 3, 5), dtype=np.uint8))
    assert plane_of(np.full_like(packed, -1), 4).tolist() == [[IGNORED] * 3] * 2
    assert (plane_of(packed, 7) == IGNORED).all(), "planes beyond the classes count nowhere"
