"""Exports whose entries contradict each other, or say less than they seem to, are refused, or read as their tool means them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.data.pictures import png, random_pair
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.cache import Cache
from unet_dist.data.decoded.planes import is_class
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.sources.named_pictures import name_in_address
from unet_dist.data.sources.names import read_id_names
from unet_dist.data.sources.registry import open_source
from unet_dist.errors import DataError
from unet_dist.imaging.regions import write_regions

SQUARE = [[1, 1], [4, 1], [4, 3], [1, 3]]
DRAWN = np.zeros((6, 8), np.uint8)
DRAWN[1:3, 1:4] = 1


def pictures(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names or ("a.png", "b.png", "c.png")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(random_pair(seed)[0]))
    return root


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def open_data(root: Path, said: list[str] | None = None, **settings: Any) -> Cache:
    source = open_source(
        root, say=None if said is None else said.append, multi_label=settings.get("multi_label", False)
    )
    return prepare(source, CacheSettings(**settings), seed=0, cache_path=root.parent / "cache")


def labels(cache: Cache) -> dict[str, np.ndarray]:
    everything = cache.split("all")
    return {name: np.asarray(everything.label(index)[:, :]) for index, name in enumerate(everything.ids)}


def coco(ids: str, files: str = "abc") -> dict[str, Any]:
    """A file of an image for each id, and an object on the first."""
    images = [
        {"id": one, "file_name": f"{file}.png", "height": 6, "width": 8} for one, file in zip(ids, files, strict=False)
    ]
    outline = [value for point in SQUARE for value in point]
    drawn = [{"id": 1, "image_id": ids[0], "category_id": 1, "segmentation": [outline]}]
    return {"images": images, "annotations": drawn, "categories": [{"id": 1, "name": "cat"}]}


def test_two_entries_of_one_picture_are_refused(tmp_path):
    """Each would train as a picture without the objects of the other."""
    write(pictures(tmp_path / "coco") / "a.json", coco("1234", "abca"))
    with pytest.raises(DataError, match=r"a\.png: two entries mean this picture \(mask of a.png in a.json\)"):
        _ = open_source(tmp_path / "coco").splits
    shape = {"label": "car", "points": SQUARE, "shape_type": "polygon"}
    pictures(tmp_path / "labelme")
    for name in ("a", "again"):
        stored = {"shapes": [shape], "imagePath": "a.png", "imageHeight": 6, "imageWidth": 8}
        write(tmp_path / f"labelme/{name}.json", stored)
    with pytest.raises(DataError, match=r"two entries mean this picture \(mask a.json and mask again.json\)"):
        _ = open_source(tmp_path / "labelme").splits


def test_images_of_one_id_are_refused(tmp_path):
    write(pictures(tmp_path / "d") / "a.json", coco("121"))
    with pytest.raises(DataError, match="two images have the id 1"):
        _ = open_source(tmp_path / "d").splits


def write_cvat(root: Path, subsets: str, inside: str = "") -> Path:
    pictures(root)
    polygon = f'<polygon label="Car" points="{";".join(f"{x},{y}" for x, y in SQUARE)}" z_order="0"/>'
    images = "".join(
        f'<image id="{number}" name="x\\{name}.png" width="8" height="6" subset="{subset}">{polygon}</image>'
        for number, (name, subset) in enumerate(zip("abc", subsets.split(), strict=True))
    )
    names = "<label><name>Background</name></label><label><name>Car</name></label>"
    meta = f"<meta><task><labels>{names}</labels></task></meta>"
    write(root / "annotations.xml", f"<annotations>{meta}{images}{inside}</annotations>")
    return root


@pytest.mark.parametrize("subsets", ["Train Validation test_hard", "default default holdout", "Train Validation extra"])
def test_subsets_that_only_look_like_splits_are_not_trained_on(tmp_path, subsets):
    with pytest.raises(DataError, match=f"annotations.xml, subsets: {subsets.split()[-1]}.* is not a known split"):
        _ = open_source(write_cvat(tmp_path / "d", subsets)).splits


def test_background_in_any_case_is_what_no_object_covers(tmp_path):
    cache = open_data(write_cvat(tmp_path / "d", "default default default"))
    assert cache.class_names == ["background", "Car"]
    assert (labels(cache)["a"] == DRAWN).all()


def test_tracks_of_a_video_are_named(tmp_path):
    with pytest.raises(DataError, match=r"it is CVAT for video.* Export the task as CVAT for images 1\.1"):
        _ = open_source(write_cvat(tmp_path / "d", "a a a", '<track id="0" label="Car"/>')).splits


@pytest.mark.parametrize("kind", ["csv", "csv of VIA 1", "both"])
def test_via_as_a_table(tmp_path, kind):
    root = pictures(tmp_path / "d")
    shape = {"name": "polygon", "all_points_x": [1, 4, 4, 1], "all_points_y": [1, 1, 3, 3]}
    cells = [json.dumps(one).replace('"', '""') for one in (shape, {"class": "car"})]
    head = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"
    rows = f'a.png,1,"{{}}",1,0,"{cells[0]}","{cells[1]}"\n' + "".join(
        f'{n}.png,1,"{{}}",0,0,"{{}}","{{}}"\n' for n in "bc"
    )
    write(root / "via_region_data.csv", "#" * (kind != "csv") + head + rows)
    if kind == "both":
        region = {"shape_attributes": shape, "region_attributes": {"class": "car"}}
        images = {name: {"filename": f"{name}.png", "regions": [region] * (name == "a")} for name in "abc"}
        write(root / "via_region_data.json", images)
    cache = open_data(root)
    assert cache.class_names == ["background", "car"]
    assert (labels(cache)["a"] == DRAWN).all()
    assert not labels(cache)["b"].any()
    assert open_source(root / "via_region_data.csv").splits == {"train": 3}


def task(number: int, name: str, *values: dict[str, Any]) -> dict[str, Any]:
    size = {"original_width": 8, "original_height": 6}
    found = [{"id": f"r{place}", "to_name": "image", **size, **one} for place, one in enumerate(values)]
    return {"id": number, "data": {"image": f"/data/upload/1/{name}.png"}, "annotations": [{"result": found}]}


POINTS = [[100 * x / 8, 100 * y / 6] for x, y in SQUARE]
OUTLINE = {"type": "polygonlabels", "value": {"points": POINTS, "polygonlabels": ["car"]}}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([OUTLINE, {"value": {"points": POINTS}}], "the task 0 has 1 region without a label"),
        ([OUTLINE, {"value": {"points": POINTS, "polygonlabels": []}}], "the task 0 has 1 region without a label"),
        ([OUTLINE, OUTLINE | {"to_name": "other"}], "the task 0 has regions in several pictures"),
        ([OUTLINE, OUTLINE | {"item_index": 1}], "the task 0 has regions in several pictures"),
    ],
)
def test_regions_without_a_label_or_in_several_pictures(tmp_path, values, sentence):
    write(pictures(tmp_path / "d") / "e.json", [task(0, "a", *values), task(1, "b"), task(2, "c")])
    with pytest.raises(DataError, match=sentence):
        _ = open_source(tmp_path / "d").splits


def test_a_label_may_be_a_value_of_its_own(tmp_path):
    """As <Labels> beside <Polygon> writes it, with ids in the full export and without in the small one."""
    values = [{"id": "r", "value": {"points": POINTS}}, {"id": "r", "value": {"points": POINTS, "labels": ["car"]}}]
    write(pictures(tmp_path / "d") / "e.json", [task(0, "a", *values), task(1, "b"), task(2, "c")])
    assert (labels(open_data(tmp_path / "d"))["a"] == DRAWN).all()
    size = {"original_width": 8, "original_height": 6}
    small = {key: [one["value"] | size] for key, one in zip(("outline", "label"), values, strict=True)}
    tasks = [{"image": f"{name}.png", "id": number, **small} for number, name in enumerate("abc")]
    write(pictures(tmp_path / "small") / "e.json", tasks)
    assert (labels(open_data(tmp_path / "small"))["a"] == DRAWN).all()


def test_a_picture_of_its_own_name_goes_before_the_usual_one(tmp_path):
    tasks = [task(number, name, OUTLINE | {"to_name": "infrared"}) for number, name in enumerate("abc")]
    for one, name in zip(tasks, "def", strict=True):
        one["data"]["infrared"] = f"/data/upload/1/{name}.png"
    write(pictures(tmp_path / "d", *(f"{name}.png" for name in "abcdef")) / "e.json", tasks)
    assert sorted(labels(open_data(tmp_path / "d"))) == ["d", "e", "f"]


def write_labelme(root: Path, *last: dict[str, Any]) -> Path:
    pictures(root)
    shape = {"label": "car", "points": SQUARE, "shape_type": "rectangle"}  # of four points, as X-AnyLabeling writes it
    for name in "abc":
        stored = {"shapes": [shape, *last], "imagePath": f"{name}.png", "imageHeight": 6, "imageWidth": 8}
        write(root / f"{name}.json", stored)
    return root


def test_what_labelme_ignores_counts_nowhere(tmp_path):
    ignored = {"label": "__ignore__", "points": [[3, 0], [8, 0], [8, 6], [3, 6]], "shape_type": "polygon"}
    root = write_labelme(tmp_path / "d", ignored)
    with pytest.raises(DataError, match=r"hold id 255 (.|\n)* set --ignore_index 255"):
        open_data(root)
    expected = DRAWN.copy()
    expected[:, 3:] = 255
    cache = open_data(root, ignore_index=255)
    assert cache.class_names == ["background", "car"]
    assert (labels(cache)["a"] == expected).all()
    planes = labels(open_data(root, multi_label=True))["a"]
    assert ((planes == -1) == (expected == 255)).all(), "all bits are set where nothing counts"
    assert (is_class(planes, 0) == (expected == 1)).all()


def test_a_label_with_underscores_is_a_label(tmp_path):
    other = {"label": "__x", "points": [[5, 0], [8, 0], [8, 6], [5, 6]], "shape_type": "polygon"}
    cache = open_data(write_labelme(tmp_path / "d", other))
    assert cache.class_names == ["background", "__x", "car"]


@pytest.mark.parametrize("status", ["REJECTED", "PRELABELED", "SKIPPED"])
def test_labels_of_segments_that_nobody_accepted_are_left_out(tmp_path, status):
    root, samples = pictures(tmp_path / "d", *(f"{name}.png" for name in "abcd")), []
    for name in "abcd":
        instances = np.zeros((6, 8, 4), np.uint8)
        instances[..., 0] = DRAWN
        (root / f"{name}_label_ground-truth.png").write_bytes(png(instances))
        label = {"annotations": [{"id": 1, "category_id": 1}], "segmentation_bitmap": {"url": "x"}}
        told = {"label_status": status if name == "a" else "REVIEWED", "attributes": label}
        image = {"image": {"url": f"https://x.org/{name}.png"}}
        samples.append({"name": f"{name}.png", "attributes": image, "labels": {"ground-truth": told}})
    attributes = {"categories": [{"id": 1, "name": "car"}]}
    write(root / "release.json", {"dataset": {"task_attributes": attributes, "samples": samples}})
    said: list[str] = []
    assert sorted(labels(open_data(root, said))) == ["b", "c", "d"]
    assert "1 samples have no label and are left out" in said[0]


def write_yolo(root: Path, settings: str, *folders: str) -> Path:
    for folder in folders or ("",):
        for seed, name in enumerate("abcd"):
            pictures(root, f"images/{folder}/{name}{folder}.png")
            (root / f"images/{folder}/{name}{folder}.png").write_bytes(png(random_pair(seed + 10 * len(folder))[0]))
            write(root / f"labels/{folder}/{name}{folder}.txt", "0 0.125 0.2 0.5 0.2 0.5 0.5\n")
    write(root / "data.yaml", f"{settings}\nnames: [cat]\n")
    return root


@pytest.mark.parametrize(
    "settings", ["", "path: ../d\ntrain: train.txt\nval: val.txt", "train: /far/d/train.txt\nval: ./val.txt\ntest:"]
)
def test_lists_of_yolo_say_the_splits(tmp_path, settings):
    root = write_yolo(tmp_path / "d", settings)
    write(root / "train.txt", "./images/a.png\n./images/b.png\n")
    write(root / "val.txt", "/far/d/images/c.png\n")
    said: list[str] = []
    source = open_source(root, say=said.append)
    assert source.splits == {"train": 2, "validation": 1}
    assert "1 image in no" in said[0]
    before = source.signature(tmp_path / "memo")
    write(root / "val.txt", "images/d.png\n")
    assert open_source(root).signature(tmp_path / "memo") != before
    write(root / "val.txt", "images/a.png\n")
    with pytest.raises(DataError, match=r"a\.png is in train and in validation|1 image in two of these lists"):
        _ = open_source(root).splits


def test_folders_of_yolo_that_data_yaml_names(tmp_path):
    root = write_yolo(tmp_path / "d", "train: ../images/first\nval: [images/second]", "first", "second", "third")
    assert open_source(root).splits == {"train": 4, "validation": 4}
    alike = write_yolo(tmp_path / "e", "train: images\nval: images")
    assert open_source(alike).splits == {"train": 4}, "it says nothing"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"meta.json": {"classes": [{"title": "car", "shape": "polygon"}]}, "ds/ann/a.json": {}}, "Supervisely"),
        ({"default.json": {"info": {}, "categories": {}, "items": []}}, "Datumaro"),
        ({"via.json": {"project": {"data_format_version": "3.1.1"}}}, "VIA 3"),
        ({"a.xml": "<annotation><object><bndbox></bndbox></object></annotation>"}, "boxes of Pascal VOC"),
        ({"panoptic.json": {"annotations": [{"segments_info": []}]}}, "panoptic COCO"),
        ({"a.geojson": [{"type": "Feature"}]}, "without a FeatureCollection"),
        ({"l.shp": "x"}, "a shapefile, .* ogr2ogr"),
        ({"imagesTr/a.nii.gz": "x", "labelsTr/a.nii.gz": "x"}, "Write each slice as TIFF .* nibabel"),
        ({"images/a.dcm": "x", "masks/a.dcm": "x"}, "Write each slice as TIFF .* pydicom"),
        ({"a.czi": "x"}, "a.czi, a format that is not read. Convert it to TIFF or PNG"),
    ],
)
def test_what_is_not_read_is_named_with_the_way_out(tmp_path, files, words):
    pictures(tmp_path / "d", "pictures/a.png")
    for name, content in files.items():
        write(tmp_path / "d" / name, content)
    with pytest.raises(DataError, match=words):
        _ = open_source(tmp_path / "d").splits


def test_rasters_in_a_folder_that_looks_like_a_split(tmp_path):
    feature = {"type": "Feature", "properties": {"class": "car"}, "geometry": {"type": "Polygon", "coordinates": []}}
    features = []
    for number, folder in enumerate(("train", "val", "test_hard")):
        place = 1000.0 * number
        (tmp_path / folder).mkdir()
        tags = [(33550, "d", 3, (1.0, 1.0, 0.0)), (33922, "d", 6, (0.0, 0.0, 0.0, place, 6.0, 0.0))]
        tifffile.imwrite(tmp_path / folder / "a.tif", random_pair(number)[0], photometric="rgb", extratags=tags)
        ring = [[place + x, 6.0 - y] for x, y in SQUARE]
        features.append(feature | {"geometry": {"type": "Polygon", "coordinates": [ring]}})
    write(tmp_path / "l.geojson", {"type": "FeatureCollection", "features": features})
    with pytest.raises(DataError, match="test_hard beside train, val is not a known split"):
        _ = open_source(tmp_path).splits
    (tmp_path / "test_hard").rename(tmp_path / "test")
    assert open_source(tmp_path).splits == {"train": 1, "validation": 1, "test": 1}


def test_a_picture_in_a_folder_of_another_split_is_not_taken_for_its_namesake(tmp_path):
    """The training pictures are missing, and those of validation have the same names."""
    root = pictures(tmp_path / "d", "val/a.png", "val/b.png", "val/c.png")
    for split in ("train", "val"):
        write(root / f"annotations/instances_{split}.json", coco("123"))
    with pytest.raises(DataError, match=r"val/a\.png: two entries mean this picture"):
        _ = open_source(root).splits
    for split, files in (("train", "ab"), ("val", "c")):
        write(root / f"annotations/instances_{split}.json", coco("123"[: len(files)], files))
    assert open_source(root).splits == {"train": 2, "validation": 1}, "parts of one folder"


@pytest.mark.parametrize("kind", ["coco", "labelme"])
def test_lists_beside_an_export_of_one_split_are_heeded(tmp_path, kind):
    root = pictures(tmp_path / "d", *(f"{name}.png" for name in "abcd"))
    if kind == "coco":
        write(root / "a.json", coco("1234", "abcd"))
    else:
        write_labelme(root)
        write(root / "d.json", (root / "c.json").read_text().replace("c.png", "d.png"))
    write(root / "train.txt", "a.png\nb\n")
    write(root / "val.txt", "c\n")
    said: list[str] = []
    source = open_source(root, say=said.append)
    assert source.splits == {"train": 2, "validation": 1}
    assert "splits from train.txt, val.txt; 1 image in none of them, left out" in said[0]
    write(root / "val.txt", "b\nc\n")
    with pytest.raises(DataError, match="1 image in two of these lists"):
        _ = open_source(root).splits
    if kind == "coco":
        assert open_source(root / "a.json").splits == {"train": 4}, "one file was named"
        (root / "a.json").rename(root / "instances_test.json")
        assert open_source(root).splits == {"test": 4}, "its name tells the split"


def test_names_as_a_mac_and_as_an_address_spells_them(tmp_path):
    write(pictures(tmp_path / "d", "a.png", "b.png", "e\u0301.png") / "a.json", coco("123", "ab\u00e9"))
    assert open_source(tmp_path / "d").splits == {"train": 3}
    assert name_in_address("/data/local-files/?d=x%2Fa%26b%3F.png") == "x/a&b?.png"
    assert name_in_address("s3://bucket/x/a%20b.png?sig=1") == "x/a b.png"


def test_labelme_lists_labels_from_minus_one(tmp_path):
    write(tmp_path / "labels.txt", "__ignore__\n_background_\ncar\n")
    assert read_id_names(tmp_path / "labels.txt") == {0: "_background_", 1: "car"}


def write_qupath(root: Path, classification: object, *, as_list: bool = False) -> Path:
    pictures(root)
    ring = [[1, 1], [4, 1], [4, 3], [1, 3], [1, 1]]
    properties = {"objectType": "annotation"} | ({"classification": classification} if classification else {})
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties}
    for name in "abc":
        found = [feature] if as_list else {"type": "FeatureCollection", "features": [feature]}
        write(root / f"{name}.geojson", found)
    return root


@pytest.mark.parametrize(
    ("classification", "name"),
    [
        ({"name": "Tumor", "color": [200, 0, 0]}, "Tumor"),
        ({"names": ["Tumor", "CD8"]}, "Tumor: CD8"),
        ("Tumor", "Tumor"),
    ],
)
def test_annotations_of_qupath(tmp_path, classification, name):
    root = write_qupath(tmp_path / "d", classification, as_list=name != "Tumor")
    cache = open_data(root)
    assert cache.class_names == ["background", name]
    assert (labels(cache)["b"] == DRAWN).all()


def test_annotations_of_qupath_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match=r"an object has no class\. Set its class in QuPath"):
        _ = open_source(write_qupath(tmp_path / "d", None)).splits
    root = write_qupath(tmp_path / "e", {"name": "Tumor"})
    (root / "b.png").unlink()
    with pytest.raises(DataError, match=r"b\.geojson: 0 pictures below the folder for it"):
        _ = open_source(root).splits


def test_predictions_as_geojson_read_back_as_they_were(tmp_path):
    pytest.importorskip("rasterio")
    root = pictures(tmp_path / "d")
    drawn = {name: random_pair(seed, num_classes=3)[1] for seed, name in enumerate("abc")}
    for name, ids in drawn.items():
        write_regions(root / f"{name}.geojson", ids, ["background", "a", "b"], np.zeros((3, 3), np.uint8))
    found = labels(open_data(root))
    assert all((found[name] == ids).all() for name, ids in drawn.items())


def test_a_table_of_colours_is_no_table_of_paths(tmp_path):
    pictures(tmp_path, "pictures/a.png")
    write(tmp_path / "class_dict.csv", "name,r,g,b\nurban,0,255,255\n")
    with pytest.raises(DataError, match="which is no data set"):
        open_source(tmp_path)
