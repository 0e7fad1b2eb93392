"""Folders of pictures are read as they lie, or refused by name: splits, lists, layouts, links; no copy counts as data."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.data.pictures import png, random_pair, write_folder
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.sources.names import find_id_names
from unet_dist.data.sources.registry import open_source
from unet_dist.data.sources.splits import canonical_split, looks_like_split
from unet_dist.errors import DataError


def write(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(random_pair(seed)[0]))
    return root


def ids(root: Path, **layout: str) -> dict[str, list[str]]:
    source = open_source(root, layout=layout)
    return {split: [source.read_pair(split, i).id for i in range(size)] for split, size in source.splits.items()}


@pytest.mark.parametrize("odd", ["train_extra", "testA", "trainval", "val-mini", "background"])
def test_folders_beside_splits_that_are_none_are_refused_by_name(tmp_path, odd):
    write_folder(tmp_path, {"train": 2, "val": 2, odd: 2})
    with pytest.raises(DataError, match=rf"images: {odd} beside train, val is not a known split"):
        _ = open_source(tmp_path).splits


def test_what_only_looks_like_splits_is_refused(tmp_path):
    write_folder(tmp_path / "a", {"train_a": 2, "val_a": 2})
    with pytest.raises(DataError, match="images: train_a, val_a is not a known split"):
        _ = open_source(tmp_path / "a").splits
    write_folder(tmp_path / "b", {"site1/train": 2, "site1/val": 2})
    with pytest.raises(DataError, match="looks like a split, inside a folder that is none"):
        _ = open_source(tmp_path / "b").splits


def test_names_of_coco_are_splits(tmp_path):
    write_folder(tmp_path, {"train2017": 3, "val2017": 2, "test2017": 1})
    assert open_source(tmp_path).splits == {"train": 3, "validation": 2, "test": 1}
    assert canonical_split("VAL2014") == "validation"
    assert not any(map(looks_like_split, ("basel", "valley", "trainstation", "latest", "contest", "evaluation")))


def test_lists_say_the_splits_and_change_the_signature(tmp_path):
    write_folder(tmp_path / "d", num_pairs=6)
    before = open_source(tmp_path / "d").signature(tmp_path)
    (tmp_path / "d/train.txt").write_text(
        "sample000\nimages/sample001.png\n\nimages/sample002.png masks/sample002.png\n"
    )
    (tmp_path / "d/val.txt").write_text("sample004\r\n")
    assert ids(tmp_path / "d") == {"train": ["sample000", "sample001", "sample002"], "validation": ["sample004"]}
    first = open_source(tmp_path / "d").signature(tmp_path)
    (tmp_path / "d/train.txt").write_text("sample000\n")
    (tmp_path / "d/val.txt").write_text("sample001\nsample002\nsample004\n")
    assert len({before, first, open_source(tmp_path / "d").signature(tmp_path)}) == 3


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [
        ({"train": "sample000", "val": "sample000"}, "sample000 is in .*train.txt, too"),
        ({"train": "sample999"}, 'train.txt, line 1: there is no image "sample999"'),
        ({"train": ""}, "train.txt: this list of a split is empty"),
        ({"train": "sample000", "train_extra": "sample001"}, "train_extra.txt: this list looks like one of a split"),
    ],
)
def test_lists_that_contradict_are_refused(tmp_path, lists, sentence):
    write_folder(tmp_path, num_pairs=3)
    for name, text in lists.items():
        (tmp_path / f"{name}.txt").write_text(text)
    with pytest.raises(DataError, match=sentence):
        _ = open_source(tmp_path).splits


@pytest.mark.parametrize(
    "lists",
    [
        {"ImageSets/Main/train.txt": "sample000\nsample002\n", "ImageSets/Main/val.txt": "sample001\n"},
        {
            "train_list.txt": "# mine\nsample000\nsample002.png\n",
            "val_list.txt": "images/sample001.png masks/sample001.png",
        },
        {"Split/trainlist.txt": "sample000\nsample002\n", "Split/vallist.txt": "sample001\n"},
        {"images/train.lst": "sample000\nsample002\n", "images/val.lst": "sample001\n"},
        {
            "train.csv": "image,mask\nimages/sample000.png,masks/sample000.png\nsample002,\n",
            "valid.csv": "id\nsample001\n",
        },
        {"splits.json": json.dumps({"train": ["sample000", "sample002"], "val": ["sample001"]})},
        {"train.csv": "image;mask\nsample000.png;sample000.png\nsample002;\n", "val.csv": "image;mask\nsample001;x\n"},
    ],
)
def test_lists_of_other_names_and_places_are_read(tmp_path, lists):
    write_folder(tmp_path, num_pairs=4)
    for name, text in lists.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert ids(tmp_path) == {"train": ["sample000", "sample002"], "validation": ["sample001"]}


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [
        ({"train.txt": "images/sample000.png masks/sample001.png"}, "line 1: it pairs .* with the mask of sample001"),
        ({"train.txt": "sample000", "train_list.txt": "sample001"}, "two lists are of the split train"),
        ({"splits.json": '[{"train": ["sample000"]}]'}, 'splits.json: .*Expected {"train": '),
        ({"split.json": '{"train": ["sample000"], "extra": []}'}, "the splits of this file are train, extra"),
        ({"train.txt": "sample000\n" + "y" * 5000}, 'line 2: there is no image "yyy'),
        ({"train.csv": '"' + "y" * 200_000}, "train.csv: this list cannot be read"),
    ],
)
def test_lists_that_would_be_read_wrongly_are_refused(tmp_path, lists, sentence):
    write_folder(tmp_path, num_pairs=3)
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=sentence):
        _ = open_source(tmp_path).splits


def test_lists_of_windows_and_of_macs_are_read(tmp_path):
    """PowerShell writes UTF-16, a Mac spells accents as marks of their own."""
    write(tmp_path, "images/\u00e9.png", "masks/\u00e9.png", "images/b.png", "masks/b.png")
    (tmp_path / "train.txt").write_bytes("images\\e\u0301.png\r\n".encode("utf-16"))
    (tmp_path / "val.txt").write_text("b")
    assert ids(tmp_path) == {"train": ["\u00e9"], "validation": ["b"]}


def test_abbreviated_splits_are_refused(tmp_path):
    for number, names in enumerate((("trn", "x"), ("tr", "ts"))):
        write_folder(tmp_path / str(number), dict.fromkeys(names, 2))
        with pytest.raises(DataError, match=f"images: {names[0]}.* is not a known split"):
            _ = open_source(tmp_path / str(number)).splits
    write_folder(tmp_path / "countries", {"tr": 2, "de": 2})
    assert open_source(tmp_path / "countries").splits == {"train": 4}


def test_a_list_that_moves_a_sample_out_of_its_folder_is_refused(tmp_path):
    write_folder(tmp_path, {"train": 2, "val": 1})
    (tmp_path / "train.txt").write_text("val/sample000")
    with pytest.raises(DataError, match=r"train.txt: validation/sample000 is in .*images/val, too"):
        _ = open_source(tmp_path).splits


def test_hidden_folders_are_no_data(tmp_path):
    write_folder(tmp_path, num_pairs=3)
    for kind in ("images", "masks"):
        for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX", "#recycle"):
            (tmp_path / kind / name).mkdir()
            shutil.copy(tmp_path / kind / "sample000.png", tmp_path / kind / name / "copy.png")
        shutil.copy(tmp_path / kind / "sample000.png", tmp_path / kind / "._sample000.png")
    assert open_source(tmp_path).splits == {"train": 3}


def test_links_that_loop_or_lead_nowhere_are_named(tmp_path):
    write_folder(tmp_path, num_pairs=3)
    (tmp_path / "images/loop").symlink_to("..")
    with pytest.raises(DataError, match="a second time, so that its pictures would count twice"):
        _ = open_source(tmp_path).splits
    (tmp_path / "images/loop").unlink()
    (tmp_path / "images/sample001.png").unlink()
    (tmp_path / "images/sample001.png").symlink_to("../annex/none")
    with pytest.raises(DataError, match=r"1 broken link: .*sample001.png -> \.\./annex/none\. Fetch the contents"):
        _ = open_source(tmp_path).splits


def test_copies_in_two_splits_are_named(tmp_path):
    write_folder(tmp_path / "d", {"train": 3, "test": 2, "val": 1})
    said: list[str] = []
    for again in ("first", "copied"):
        source = open_source(tmp_path / "d")
        prepare(source, CacheSettings(), seed=0, cache_path=tmp_path / "cache", say=said.append)
        assert bool(said) == (again == "copied")
        shutil.copy(tmp_path / "d/images/train/sample001.png", tmp_path / "d/images/test/sample000.png")
    assert "1 picture of one split is in another, pixel by pixel: train sample001 = test sample000" in said[0]


def test_rows_without_a_mask_are_named(tmp_path):
    import datasets

    rows = [random_pair(seed) for seed in range(3)]
    features = datasets.Features({"pixel_values": datasets.Image(), "label": datasets.Image()})
    columns = {"pixel_values": [image for image, _ in rows], "label": [rows[0][1], rows[1][1], None]}
    (tmp_path / "d").mkdir()
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(tmp_path / "d/train.parquet"))
    with pytest.raises(DataError, match=r"1 of 3 pairs cannot be used.\n  train, row 2 has no mask\nLabel it"):
        prepare(open_source(tmp_path / "d"), CacheSettings(), seed=0, cache_path=tmp_path / "cache")


@pytest.mark.parametrize(
    ("files", "keys", "expected"),
    [
        (["images/a.jpg", "masks/a_mask.png"], "--mask_names '*_mask'", {"train": ["a"]}),
        (
            ["images/img_1.png", "images/img_2.png", "masks/mask_1.png", "masks/mask_2.png"],
            "'mask_*'",
            {"train": ["1", "2"]},
        ),
        (["images/a.png", "images/b.png", "masks/mask_a.png", "masks/mask_b.png"], "'mask_*'", {"train": ["a", "b"]}),
        (["JPEGImages/a.jpg", "SegmentationClass/a.png"], "SegmentationClass", {"train": ["a"]}),
        (["images/training/a.jpg", "annotations/training/a.png"], "annotations", {"train": ["a"]}),
        (["images/a.jpg", "labels/a.png"], "labels", {"train": ["a"]}),
        (["img_dir/val/a.jpg", "ann_dir/val/a.png"], "ann_dir", {"validation": ["a"]}),
        (["test/images/a.jpg", "test/masks/a.png"], "{split}/masks", {"test": ["a"]}),
        (["a.jpg", "a_mask.png"], "--masks_folder '.' --mask_names '*_mask'", {"train": ["a"]}),
        (
            ["a_sat.jpg", "a_mask.png", "b_sat.jpg", "b_mask.png"],
            "'*_sat' --mask_names '*_mask'",
            {"train": ["a", "b"]},
        ),
        (
            ["train_images/a.png", "train_masks/a.png", "val_images/b.png", "val_masks/b.png"],
            "--masks_folder '{split}_masks'",
            {"train": ["a"], "validation": ["b"]},
        ),
        (["train/a.jpg", "train_masks/a_mask.png"], "'{split}_masks' --mask_names '*_mask'", {"train": ["a"]}),
        (["train/a.png", "trainannot/a.png"], "--masks_folder '{split}annot'", {"train": ["a"]}),
        (["train/a.jpg", "train/a.png"], "--image_names '*.jpg' --mask_names '*.png'", {"train": ["a"]}),
        (  # LoveDA
            [
                f"{split}/{place}/{kind}_png/{place[0]}.png"
                for split in ("Train", "Val")
                for place in ("Urban", "Rural")
                for kind in ("images", "masks")
            ],
            "--images_folder '{split}/*/images_png' --masks_folder '{split}/*/masks_png'",
            {"train": ["Rural-R", "Urban-U"], "validation": ["Rural-R", "Urban-U"]},
        ),
        (  # KITTI
            [
                f"training/{kind}/{i}_10.png"
                for kind in ("image_2", "semantic", "semantic_rgb", "instance")
                for i in (1, 2)
            ],
            "--images_folder '{split}/image_2' --masks_folder '{split}/semantic'",
            {"train": ["1_10", "2_10"]},
        ),
        (  # BDD100K
            [
                "images/10k/train/a.jpg",
                "labels/sem_seg/masks/train/a.png",
                "labels/sem_seg/colormaps/train/a.png",
                "images/10k/val/b.jpg",
                "labels/sem_seg/masks/val/b.png",
                "labels/sem_seg/colormaps/val/b.png",
            ],
            "--images_folder 'images/10k' --masks_folder 'labels/sem_seg/masks'",
            {"train": ["a"], "validation": ["b"]},
        ),
        (["images/a.jpg", "annotations/trimaps/a.png"], "'annotations/trimaps'", {"train": ["a"]}),
        (  # ISIC
            [f"ISIC2018_Task1-2_{split}_Input/x{split}.jpg" for split in ("Training", "Test")]
            + [f"ISIC2018_Task1_{split}_GroundTruth/x{split}_segmentation.png" for split in ("Training", "Test")],
            "--masks_folder 'ISIC2018_Task1_{split}_GroundTruth' --mask_names '*_segmentation'",
            {"train": ["xTraining"], "test": ["xTest"]},
        ),
        (["train/sat/a.tiff", "train/map/a.tif"], "--masks_folder '{split}/map'", {"train": ["a"]}),
        (
            ["leftImg8bit/val/bern/x_1_leftImg8bit.png"]
            + [f"gtFine/val/bern/x_1_gtFine_{kind}.png" for kind in ("color", "instanceIds", "labelIds")],
            "'*_gtFine_labelIds'",
            {"validation": ["bern-x_1"]},
        ),
        (
            [
                f"{split}/images/{i}_{split}.tif"
                for split, i in (("training", 21), ("training", 22), ("test", 1), ("test", 2))
            ]
            + [f"training/1st_manual/{i}_manual1.gif" for i in (21, 22)]
            + [f"test/1st_manual/{i}_manual1.gif" for i in (1, 2)],
            "--image_names '*_{split}' --mask_names '*_manual1'",
            {"train": ["21", "22"], "test": ["1", "2"]},
        ),
        (["a.tif", "a_cp_masks.png", "b.tif", "b_cp_masks.png"], "--mask_names '*_cp_masks'", {"train": ["a", "b"]}),
        (["img_1.png", "mask_1.png", "img_2.png", "mask_2.png"], "--mask_names 'mask_*'", {"train": ["1", "2"]}),
        (
            [f"{split}/p{i}_{kind}.png" for split in ("train", "val") for i in (1, 2) for kind in ("rgb", "gt_labels")],
            "--image_names 'p*_rgb' --mask_names 'p*_gt_labels'",
            {"train": ["1", "2"], "validation": ["1", "2"]},
        ),
    ],
)
def test_layouts_are_guessed_and_said_as_keys(tmp_path, files, keys, expected):
    write(tmp_path, *files)
    said: list[str] = []
    source = open_source(tmp_path, say=said.append)
    assert ids(tmp_path) == expected
    assert source.splits == {split: len(names) for split, names in expected.items()}
    assert len(said) == 1
    assert keys in said[0]
    words = said[0].partition("read as ")[2].split()
    told = {key[2:]: value.strip("'") for key, value in zip(words[::2], words[1::2], strict=True)}
    assert ids(tmp_path, **told) == expected


@pytest.mark.parametrize(
    ("files", "ways"),
    [
        (
            [f"training/{kind}/{i}_training{end}" for i in (21, 22) for kind, end in (("images", ".tif"), ("mask", "_mask.gif"))]
            + ["training/1st_manual/21_manual1.gif", "training/1st_manual/22_manual1.gif"],
            ["'{split}/1st_manual' --image_names '*_training' --mask_names '*_manual1'", "'{split}/mask' --mask_names '*_mask'"],
        ),
        (  # Mapillary Vistas
            [f"training/{kind}/a.png" for kind in ("images", "v1.2/labels", "v2.0/labels", "v2.0/instances", "v2.0/panoptic")],
            ["--images_folder '{split}/images' --masks_folder '{split}/v1.2/labels'", "'{split}/v2.0/labels'"],
        ),
        (["JPEGImages/a.jpg", "SegmentationClass/a.png", "SegmentationClassContext/a.png"], ["'SegmentationClassContext'"]),
        (
            [f"images/{i}.png" for i in range(3)] + [f"masks/{i}_{end}.png" for i in range(3) for end in ("left", "right")],
            ["--mask_names '*_left'", "--mask_names '*_right'"],
        ),
    ],
)  # fmt: skip
def test_several_folders_of_masks_are_a_question_with_the_keys_of_each(tmp_path, files, ways):
    """DRIVE's mask/ is the field of view: it was taken for the vessels."""
    write(tmp_path, *files)
    with pytest.raises(DataError, match="may be read in several ways") as refusal:
        open_source(tmp_path)
    offered = str(refusal.value).partition("Say which: ")[2].rstrip(".").split("; or ")
    assert [sum(way in keys for keys in offered) for way in ways] == [1] * len(ways)
    for keys in offered:
        words = shlex.split(keys)
        assert ids(tmp_path, **{key[2:]: value for key, value in zip(words[::2], words[1::2], strict=True)})


