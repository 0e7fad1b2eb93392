"""Proves that a plan is for the user's own data, also before anything is prepared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.data.pictures import png
from unet_dist.assembly.planned import KnownData, know_data
from unet_dist.config.options import PlanOptions
from unet_dist.config.sections import Config
from unet_dist.data.decoded import preview
from unet_dist.errors import DataError


def write(root: Path, sizes: list[tuple[int, int]], ids: list[int]) -> Path:
    """Pictures of these sizes; the mask of each holds 0 and one of the ids in turn."""
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number, size in enumerate(sizes):
        mask = np.zeros(size, np.uint8)
        mask[0] = ids[number % len(ids)]
        (root / "images" / f"{number:04}.png").write_bytes(png(np.zeros((*size, 3), np.uint8)))
        (root / "masks" / f"{number:04}.png").write_bytes(png(mask))
    return root


def known(root: Path, image_size: str | None = None, **keys: object) -> KnownData:
    config = Config(data_path=str(root), cache_path=str(root.parent / "cache"), **keys)  # type: ignore[arg-type]
    return know_data(config, PlanOptions(image_size=image_size))


def test_sizes_are_those_of_the_folder_and_classes_those_of_its_masks(tmp_path: Path) -> None:
    root = write(tmp_path / "d", [(30, 40), (20, 90), (25, 30)], [1, 4])
    data = known(root)
    assert (data.image_shape, data.channels, data.num_classes, data.pixel_bytes) == ((20, 90), 3, 5, 1)
    assert data.known_from == "the largest of 3 images; classes of 3 masks"
    assert not (tmp_path / "cache").exists() or not [p for p in (tmp_path / "cache").iterdir() if p.name != "digests"]
    assert known(root, "70x80").image_shape == (70, 80)
    assert known(root, num_classes=9).num_classes == 9


def test_named_classes_need_no_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "d", [(30, 40)] * 4, [1])
    (root / "id2label.json").write_text(json.dumps({str(i): name for i, name in enumerate("abcdefg")}))
    monkeypatch.setattr(preview, "decode_pair", None)
    assert known(root).num_classes == 7


def test_of_many_images_some_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "_MOST_HEADERS", 5)
    monkeypatch.setattr(preview, "_MOST_MASKS", 2)
    data = known(write(tmp_path / "d", [(30, 40)] * 11, [2]))
    assert data.known_from == "the largest of 5 of 11 images; classes of 2 masks"
    assert data.num_classes == 3


def test_grey_images_of_16_bits(tmp_path: Path) -> None:
    root = write(tmp_path / "d", [(30, 40)] * 3, [1])
    for path in list((root / "images").iterdir()):
        tifffile.imwrite(path.with_suffix(".tif"), np.full((30, 40), 999, np.uint16))
        path.unlink()
    data = known(root)
    assert (data.channels, data.pixel_bytes) == (1, 2)
    assert known(root, in_channels=3).channels == 3


def test_images_that_are_read_by_windows_are_not_read_for_a_plan(tmp_path: Path) -> None:
    root = write(tmp_path / "d", [(30, 40)] * 3, [1])
    for kind in ("images", "masks"):
        for path in list((root / kind).iterdir()):
            with Image.open(path) as picture:
                tifffile.imwrite(path.with_suffix(".tif"), np.asarray(picture))
            path.unlink()
    data = known(root, max_pixels=100)
    assert data.image_shape == (30, 40)
    assert data.known_from == "the largest of 3 images; classes assumed: set --num_classes"


def test_masks_that_prepare_would_refuse_are_refused_here(tmp_path: Path) -> None:
    root = write(tmp_path / "d", [(30, 40)] * 3, [255])
    with pytest.raises(DataError, match=r"--label_map '\{0: 0, 255: 1\}'"):
        known(root)
    assert known(root, label_map={"0": 0, "255": 1}).num_classes == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="It is empty"):
        known(tmp_path / "empty")


def test_what_is_not_here_is_assumed_in_words() -> None:
    data = known(Path("someone/some-data"))
    assert data.known_from == "assumed: set --image_size HEIGHTxWIDTH; classes assumed: set --num_classes"
    assert "classes" not in known(Path("someone/some-data"), num_classes=4).known_from
