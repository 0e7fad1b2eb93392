"""YOLO's texts and Labelme's files give the masks that they describe, and anything but an outline is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.data.pictures import png, random_pair
from tests.data.sources.drawn import covered_classes
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.cache import Cache
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.sources.names import find_id_names, read_id_names
from unet_dist.data.sources.registry import open_source
from unet_dist.errors import DataError

MASK = np.array([[0] * 8, [0, 2, 2, 1, 0, 0, 0, 0], [0, 2, 2, 1, 0, 0, 0, 0], [0] * 8, [0] * 8, [0] * 8])


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(random_pair(seed)[0]))


def open_data(root: Path, said: list[str] | None = None) -> Cache:
    source = open_source(root, say=None if said is None else said.append)
    return prepare(source, CacheSettings(), seed=0, cache_path=root.parent / "cache")


def write_yolo(root: Path, second: str, folder: str = "{kind}/{split}") -> Path:
    for split in ("train", "val"):
        for seed, name in enumerate(("a", "b")):
            picture(root / folder.format(kind="images", split=split) / f"{name}.png", seed + len(split))
        text = root / folder.format(kind="labels", split=split) / "a.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        first = f"0 {1 / 8} {1 / 6} {4 / 8} {1 / 6} {4 / 8} {3 / 6} {1 / 8} {3 / 6}"
        text.write_text(f"{first}\n{second}\n")
    (root / "data.yaml").write_text("names:\n  0: cat\n  1: car\n")
    return root


@pytest.mark.parametrize("folder", ["{kind}/{split}", "{split}/{kind}"])
def test_a_yolo_export(tmp_path, folder):
    second = f"1 {1 / 8} {1 / 6} {3 / 8} {1 / 6} {3 / 8} {3 / 6} {1 / 8} {3 / 6}"
    said: list[str] = []
    cache = open_data(write_yolo(tmp_path / "d", second, folder), said)
    assert cache.class_names == ["background", "cat", "car"]
    assert {name: cache.split(name).ids for name in cache.splits} == {"train": ["a", "b"], "validation": ["a", "b"]}
    assert (cache.split("val").label(0)[:] == MASK).all()
    assert not cache.split("val").label(1)[:].any()
    assert "2 images without text: all background" in said[0]
    assert covered_classes(tmp_path / "d", cache, tmp_path / "cache") == 2 * 4


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("0 0.5 0.5 0.2 0.2", "has a box in line 2 and no outline"),
        ("7 0 0 1 0 1 1", "3 points of class 7 in line 2, for 2 named"),
        ("0 0 0 1 0 1", "cannot be read in line 2"),
        ("0 1 1 5 1 5 4", "has 5 in line 2, expected shares of the width and the height from 0 to 1"),
        ("0 0.5 0.5 0.2 0.2 0.4 0.4 2 0.5 0.5 2", "has 2 in line 2, expected shares"),
        ("0 -0.2 0 1 0 1 1", "has -0.2 in line 2, expected shares"),
    ],
)
def test_lines_of_yolo_that_are_no_outline(tmp_path, line, sentence):
    with pytest.raises(DataError, match=rf"2 of 4 pairs cannot be used.\n  mask of a.png in .*{sentence}"):
        open_data(write_yolo(tmp_path / "d", line))


def test_a_class_called_background_is_what_no_object_covers(tmp_path):
    root = write_yolo(tmp_path / "d", f"1.0 {1 / 8} {1 / 6} {3 / 8} {1 / 6} {3 / 8} {3 / 6} {1 / 8} {3 / 6}")
    (root / "data.yaml").write_text("names: [Background, car]\n")
    (root / "a_model.yaml").write_text("names: [other, names, first]\n")
    cache = open_data(root)
    assert cache.class_names == ["background", "car"]
    assert (cache.split("val").label(0)[:] == (MASK == 2)).all()


def test_classes_of_one_name_are_told_apart(tmp_path):
    """Scores go by name: the first of two would be lost."""
    root = write_yolo(tmp_path / "d", "1 0 0 1 0 1 1")
    (root / "data.yaml").write_text("names: [car, car]\n")
    assert open_data(root).class_names == ["background", "car (1)", "car (2)"]
    (tmp_path / "names.txt").write_text("car\nsky\ncar\n")
    assert read_id_names(tmp_path / "names.txt") == {0: "car (0)", 1: "sky", 2: "car (2)"}


def test_points_of_poses_are_no_outlines(tmp_path):
    root = write_yolo(tmp_path / "d", "0 0 0 1 0 1 1")
    (root / "data.yaml").write_text("names: [cat, car]\nkpt_shape: [4, 2]\n")
    with pytest.raises(
        DataError, match=r"data\.yaml: its labels are the points of poses \(kpt_shape\), expected segments"
    ):
        open_data(root)


def write_labelme(root: Path, **last: object) -> Path:
    outline = {"label": "wall", "points": [[1, 1], [4, 1], [4, 3], [1, 3]], "shape_type": "polygon"}
    box = {"label": "car", "points": [[3, 3], [1, 1]], "shape_type": "rectangle"} | last
    for seed, name in enumerate("abcd"):
        picture(root / f"{name}.png", seed)
        stored = {"shapes": [outline, box], "imagePath": f"{name}.png", "imageHeight": 6, "imageWidth": 8}
        if name != "d":
            (root / f"{name}.json").write_text(json.dumps(stored))
    return root


def test_labelme_beside_the_pictures(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/labels.txt").write_text("__ignore__\n_background_\nwall\ncar\n")
    said: list[str] = []
    cache = open_data(write_labelme(tmp_path / "d"), said)
    assert cache.class_names == ["background", "wall", "car"]
    assert sorted(cache.split("all").ids) == ["a", "b", "c"]
    assert (cache.split("all").label(0)[:] == MASK).all()
    assert "1 pictures have no JSON and are left out" in said[0]
    covered_classes(tmp_path / "d", cache, tmp_path / "cache")


def test_shapes_of_labelme_that_are_no_area(tmp_path):
    with pytest.raises(DataError, match=r"3 of 3 pairs .*\n  mask a.json has a line of 2 points, labelled car"):
        open_data(write_labelme(tmp_path / "d", shape_type="line"))


def test_names_of_masks_of_roboflow(tmp_path):
    table = "Pixel Value, Class\n0, background\n1, cell\n"
    for split in ("train", "valid"):
        picture(tmp_path / split / "a.png", len(split))
        (tmp_path / split / "_classes.csv").write_text(table)
    assert find_id_names(tmp_path) == (tmp_path / "train/_classes.csv", {0: "background", 1: "cell"})
    (tmp_path / "valid/_classes.csv").write_text(table.replace("cell", "void"))
    with pytest.raises(DataError, match=r"valid/_classes\.csv: it names other classes"):
        find_id_names(tmp_path)
    for split in ("train", "valid"):  # of whole pictures
        (tmp_path / split / "_classes.csv").write_text("filename, cat, dog\na.png, 1, 0\n")
    assert find_id_names(tmp_path) == (None, None)