def test_masks_of_single_objects_are_joined(tmp_path):
    """DSB 2018: a folder for each image, with a mask for each nucleus."""
    root = tmp_path / "stage1_train"
    masks = {}
    for name in "ab":
        write(root, f"{name}/images/{name}.png")
        objects = np.zeros((3, 6, 8), np.uint8)
        objects[0, :2], objects[1, 3:4, :2], objects[2, -1:, -1:] = 255, 255, 255
        masks[name] = objects.any(axis=0)
        (root / name / "masks").mkdir()
        for number, mask in enumerate(objects):
            (root / name / f"masks/{name}{number}.png").write_bytes(png(mask))
    keys = {"images_folder": "*/images", "masks_folder": "*/masks"}
    with pytest.raises(
        DataError, match=r"read all of them as one: --images_folder '\*/images' --masks_folder '\*/masks'"
    ):
        open_source(root)
    for source in (open_source(tmp_path), open_source(root, layout=keys)):
        assert source.splits == {"train": 2}
        pair = source.read_pair("train", 1)
        assert pair.id == "b-b"
        assert callable(pair.mask)
        np.testing.assert_array_equal(pair.mask(), masks["b"])
    (root / "a/masks/a9.png").write_bytes(png(np.arange(48, dtype=np.uint8).reshape(6, 8)))
    with pytest.raises(DataError, match=r"mask a/masks has several values in a9.png, one of its 4 files"):
        prepare(open_source(root, layout=keys), CacheSettings(), seed=0, cache_path=tmp_path / "cache")


