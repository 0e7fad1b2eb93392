"""CVAT, VIA and Label Studio give the masks that they describe, pixel by pixel as made by hand or by pycocotools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.pictures import png, random_pair
from tests.data.sources.drawn import covered_classes
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.cache import Cache, CacheSettings
from unet_dist.data.sources.label_studio import decode_brush
from unet_dist.data.sources.registry import open_source
from unet_dist.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
coco = pytest.importorskip("pycocotools.mask")

OUTLINE = [1.3, 0.8, 6.9, 1.7, 4.2, 4.9, 0.6, 3.1]
HAND = np.array(
    [[0] * 8, [0, 1, 1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0, 0, 0], [0] * 8, [0] * 8, [0] * 8], dtype=np.uint8
)


def outlined(value: int) -> np.ndarray:
    """The outline as pycocotools draws it."""
    drawn: np.ndarray = coco.decode(coco.frPyObjects([OUTLINE], 6, 8))[..., 0] * np.uint8(value)
    return drawn


def pictures(root: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(random_pair(seed)[0]))


def open_data(root: Path, tmp_path: Path, said: list[str] | None = None) -> Cache:
    source = open_source(root, say=None if said is None else said.append)
    return prepare(source, CacheSettings(), seed=0, cache_path=tmp_path / "cache")


def labels(cache: Cache) -> dict[str, np.ndarray]:
    everything = cache.split("all")
    return {name: np.asarray(everything.label(index)[:, :]) for index, name in enumerate(everything.ids)}


POINTS = ";".join(f"{x},{y}" for x, y in zip(OUTLINE[::2], OUTLINE[1::2], strict=True))
RUNS = "0, 2, 1, 3"  # of a box of 2 x 3 px: 110 111


def write_cvat(root: Path, shapes: str, subset: str = "") -> Path:
    pictures(root, "images/a.png", "images/b.png", "images/c.png")
    label = "<label><name>{}</name></label>"
    images = f'<image id="0" name="a.png" width="8" height="6"{subset}>{shapes}</image>'
    images += "".join(
        f'<image id="{i}" name="sub/{name}.png" width="8" height="6"{subset}/>' for i, name in ((1, "b"), (2, "c"))
    )
    names = label.format("car") + label.format("wall")
    text = f"<annotations><meta><task><labels>{names}</labels></task></meta>{images}</annotations>"
    (root / "annotations.xml").write_text(text)
    return root


def test_cvat_by_layers(tmp_path):
    polygon = f'<polygon label="wall" points="{POINTS}" z_order="1"/>'
    mask = f'<mask label="car" rle="{RUNS}" left="1" top="1" width="3" height="2" z_order="{{}}"/>'
    for number, (order, first, second) in enumerate([("0", HAND, outlined(2)), ("2", outlined(2), HAND)]):
        root = write_cvat(tmp_path / str(number), mask.format(order) + polygon + '<tag label="car"/>')
        cache = open_data(root, tmp_path)
        assert cache.class_names == ["background", "car", "wall"]
        found = labels(cache)
        assert (found["images-a"] == np.where(second > 0, second, first)).all()
        assert not found["images-b"].any()
        assert covered_classes(root, cache, tmp_path / "cache") > 0


def test_cvat_ellipses_and_subsets(tmp_path):
    shape = '<ellipse label="car" cx="4" cy="3" rx="2" ry="1"/>'
    write_cvat(tmp_path / "d", shape, subset=' subset="Train"')
    text = (tmp_path / "d/annotations.xml").read_text()
    (tmp_path / "d/annotations.xml").write_text(text.replace('subset="Train"/>', 'subset="Validation"/>'))
    cache = open_data(tmp_path / "d", tmp_path)
    assert cache.given_splits == {"train": 1, "validation": 2}
    inside = lambda x, y: ((x - 4) / 2) ** 2 + (y - 3) ** 2 <= 1  # noqa: E731
    expected = np.array([[inside(x + 0.5, y + 0.5) for x in range(8)] for y in range(6)], np.uint8)
    assert expected.sum() == 8
    assert (labels(cache)["images-a"] == expected).all()


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        ('<box label="car" xtl="0" ytl="0" xbr="3" ybr="3"/>', "has a box labelled car"),
        ('<mask label="car" rle="1, 2" left="1" top="1" width="3" height="2"/>', "a mask of 3 px in a box of 6"),
        ('<polygon label="tree" points="0,0;1,1;2,0"/>', "'tree' is not in list"),
    ],
)
def test_cvat_that_cannot_be_drawn(tmp_path, shapes, sentence):
    with pytest.raises(
        DataError, match=rf"1 of 3 pairs cannot be used.\n  mask of a.png in annotations.xml .*{sentence}"
    ):
        open_data(write_cvat(tmp_path / "d", shapes), tmp_path)


def write_via(root: Path, *regions: dict[str, Any], wrapped: bool = True, attributes: tuple[Any, ...] = ()) -> Path:
    pictures(root, "a.png", "b.png", "c.png")
    told = [
        {"shape_attributes": shape, "region_attributes": one} for shape, one in zip(regions, attributes, strict=True)
    ]
    images = {
        f"{name}1": {"filename": name, "size": 1, "regions": told if name == "a.png" else []}
        for name in ("a.png", "b.png", "c.png")
    }
    if not wrapped:
        images["a.png1"]["regions"] = {str(number): one for number, one in enumerate(told)}
    (root / "via.json").write_text(
        json.dumps({"_via_settings": {}, "_via_img_metadata": images} if wrapped else images)
    )
    return root


VIA_OUTLINE = {"name": "polygon", "all_points_x": OUTLINE[::2], "all_points_y": OUTLINE[1::2]}
VIA_BOX = {"name": "rect", "x": 1, "y": 1, "width": 3, "height": 2}


@pytest.mark.parametrize("wrapped", [True, False])
def test_via_by_its_attribute(tmp_path, wrapped):
    attributes = ({"class": "wall", "note": ""}, {"class": {"car": True, "tree": False}, "note": "x"})
    root = write_via(tmp_path / "d", VIA_OUTLINE, VIA_BOX, wrapped=wrapped, attributes=attributes)
    cache = open_data(root, tmp_path)
    assert cache.class_names == ["background", "car", "wall"]
    expected = outlined(2)
    expected[1:3, 1:4] = 1
    assert (labels(cache)["a"] == expected).all()
    assert covered_classes(root, cache, tmp_path / "cache") > 0


def test_via_without_attributes_is_one_class(tmp_path):
    cache = open_data(write_via(tmp_path / "d", VIA_OUTLINE, attributes=({},)), tmp_path)
    assert cache.class_names == ["background", "object"]
    assert (labels(cache)["a"] == outlined(1)).all()


def test_via_with_numbers_as_texts(tmp_path):
    """The sum of a place and a width was their two texts, one behind the other."""
    box = {key: str(value) for key, value in VIA_BOX.items()}
    cache = open_data(write_via(tmp_path / "d", box, attributes=({},)), tmp_path)
    assert np.argwhere(labels(cache)["a"]).tolist() == [[y, x] for y in (1, 2) for x in (1, 2, 3)]


def test_via_that_names_no_class(tmp_path):
    with pytest.raises(DataError, match="its regions have the attributes colour, shape"):
        _ = open_source(write_via(tmp_path / "d", VIA_BOX, attributes=({"colour": "a", "shape": "b"},))).splits
    root = write_via(tmp_path / "e", VIA_BOX, VIA_BOX, attributes=({"class": "wall"}, {"class": ""}))
    with pytest.raises(DataError, match="has no class"):
        _ = open_source(root).splits


def pack_brush(alpha: np.ndarray) -> list[int]:
    """Pack RGBA of an alpha channel by the layout of rle-pack, by runs and by single values in turn."""
    values = np.repeat(alpha.ravel()[:, None], 4, axis=1).ravel()
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    start = 0
    while start < len(values):
        stop = start
        while stop < len(values) and values[stop] == values[start]:
            stop += 1
        if stop - start > 3:
            bits += f"1{3:02b}{stop - start - 1:016b}{int(values[start]):08b}"
        else:
            bits += f"0{0:02b}{stop - start - 1:03b}" + "".join(f"{int(value):08b}" for value in values[start:stop])
        start = stop
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def write_label_studio(root: Path, small: bool) -> Path:
    pictures(root, "a.png", "deep/b.png", "c.png")
    size = {"original_width": 8, "original_height": 6, "image_rotation": 0}
    points = [[100 * x / 8, 100 * y / 6] for x, y in zip(OUTLINE[::2], OUTLINE[1::2], strict=True)]
    outline = {"points": points, "closed": True, "polygonlabels": ["wall"]}
    brush = {"format": "rle", "rle": pack_brush(HAND * 255), "brushlabels": ["car"]}
    addresses = ["/data/upload/3/1a2b3c4d-a.png", "/data/local-files/?d=deep%2Fb.png", "s3://bucket/x/c.png"]
    if small:
        tasks: list[Any] = [{"image": address, "id": 1, "label": []} for address in addresses]
        tasks[0]["label"] = [{**outline, **size}]
        tasks[0]["tag"] = [{**brush, **size}]
        tasks[1]["label"] = [{**outline, **size}]
    else:
        results = [
            [{"type": "polygonlabels", "value": outline, **size}, {"type": "brushlabels", "value": brush, **size}]
        ]
        results += [[{"type": "polygonlabels", "value": outline, **size}], []]
        tasks = [
            {"id": i, "data": {"image": address}, "annotations": [{"result": found, "was_cancelled": False}]}
            for i, (address, found) in enumerate(zip(addresses, results, strict=True))
        ]
        tasks.append({"id": 9, "data": {"image": "/data/upload/3/none.png"}, "annotations": [{"was_cancelled": True}]})
    (root / "export.json").write_text(json.dumps(tasks))
    return root


def test_label_studio(tmp_path):
    said: list[str] = []
    cache = open_data(write_label_studio(tmp_path / "d", small=False), tmp_path, said)
    assert cache.class_names == ["background", "car", "wall"]
    assert "1 tasks have no annotation and are left out" in said[0]
    found = labels(cache)
    assert (found["a"] == np.where(HAND > 0, HAND, outlined(2))).all()
    assert (found["deep-b"] == outlined(2)).all()
    assert not found["c"].any()
    assert covered_classes(tmp_path / "d", cache, tmp_path / "cache") > 0


def test_the_small_export_of_label_studio(tmp_path):
    source = open_source(write_label_studio(tmp_path / "d", small=True))
    assert source.splits == {"train": 2}, "a task without a list of regions was not annotated"
    mask = source.read_pair("train", 0).mask
    assert callable(mask)
    assert (mask() == np.where(HAND > 0, HAND, outlined(2))).all()


def test_the_brush_of_random_strokes():
    random = np.random.default_rng(0)
    for _ in range(20):
        alpha = (random.random((7, 9)) < 0.3).astype(np.uint8).cumsum(axis=1) % 2 * 255
        assert (decode_brush(pack_brush(alpha), 7, 9) == (alpha > 0)).all()
    with pytest.raises(DataError, match="252 values for 6 x 9 px"):
        decode_brush(pack_brush(alpha), 6, 9)
    with pytest.raises(DataError, match="ends too early"):
        decode_brush(pack_brush(alpha)[:-9], 7, 9)


def test_an_export_of_label_studio_that_an_editor_marked(tmp_path):
    root = write_label_studio(tmp_path / "d", small=False)
    (root / "export.json").write_bytes(b"\xef\xbb\xbf" + (root / "export.json").read_bytes())
    assert open_source(root).splits == {"train": 3}


def test_several_annotations_of_a_task_are_refused(tmp_path):
    root = write_label_studio(tmp_path / "d", small=False)
    tasks = json.loads((root / "export.json").read_text())
    tasks[0]["annotations"] *= 2
    (root / "export.json").write_text(json.dumps(tasks))
    with pytest.raises(DataError, match="the task 0 has 2 annotations"):
        _ = open_source(root).splits


def test_a_picture_that_is_not_there(tmp_path):
    root = write_label_studio(tmp_path / "d", small=False)
    (root / "deep/b.png").unlink()
    with pytest.raises(DataError, match=r"1 of its images are not below .*: b.png"):
        _ = open_source(root).splits


def test_one_file_may_be_named(tmp_path):
    root = write_via(tmp_path / "d", VIA_OUTLINE, attributes=({},))
    assert open_source(root / "via.json").splits == {"train": 3}


def test_a_release_of_segments(tmp_path):
    pictures(tmp_path / "d", "a.png", "b.png", "c.png", "far.png")
    instances = np.array([[0] * 8, [0, 300, 300, 0, 0, 70000, 0, 0], *[[0, 7, 0, 0, 0, 0, 0, 0]] * 4], dtype=np.uint32)
    parts = [instances & 255, instances >> 8 & 255, instances >> 16 & 255, np.zeros_like(instances)]
    samples: list[dict[str, Any]] = []
    for name in ("a", "b", "c"):
        (tmp_path / f"d/{name}_label_ground-truth.png").write_bytes(png(np.stack(parts, axis=-1).astype(np.uint8)))
        found = [{"id": 300, "category_id": 9}, {"id": 70000, "category_id": 2}, {"id": 7, "category_id": 9}]
        label = {"attributes": {"annotations": found, "segmentation_bitmap": {"url": "https://x.org/q/0123.png"}}}
        url = {"image": {"url": f"https://x.org/q/{name}.png?sig=1"}}
        samples.append({"name": f"{name}.png", "attributes": url, "labels": {"ground-truth": label}})
    samples.append({"name": "far.png", "attributes": {"image": {"url": "x"}}, "labels": {"ground-truth": None}})
    attributes = {"categories": [{"id": 9, "name": "car"}, {"id": 2, "name": "wall"}]}
    release = tmp_path / "d/release.json"
    release.write_text(json.dumps({"dataset": {"task_attributes": attributes, "samples": samples}}))
    said: list[str] = []
    cache = open_data(tmp_path / "d", tmp_path, said)
    assert cache.class_names == ["background", "wall", "car"]
    assert "1 samples have no label and are left out" in said[0]
    expected = np.select([instances == 0, instances == 70000], [0, 1], 2)
    assert (labels(cache)["b"] == expected).all()
    before = open_source(tmp_path / "d").signature(tmp_path / "memo")
    (tmp_path / "d/b_label_ground-truth.png").write_bytes(png(np.zeros((6, 8, 4), np.uint8)))
    assert open_source(tmp_path / "d").signature(tmp_path / "memo") != before, "a bitmap is part of the content"
    release.write_text(release.read_text().replace('"id": 300', '"id": 301'))
    with pytest.raises(DataError, match="holds the instance 300, which the release does not name"):
        open_data(tmp_path / "d", tmp_path)
