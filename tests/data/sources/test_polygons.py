"""Outlines are drawn as pycocotools draws them, pixel by pixel, and a COCO export gives the pairs that it describes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.data.pictures import png, random_pair
from tests.data.sources.drawn import covered_classes
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.sources.coco import decode_runs
from unet_dist.data.sources.polygons import Canvas
from unet_dist.data.sources.registry import open_source
from unet_dist.errors import DataError, RefusedError

SQUARE = [1, 1, 4, 1, 4, 3, 1, 3]


def drawn(height: int, width: int, *outlines: list[float]) -> np.ndarray:
    canvas = Canvas(height, width, 2)
    for outline in outlines:
        canvas.polygon(np.array(outline, dtype=float).reshape(-1, 2), 1)
    return canvas.ids()


def test_pixels_whose_centres_are_inside_are_filled():
    expected = np.zeros((5, 6), dtype=np.uint8)
    expected[1:3, 1:4] = 1
    assert (drawn(5, 6, SQUARE) == expected).all()
    assert (drawn(5, 6, [-9, -9, 99, -9, 99, 99, -9, 99]) == 1).all()
    assert not drawn(5, 6, [2, 2]).any()


def test_a_crossing_leaves_a_hole():
    twice = [0, 0, 6, 0, 6, 6, 0, 6, 0, 0, 2, 2, 4, 2, 4, 4, 2, 4, 2, 2]
    assert drawn(6, 6, twice)[2:4, 2:4].sum() == 0
    assert drawn(6, 6, twice).sum() == 32


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_a_thousand_polygons_and_run_lengths_equal_pycocotools():
    mask_api = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(0)
    for number in range(1000):
        height, width = (int(side) for side in random.integers(1, 60, 2))
        size = int(random.integers(3, 12))
        points = random.uniform(-10, 70, (size, 2))
        points = np.round(points) if number % 4 == 0 else np.round(points * 2) / 2 if number % 4 == 1 else points
        encoded = mask_api.frPyObjects([points.ravel().tolist()], height, width)[0]
        expected = mask_api.decode(encoded)
        assert (drawn(height, width, points.ravel().tolist()) == expected).all(), (number, height, width, points)
        noisy = np.asfortranarray(random.random((height, width)) < random.random(), dtype=np.uint8)
        for mask in (expected, noisy):
            canvas = Canvas(height, width, 2)
            canvas.runs(decode_runs(mask_api.encode(np.asfortranarray(mask))["counts"].decode()), 1)
            assert (canvas.ids() == mask).all(), (number, height, width)


@pytest.mark.parametrize(("text", "sentence"), [("\u00ff!!", "is in no run length"), ("52X", "cut short")])
def test_damaged_run_lengths_are_no_background(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        decode_runs(text)


def write_coco(root: Path, split: str, num_images: int, **changes: object) -> Path:
    """Write pictures and a COCO file as exports lay them out: a square of category 7, on it a run of category 3."""
    path = root / f"annotations/instances_{split}2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index in range(num_images):
        name = f"{split}{index}.png"
        picture = root / f"{split}2017" / name
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(png(random_pair(index + 100 * len(split), 5, 6)[0]))
        images.append({"id": 50 + index, "file_name": name, "height": 5, "width": 6})
        run = {"size": [5, 6], "counts": [6, 1, 23]}
        annotations += [
            {"id": 2 * index, "image_id": 50 + index, "category_id": 7, "segmentation": [SQUARE], "iscrowd": 0},
            {"id": 2 * index + 1, "image_id": 50 + index, "category_id": 3, "segmentation": run, "iscrowd": 1},
        ]
    categories = [{"id": 7, "name": "car"}, {"id": 3, "name": "cat"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories} | changes))
    return path


EXPECTED = np.array([[0] * 6, [0, 1, 2, 2, 0, 0], [0, 2, 2, 2, 0, 0], [0] * 6, [0] * 6])


def test_a_coco_export_is_prepared(tmp_path):
    for split, size in (("train", 3), ("val", 2)):
        write_coco(tmp_path / "d", split, size)
    said: list[str] = []
    source = open_source(tmp_path / "d", say=said.append)
    cache = prepare(source, CacheSettings(), seed=0, cache_path=tmp_path / "cache")
    assert cache.class_names == ["background", "cat", "car"]
    assert {name: cache.split(name).ids for name in cache.splits} == {
        "train": ["train0", "train1", "train2"],
        "validation": ["val0", "val1"],
    }
    assert (cache.split("validation").label(1)[:] == EXPECTED).all()
    assert said == [
        "d: masks are drawn from instances_train2017.json, instances_val2017.json; class ids: 0 background, 1 cat, 2 car"
    ]
    assert covered_classes(tmp_path / "d", cache, tmp_path / "cache") == 5, "the run lies on each square"
    one = open_source(tmp_path / "d/annotations/instances_val2017.json")
    assert one.splits == {"train": 2}


def test_the_signature_follows_outlines(tmp_path):
    path = write_coco(tmp_path / "d", "train", 2)
    first = open_source(tmp_path / "d").signature(tmp_path / "memo")
    assert open_source(tmp_path / "d").signature(tmp_path / "memo") == first
    path.write_text(path.read_text().replace("[1, 1, 4", "[1, 1, 5"))
    assert open_source(tmp_path / "d").signature(tmp_path / "memo") != first


def test_what_a_coco_file_lacks_is_a_sentence(tmp_path):
    box = {"id": 9, "image_id": 50, "category_id": 7, "bbox": [0, 0, 2, 2]}
    write_coco(tmp_path / "box", "train", 3, annotations=[box])
    with pytest.raises(
        DataError, match=r"1 of 3 pairs .*\n  mask of train0.png .* \(annotation 9\) with a box and no outline"
    ):
        prepare(open_source(tmp_path / "box"), CacheSettings(), seed=0, cache_path=tmp_path / "cache")
    write_coco(tmp_path / "gone", "train", 3)
    (tmp_path / "gone/train2017/train1.png").unlink()
    with pytest.raises(DataError, match=r"1 of its images are not below .*: train1.png\. Put them there"):
        _ = open_source(tmp_path / "gone").splits
    write_coco(tmp_path / "differ", "train", 1)
    write_coco(tmp_path / "differ", "val", 1, categories=[{"id": 7, "name": "cat"}, {"id": 3, "name": "car"}])
    with pytest.raises(DataError, match="its categories differ"):
        _ = open_source(tmp_path / "differ").splits


@pytest.mark.parametrize("outline", [[[1, 1, 4, 3]], [[]]])
def test_an_outline_of_two_points_is_no_object(tmp_path, outline):
    """Four numbers are a box to pycocotools, and an outline without an area to everybody else."""
    drawn = {"id": 9, "image_id": 50, "category_id": 7, "segmentation": outline}
    write_coco(tmp_path / "d", "train", 3, annotations=[drawn])
    with pytest.raises(DataError, match="an object whose outline has fewer than three points"):
        prepare(open_source(tmp_path / "d"), CacheSettings(), seed=0, cache_path=tmp_path / "cache")


def test_categories_of_one_name_are_one_class_and_of_one_id_none(tmp_path):
    """Roboflow writes the name of the project as a category before the others."""
    names = [{"id": 0, "name": "cat"}, {"id": 3, "name": "cat"}, {"id": 7, "name": "car"}]
    write_coco(tmp_path / "d", "train", 3, categories=names)
    assert open_source(tmp_path / "d").read_id_names() == {0: "background", 1: "cat", 2: "car"}
    write_coco(tmp_path / "e", "train", 3, categories=[*names, {"id": 3, "name": "dog"}])
    with pytest.raises(DataError, match='the id 3 is of two categories, "cat" and "dog"'):
        _ = open_source(tmp_path / "e").splits


def test_shares_of_the_sides_are_no_pixels():
    with pytest.raises(RefusedError, match="has outlines from 0 to 1 only, as shares of the width and the height are"):
        drawn(20, 30, [0.1, 0.1, 0.9, 0.1, 0.9, 1.0])
    assert drawn(20, 30, [0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 3.0, 1.0, 3.0, 3.0, 1.0, 3.0]).sum() > 1
    assert not drawn(20, 30).any()


@pytest.mark.parametrize(
    "counts", [[3, 2, 20], [7, 7, 7], [3, 2, 14], [2.5, 3], [-1, 3], [math.nan], [2**62] * 4, [[1, 2]], [1e300]]
)
def test_run_lengths_lie_in_the_image(counts: list) -> None:
    canvas = Canvas(4, 5, 2)
    with pytest.raises(RefusedError, match="do not fill the image"):
        canvas.runs(counts, 1)
    canvas.runs([3, 2, 15], 1)
    assert canvas.ids().sum() == 2