def test_lists_of_context_and_of_trainval_are_read(tmp_path):
    root = write(tmp_path / "c", "JPEGImages/a.png", "JPEGImages/b.png", "SegmentationClassContext/a.png")
    write(root, "SegmentationClassContext/b.png")
    for name, text in {"ImageSets/Segmentation/train": "z", "ImageSets/SegmentationContext/train": "a",
                       "ImageSets/SegmentationContext/val": "b"}.items():  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.txt").write_text(text)
    assert ids(root) == {"train": ["a"], "validation": ["b"]}
    pets = write(tmp_path / "pets", *(f"images/{name}.png" for name in "abc"))
    write(pets, *(f"annotations/trimaps/{name}.png" for name in "abc"))
    (pets / "annotations/trainval.txt").write_text("a 1 1 1\nb 2 2 1\n")
    (pets / "annotations/test.txt").write_text("c 1 1 1\n")
    assert ids(pets) == {"train": ["a", "b"], "test": ["c"]}


def test_two_possible_layouts_are_a_question(tmp_path):
    write(tmp_path, "images/a.png", "labels/a.png", "annotations/a.png")
    with pytest.raises(DataError, match=r"read in several ways\. Say which: .*'annotations'; or .*'labels'"):
        open_source(tmp_path)
    assert ids(tmp_path, masks_folder="labels") == {"train": ["a"]}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            ["d/images/a.png", "d/masks/a.png", "e/images/a.png", "e/masks/a.png"],
            r"d and .*e look like some\. It holds d/, e/",
        ),
        (
            ["d/images/a.png", "d/masks/a.png", "notes/x.png"],
            r"is not a data set, and .*d looks like one\. .* Name that",
        ),
        (
            ["val/images/a.png", "val/masks/a.png", "test/images/b.png"],
            r"/test/masks: there is no such folder .* or move images",
        ),
        (
            ["images/val/a.png", "masks/val/a.png", "images/test/b.png"],
            r"/masks/test: there is no such folder .* predict labels",
        ),
        (["train_images/a.png", "train_masks/a.png", "train_extra/b.png"], "train_extra, .* is not a known split"),
        (
            ["png/train/a.png", "png/train_labels/a.png", "tiff/train/a.tif", "tiff/train_labels/a.tif"],
            r"png and .*tiff look like some\. .* Name that folder, or merge them",
        ),
        (
            [
                "train/u/images_png/a.png",
                "train/u/masks_png/a.png",
                "train/v/images_png/a.png",
                "train/v/masks_png/a.png",
                "test/u/images_png/b.png",
            ],
            "/test: 1 image and no mask. Put the masks there; or move images",
        ),
    ],
)
def test_what_is_missing_or_meant_is_named(tmp_path, files, sentence):
    write(tmp_path, *files)
    with pytest.raises(DataError, match=sentence):
        _ = open_source(tmp_path).splits


