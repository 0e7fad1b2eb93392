"""Each meaning of `data_path` gives its pairs, and a word that fits none gets an answer with all that were tried."""

import os
import shutil

import pytest

from tests.data.pictures import REAL_DATA, png, random_pair, write_folder, write_names, write_parquet
from unet_dist.data.sources import fingerprint
from unet_dist.data.sources.fingerprint import digest_files
from unet_dist.data.sources.registry import open_source
from unet_dist.errors import ConfigError, DataError

PAIRS = [tuple(png(part) for part in random_pair(seed)) for seed in range(5)]


def test_a_folder_of_images_and_masks(tmp_path):
    write_folder(tmp_path / "streets", num_pairs=4)
    write_names(tmp_path / "streets", ["road", "sky", "tree"])
    source = open_source(tmp_path / "streets")
    assert source.name == "streets"
    assert source.splits == {"train": 4}
    assert source.read_id_names() == {0: "road", 1: "sky", 2: "tree"}
    pair = source.read_pair("train", 1)
    assert (pair.id, pair.image_name, pair.mask_name) == ("sample001", "images/sample001.png", "masks/sample001.png")


def test_folders_of_splits_under_any_of_their_names(tmp_path):
    source = open_source(write_folder(tmp_path, {"test": 1, "val": 2, "train": 3}))
    assert source.splits == {"train": 3, "validation": 2, "test": 1}
    assert source.read_pair("validation", 1).image_name == "images/val/sample001.png"
    assert source.read_pair("validation", 1).id == "sample001"


def test_nested_folders_are_part_of_the_name(tmp_path):
    write_folder(tmp_path, {"bern": 1, "basel": 1})
    source = open_source(tmp_path)
    assert source.splits == {"train": 2}
    assert [source.read_pair("train", i).id for i in range(2)] == ["basel-sample000", "bern-sample000"]


def test_files_without_a_partner_are_named(tmp_path):
    write_folder(tmp_path, num_pairs=4)
    (tmp_path / "masks" / "sample002.png").unlink()
    (tmp_path / "images" / "sample003.png").unlink()
    (tmp_path / "images" / "notes.txt").write_text("no image")
    with pytest.raises(DataError) as caught:
        _ = open_source(tmp_path).splits
    assert str(caught.value) == (
        f"{tmp_path}: images and masks do not match.\n"
        f"  images without a mask: {tmp_path}/images/sample002.png\n"
        f"  masks without an image: {tmp_path}/masks/sample003.png\n"
        "An image and its mask have the same name but for the extension. Rename, add or remove files; or list "
        "the pairs in a table, --data_path list.csv with the columns image and mask."
    )


def test_files_without_a_partner_are_told_by_the_pattern_of_their_names(tmp_path):
    image, mask = random_pair(0)
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(image))
        (tmp_path / f"{number}_mask.png").write_bytes(png(mask))
    (tmp_path / "1_mask.png").unlink()
    with pytest.raises(DataError) as caught:
        _ = open_source(tmp_path).splits
    assert str(caught.value) == (
        f"{tmp_path}: images and masks do not match.\n"
        f"  images without a mask: {tmp_path}/1.png\n"
        "The image * has the mask *_mask, where * is the same in both. Rename, add or remove files; or list "
        "the pairs in a table, --data_path list.csv with the columns image and mask."
    )


def test_two_files_of_one_name_are_refused(tmp_path):
    write_folder(tmp_path, num_pairs=2)
    shutil.copy(tmp_path / "images" / "sample001.png", tmp_path / "images" / "sample001.bmp")
    with pytest.raises(DataError, match=r"sample001\.bmp beside it has the same name\. Keep one"):
        _ = open_source(tmp_path).splits


def test_images_beside_folders_of_splits_are_refused(tmp_path):
    write_folder(tmp_path, {"train": 1, "val": 1})
    shutil.copy(tmp_path / "images" / "val" / "sample000.png", tmp_path / "images" / "loose.png")
    with pytest.raises(DataError, match=r"folders of splits \(train, val\) and 1 image beside them, such as loose.png"):
        _ = open_source(tmp_path).splits


def test_a_local_directory_with_parquet(tmp_path):
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", PAIRS[:3])
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", PAIRS[3:])
    source = open_source(tmp_path)
    assert source.splits == {"train": 3, "test": 2}
    pair = source.read_pair("test", 1)
    assert (pair.image, pair.mask) == PAIRS[4]
    assert pair.id == "01"
    assert pair.image_name == "01.png (test, row 1)"
    assert source.read_id_names() is None


def test_a_directory_saved_by_datasets(tmp_path):
    import datasets

    write_parquet(tmp_path / "parquet" / "train.parquet", PAIRS)
    table = datasets.load_dataset(str(tmp_path / "parquet"), cache_dir=str(tmp_path / "cache"))
    table.save_to_disk(tmp_path / "saved")
    table["train"].save_to_disk(tmp_path / "one")
    for name in ("saved", "one"):
        source = open_source(tmp_path / name)
        assert source.splits == {"train": 5}
        assert (source.read_pair("train", 2).image, source.read_pair("train", 2).mask) == PAIRS[2]


def test_other_columns_are_listed_and_can_be_named(tmp_path):
    write_parquet(tmp_path / "train.parquet", PAIRS, columns=("image", "annotation"))
    with pytest.raises(DataError) as caught:
        _ = open_source(tmp_path).splits
    assert 'it has no column "pixel_values". Its columns: image (Image), annotation (Image).' in str(caught.value)
    source = open_source(tmp_path, image_column="image", label_column="annotation")
    assert source.read_pair("train", 4).mask == PAIRS[4][1]