def test_pictures_of_a_format_that_is_not_read_are_named(tmp_path):
    write(tmp_path, *(f"{kind}/{name}.png" for kind in ("images", "masks") for name in "abc"))
    for name in ("images/d.DCM", "images/sub/e.nii.gz", "masks/d.nii", "images/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0")
    said: list[str] = []
    assert open_source(tmp_path, say=said.append).splits == {"train": 3}
    assert said == [
        f"{tmp_path.name}: left out, as their format is not read: d.DCM, e.nii.gz. Convert them to TIFF or PNG."
    ]


def test_the_word_of_a_split_in_names_is_that_of_its_folder(tmp_path):
    write(tmp_path, *(f"{split}/{kind}.png" for split in ("train", "test") for kind in ("images/1_testing", "gt/1_x")))
    write(tmp_path, *(f"{split}/{kind}.png" for split in ("train", "test") for kind in ("images/2_testing", "gt/2_x")))
    names = {"image_names": "*_{split}", "mask_names": "*_x"}
    with pytest.raises(DataError, match="images and masks do not match"):
        ids(tmp_path, images_folder="{split}/images", masks_folder="{split}/gt", **names)


@pytest.mark.parametrize("names", [("img_1", "mask_1", "img_2"), ("a_x", "a_y", "b_x", "b_y")])
def test_half_of_a_pair_and_names_without_a_word_are_not_guessed(tmp_path, names):
    write(tmp_path, *(f"{name}.png" for name in names))
    with pytest.raises(DataError, match="data_path: "):
        _ = open_source(tmp_path).splits