def test_what_does_not_exist_is_answered_with_what_was_tried(tmp_path):
    (tmp_path / "camvid").mkdir()
    with pytest.raises(DataError) as caught:
        open_source(tmp_path / "camvit")
    assert str(caught.value) == (
        f'data_path: there is no {tmp_path}/camvit. Did you mean "camvid"? Expected a hub id (owner/name), a data-set '
        "directory with parquet or arrow files, a folder with images/ and masks/, a table of paths (.csv, .jsonl, "
        ".parquet), files of COCO, CVAT, VIA, Label Studio, Segments.ai, YOLO or Labelme, "
        'GeoTIFFs with GeoJSON or a GeoPackage, "synthetic", or an import path such as my_package.data:cells.'
    )
    with pytest.raises(DataError, match=rf"there is no {tmp_path}/a/b/c\. The path exists up to {tmp_path}\."):
        open_source(tmp_path / "a" / "b" / "c")
    for found, remedy in (
        ("It is empty.", "Name another folder."),
        ("It holds notes.txt.", "Say where they lie: --images_folder, --masks_folder."),
    ):
        with pytest.raises(DataError) as caught:
            open_source(tmp_path / "camvid")
        assert str(caught.value) == (
            f"data_path: got {tmp_path}/camvid, which is no data set. {found} Expected images/ and masks/, or an export such as "
            f"COCO, YOLO or Labelme. {remedy}"
        )
        (tmp_path / "camvid/notes.txt").write_text("a")


def test_a_folder_of_data_sets_names_them(tmp_path):
    for name in ("one", "two"):
        write_parquet(tmp_path / name / "data" / "train.parquet", PAIRS)
        write_names(tmp_path / name, ["a"])
    with pytest.raises(DataError, match=rf"is not a data set but holds 2: {tmp_path}/one, {tmp_path}/two\. Name one\."):
        open_source(tmp_path)


def test_signature_follows_the_content_and_nothing_else(tmp_path):
    one, two = write_folder(tmp_path / "one"), write_folder(tmp_path / "two")
    memo = tmp_path / "memo"
    first = open_source(one).signature(memo)
    assert open_source(two).signature(memo) == first
    assert open_source(one).signature(memo) == first
    (one / "images" / "sample000.png").write_bytes(PAIRS[1][0])
    assert open_source(one).signature(memo) != first
    write_names(two, ["a", "b", "c"])
    assert open_source(two).signature(memo) != first


def test_an_unchanged_file_is_not_read_again(tmp_path, monkeypatch):
    """Reads are counted; a file replaced by one of the same size and times is read, as the kernel's time differs."""
    monkeypatch.setattr(fingerprint, "_SETTLED_NS", -(10**12))  # files this young are remembered, too
    read = []
    digest = fingerprint._digest_file
    monkeypatch.setattr(fingerprint, "_digest_file", lambda path: read.append(path.name) or digest(path))
    path = tmp_path / "data" / "big.bin"
    path.parent.mkdir()
    path.write_bytes(b"12345678")
    os.utime(path, ns=(10**18, 10**18))
    first = digest_files(path.parent, [path], tmp_path / "memo")
    assert digest_files(path.parent, [path], tmp_path / "memo") == first
    assert read == ["big.bin"]
    (memo,) = (tmp_path / "memo" / "digests").iterdir()
    memo.write_text("damaged")
    assert digest_files(path.parent, [path], tmp_path / "memo") == first
    assert len(read) == 2
    path.write_bytes(b"87654321")
    os.utime(path, ns=(10**18, 10**18))
    assert digest_files(path.parent, [path], tmp_path / "memo") != first
    assert len(read) == 3


def test_a_file_changed_twice_within_a_tick_is_noticed(tmp_path):
    path = tmp_path / "young.bin"
    path.write_bytes(b"12345678")
    stamp = path.stat()
    first = digest_files(tmp_path, [path], tmp_path / "memo")
    path.write_bytes(b"87654321")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert digest_files(tmp_path, [path], tmp_path / "memo") != first


def test_synthetic_scenes_are_a_source_like_any_other(tmp_path):
    source = open_source("synthetic", synthetic_images=4, synthetic_size=(24, 40), synthetic_seed=1)
    assert source.splits == {"train": 4}
    assert source.fixed_shape == (24, 40, 3)
    names = source.read_id_names()
    assert names is not None
    assert (len(names), names[25]) == (35, "object-pole")
    pair, other = source.read_pair("train", 2), source.read_pair("train", 3)
    assert (pair.id, pair.image.shape, pair.mask.shape) == ("scene-00002", (24, 40, 3), (24, 40))
    assert (pair.image != other.image).any()
    again = open_source("synthetic", synthetic_images=4, synthetic_size=(24, 40), synthetic_seed=1)
    assert (again.read_pair("train", 2).image == pair.image).all()
    assert again.signature(tmp_path) == source.signature(tmp_path)
    other_seed = open_source("synthetic", synthetic_images=4, synthetic_size=(24, 40), synthetic_seed=2)
    assert other_seed.signature(tmp_path) != source.signature(tmp_path)
    with pytest.raises(ConfigError, match=r"data_path synthetic: .*Correct synthetic_images or synthetic_size"):
        open_source("synthetic", synthetic_size=(1, 1))


@pytest.mark.skipif(not (REAL_DATA / "camvid").is_dir(), reason="needs camvid beside the checkout")
def test_camvid():
    source = open_source(REAL_DATA / "camvid")
    assert source.splits == {"train": 367, "validation": 101}
    names = source.read_id_names()
    assert names is not None
    assert (len(names), names[11]) == (12, "void")
    assert source.read_pair("train", 0).id == "0001TP_006690"