def test_camvid_by_keys(tmp_path):
    write(tmp_path, "train/a.png", "trainannot/a.png", "val/b.png", "valannot/b.png")
    told = {"images_folder": "{split}", "masks_folder": "{split}annot"}
    assert ids(tmp_path, **told) == {"train": ["a"], "validation": ["b"]}


def test_voc_takes_what_its_lists_name(tmp_path):
    root = write(tmp_path / "VOC2012", *(f"JPEGImages/{name}.jpg" for name in "abcd"), "SegmentationClass/a.png")
    write(root, "SegmentationClass/c.png")
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for name, text in {"train": "a\n", "val": "c\n", "trainval": "a\nc\n"}.items():
        (lists / f"{name}.txt").write_text(text)
    assert ids(root) == {"train": ["a"], "validation": ["c"]}
    names = open_source(root).read_id_names()
    assert names is not None
    assert (names[0], names[20]) == ("background", "tvmonitor")


def test_folders_of_zarr_need_no_suffix(tmp_path):
    zarr = pytest.importorskip("zarr")
    for kind, pixels in zip(("images", "masks"), random_pair(0, 40, 40), strict=True):
        for name in ("a", "b.zarr"):
            array = zarr.create_array(store=str(tmp_path / kind / name), shape=pixels.shape, dtype=np.uint8)
            array[...] = pixels
    assert ids(tmp_path) == {"train": ["a", "b"]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("id2label.json", json.dumps({"0": "sky", "1": "road"})),
        ("id2label.json", json.dumps(["sky", "road"])),
        ("label2id.json", json.dumps({"road": 1, "sky": 0})),
        ("classes.json", json.dumps([{"id": 1, "name": "road"}, {"id": 0, "name": "sky"}])),
        ("classes.txt", "sky\nroad\n"),
        ("labels.txt", "0 sky\n1: road\n"),
        ("config.json", '{"model_type": "segformer", "id2label": {"0": "sky", "1": "road"}}'),
        ("data.yaml", "path: .\nnames:\n  0: sky\n  1: road\n"),
        ("categories.json", '{"categories": [{"id": 1, "name": "road"}, {"id": 0, "name": "sky"}]}'),
    ],
)
def test_names_of_classes_in_any_usual_form(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert find_id_names(tmp_path) == (tmp_path / name, {0: "sky", 1: "road"})


def test_settings_without_names_are_no_names(tmp_path):
    (tmp_path / "config.json").write_text('{"learning_rate": 1}')
    (tmp_path / "data.yaml").write_text("train: images/train")
    assert find_id_names(tmp_path) == (None, None)
    (tmp_path / "classes.json").write_text('[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]')
    with pytest.raises(DataError, match="two names have one id"):
        find_id_names(tmp_path)


@pytest.mark.parametrize(
    "text", ['{"sky": 1e999}', '{"sky": 100000000}', '{"sky": "x"}', '[{"id": -1e999, "name": "sky"}]', '{"0": []}']
)
def test_ids_and_names_that_are_none_are_a_sentence(tmp_path, text):
    (tmp_path / "label2id.json").write_text(text)
    with pytest.raises(DataError, match=r"label2id\.json: cannot be read as names of classes"):
        find_id_names(tmp_path)


def test_a_listing_looks_at_each_file_six_times(tmp_path, monkeypatch):
    """As a folder of a million files on a network costs each look; there were thirteen."""
    write_folder(tmp_path, num_pairs=50)
    looks: list[object] = []
    stat = os.stat
    source = open_source(tmp_path)
    monkeypatch.setattr(os, "stat", lambda path, **how: (looks.append(path), stat(path, **how))[1])
    assert source.splits == {"train": 50}
    source.signature(tmp_path.parent / "memo")
    monkeypatch.undo()
    assert len(looks) < 6.5 * 100
