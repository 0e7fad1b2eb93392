"""The cache gives exactly the source's pixels and sums, is made once by however many processes, and refuses bad pairs."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.data.pictures import (
    REAL_DATA,
    palette_png,
    png,
    random_pair,
    write_folder,
    write_names,
    write_parquet,
)
from unet_dist.data.decoded import build
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.cache import Cache, open_cache
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.data.decoded.settings import CacheSettings, cache_folder, locate_cache
from unet_dist.data.decoded.statistics import summarise
from unet_dist.data.sources.fingerprint import digest_files, digest_pixels
from unet_dist.data.sources.registry import open_source
from unet_dist.errors import ConfigError, DataError
from unet_dist.imaging.reader import as_reader
from unet_dist.storage import once


def make(root: Path, tmp_path: Path, *, seed: int = 0, num_threads: int | None = None, **settings) -> Cache:
    return prepare(
        open_source(root), CacheSettings(**settings), seed=seed, cache_path=tmp_path / "cache", num_threads=num_threads
    )


def refusal(root: Path, tmp_path: Path, **settings) -> str:
    """Give the message of the refusal, after which nothing of a cache may be left."""
    with pytest.raises(DataError) as caught:
        make(root, tmp_path, **settings)
    left = [path.name for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock" and path.name != "digests"]
    assert left == []
    return str(caught.value)


def test_every_pixel_and_label_comes_back(tmp_path):
    """Images of different sizes, so that the places in the files matter; more pairs than threads look ahead."""
    expected = {}
    for index in range(30):
        image, label = random_pair(index, height=3 + index % 5, width=4 + index % 7)
        for kind, pixels in (("images", image), ("masks", label)):
            path = tmp_path / "data" / kind / f"{index:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(pixels))
        expected[f"{index:02d}"] = image, label
    cache = make(tmp_path / "data", tmp_path, num_threads=3)
    split = cache.split("all")
    assert (len(cache), split.ids) == (30, sorted(expected))
    for index, name in enumerate(split.ids):
        image, label = expected[name]
        assert split.shape(index) == image.shape
        assert (split.image(index) == image).all()
        assert (split.label(index) == label).all()
        assert not split.image(index).flags.writeable


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_std_and_class_counts_are_those_of_the_training_pixels(tmp_path, channels):
    cache = make(
        write_folder(tmp_path / "data", num_pairs=10, channels=channels), tmp_path, ignore_index=1, num_classes=3
    )
    train = cache.split("train")
    pixels = np.concatenate([train.image(i).reshape(-1, channels) for i in range(len(train))]).astype(np.float64)
    assert cache.channels == channels
    assert cache.mean == pytest.approx(pixels.mean(axis=0).tolist(), abs=1e-9)
    assert cache.std == pytest.approx(pixels.std(axis=0).tolist(), abs=1e-9)
    labels = np.concatenate([train.label(i).ravel() for i in range(len(train))])
    assert train.class_counts.tolist() == [int((labels == c).sum()) for c in range(3)]
    assert train.class_counts[1] == 0
    assert train.num_ignored == int((labels == IGNORED).sum()) > 0


def test_splits_by_seed_share_one_cache(tmp_path):
    root = write_folder(tmp_path / "data", num_pairs=20)
    one, other = make(root, tmp_path, seed=0), make(root, tmp_path, seed=1)
    assert one.path == other.path
    assert {name: len(split) for name, split in one.splits.items()} == {"train": 14, "validation": 2, "test": 4}
    assert one.split("test").ids != other.split("test").ids
    assert sorted(name for split in one.splits for name in one.split(split).ids) == one.ids
    assert one.split("val").ids == one.split("validation").ids


def test_given_splits_stay_and_a_missing_one_is_named(tmp_path):
    cache = make(write_folder(tmp_path / "data", {"train": 3, "val": 2}), tmp_path)
    assert cache.splits == {"train": [0, 1, 2], "validation": [3, 4]}
    with pytest.raises(DataError) as caught:
        cache.split("test")
    assert str(caught.value) == (
        'data: it has no split "test". It has: train (3), validation (2), all (5). Name one of these.'
    )


def test_names_are_unique_within_the_cache(tmp_path):
    cache = make(write_folder(tmp_path / "data", {"train": 3, "val": 2}), tmp_path)
    assert cache.ids == ["sample000", "sample001", "sample002", "sample000~2", "sample001~2"]
    assert cache.split("train").ids == ["sample000", "sample001", "sample002"]
    assert cache.split("val").ids == ["sample000", "sample001"], "of a split as their files are called"
    assert cache.split("all").ids[2:] == ["sample002", "validation-sample000", "validation-sample001"]


def test_a_cache_of_before_names_were_kept_is_read(tmp_path):
    cache = make(write_folder(tmp_path / "data", {"train": 3, "val": 2}), tmp_path)
    index = json.loads((cache.path / "index.json").read_text())
    del index["repeated_names"], index["sha256"]
    (cache.path / "index.json").write_text(json.dumps(index))
    assert Cache(cache.path, seed=0).split("val").ids == ["sample000~2", "sample001~2"]


def test_few_samples_can_still_be_evaluated_as_a_whole(tmp_path):
    cache = make(write_folder(tmp_path / "data", num_pairs=2), tmp_path)
    assert len(cache.split("all")) == 2
    with pytest.raises(DataError, match="at least 3"):
        cache.split("train")


def test_the_number_of_classes_is_given_named_or_found(tmp_path):
    root = write_folder(tmp_path / "data")
    assert make(root, tmp_path).num_classes == 3
    assert make(root, tmp_path).class_names == ["class_0", "class_1", "class_2"]
    assert make(root, tmp_path, num_classes=7).num_classes == 7
    assert make(root, tmp_path, ignore_index=2).num_classes == 2
    write_names(root, ["road", "sky", "tree", "pole"])
    assert make(root, tmp_path).class_names == ["road", "sky", "tree", "pole"]
    with pytest.raises(ConfigError, match=r"num_classes: got 3, and data names 4 classes \(id2label\.json, the"):
        make(root, tmp_path, num_classes=3)


def test_names_with_a_gap_are_refused_but_for_the_ignored_id(tmp_path):
    root = write_folder(tmp_path / "data")
    (root / "id2label.json").write_text(json.dumps({"0": "a", "1": "b", "2": "c", "255": "void"}))
    assert "leaves out 3, 4, 5" in refusal(root, tmp_path)
    assert make(root, tmp_path, ignore_index=255).class_names == ["a", "b", "c"]


def test_a_cache_may_be_pickled_and_forked(tmp_path):
    cache = make(write_folder(tmp_path / "data"), tmp_path, seed=3)
    split = cache.split("train")
    before = split.image(0).copy()
    again = pickle.loads(pickle.dumps(split))
    assert len(pickle.dumps(split)) < 2000
    assert again.ids == split.ids
    assert (again.image(0) == before).all()


def test_settings_and_content_decide_the_place(tmp_path):
    root = write_folder(tmp_path / "data")
    source, folder = open_source(root), tmp_path / "cache"
    places = {
        locate_cache(source, CacheSettings(**settings), folder)
        for settings in ({}, {"num_classes": 4}, {"ignore_index": 1}, {"label_map": {0: 1}}, {"label_map": {0: 2}})
    }
    assert len(places) == 5
    assert locate_cache(source, CacheSettings(label_map={"0": 1}), folder) in places
    assert all(place.name.startswith("data-") for place in places)
    (root / "masks" / "sample000.png").write_bytes(png(random_pair(99)[1]))
    assert locate_cache(open_source(root), CacheSettings(), folder) not in places


def test_open_cache_finds_what_was_prepared_and_says_what_is_missing(tmp_path):
    root = write_folder(tmp_path / "data")
    with pytest.raises(DataError, match=r"the decoded cache of data is not there\. Run `unet-dist prepare`"):
        open_cache(open_source(root), CacheSettings(), seed=0, cache_path=tmp_path / "cache")
    made = make(root, tmp_path)
    found = open_cache(open_source(root), CacheSettings(), seed=0, cache_path=tmp_path / "cache")
    assert found.path == made.path


def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("UNET_DIST_CACHE", str(tmp_path / "told"))
    assert cache_folder() == tmp_path / "told"
    monkeypatch.delenv("UNET_DIST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "unet_dist"
    assert cache_folder(tmp_path) == tmp_path


def test_all_problems_are_counted_and_ten_are_named(tmp_path):
    root = write_folder(tmp_path / "data", num_pairs=20)
    (root / "images" / "sample001.png").write_bytes(b"no image")
    (root / "masks" / "sample002.png").write_bytes(png(random_pair(0, height=5)[1]))
    (root / "masks" / "sample003.png").write_bytes(palette_png(random_pair(0)[1], [(0, 0, 0), (9, 9, 9), (5, 5, 5)]))
    message = refusal(root, tmp_path)
    lines = message.splitlines()
    assert lines[:4] == [
        "data: 3 of 20 pairs cannot be used.",
        '  image images/sample001.png is not an image that can be read: it is text, which begins with "no image"',
        "  image images/sample002.png is 6 x 8 and its mask masks/sample002.png is 5 x 8 (height x width)",
        "  mask masks/sample003.png has a palette and there is no label_map",
    ]
    assert len(lines) == 7  # one remedy each
    message = refusal(root, tmp_path, num_classes=2)
    assert message.startswith("data: 20 of 20 pairs cannot be used.")
    lines = message.splitlines()
    assert "mask masks/sample000.png and 16 others hold id 2 (" in message
    assert len(lines) == 9  # one for each kind of fault, and a remedy each
    assert message.count("Set --num_classes 3") == 1


def test_faults_of_no_kind_are_ten_lines(tmp_path):
    root = write_folder(tmp_path / "data", num_pairs=12)
    for path in (root / "images").iterdir():
        path.write_bytes(b"no image")
    message = refusal(root, tmp_path)
    assert message.count("can be read") == 10
    assert "\n  and 2 more\n" in message


def rewrite_masks(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in sorted((root / "masks").iterdir()):
        path.write_bytes(png(change(np.array(Image.open(path)))))


def test_masks_of_0_and_255_are_one_line_and_the_map(tmp_path):
    root = write_folder(tmp_path / "data", num_classes=2)
    rewrite_masks(root, lambda ids: ids * 255)
    count = sum(int((np.array(Image.open(path)) == 255).sum()) for path in (root / "masks").iterdir())
    assert refusal(root, tmp_path) == (
        "data: 10 of 10 pairs cannot be used.\n"
        f"  mask masks/sample000.png and 9 others hold id 255 ({count} px), outside 0 to 254\n"
        "If 255 is class 1, set --label_map '{0: 0, 255: 1}'; if 255 marks pixels without a label, set --ignore_index 255."
    )


def test_the_remedy_serves_all_masks_of_a_kind(tmp_path):
    """No mask alone holds all the colours, or all the ids."""
    root = write_folder(tmp_path / "data", num_classes=2)
    shades = np.zeros((10, 2, 3), dtype=np.uint8)
    shades[:, 1, 0] = 100 + np.arange(10)
    masks = iter(shades)
    rewrite_masks(root, lambda ids: next(masks)[ids])
    message = refusal(root, tmp_path)
    assert "  mask masks/sample000.png and 9 others are in colours and there is no label_map\n" in message
    assert message.count("--label_map") == 1
    assert all(f'"#{100 + i:02x}0000": ' in message for i in range(10))
    root = write_folder(tmp_path / "ids", num_classes=2)
    offsets = iter(range(300, 310))
    rewrite_masks(root, lambda ids: ids.astype(np.uint16) * next(offsets))
    message = refusal(root, tmp_path)
    assert "  mask masks/sample001.png holds id 301 (" in message, "where the ids differ, each mask has its line"
    assert "302: 3, 303: 4, 304: 5, 305: 6, 306: 7, 307: 8, 308: 9, 309: 10}'." in message
    assert message.endswith("If ids number objects: --label_map '{0: 0, 1-65535: 1}'.")


def test_grey_among_colour_is_refused(tmp_path):
    root = write_folder(tmp_path / "data")
    (root / "images" / "sample004.png").write_bytes(png(random_pair(4, channels=1)[0]))
    assert refusal(root, tmp_path) == (
        "data: 1 of 10 pairs cannot be used.\n"
        "  image images/sample004.png is grey, and 9 others are in colour\n"
        "Write all images as grey, or all as RGB; or set --in_channels 3, which reads grey as colour."
    )


def test_an_empty_split_is_refused(tmp_path):
    write_folder(tmp_path / "data", {"train": 3})
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind / "test").mkdir()
    assert refusal(tmp_path / "data", tmp_path).startswith("data: the split test is empty. Add pairs")


def test_folders_without_a_picture_are_refused(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    assert refusal(tmp_path / "data", tmp_path).startswith("data: got no image and no mask, expected at least one pair")


def test_masks_without_a_single_label_are_refused(tmp_path):
    root = write_folder(tmp_path / "data", num_classes=1)
    assert refusal(root, tmp_path, ignore_index=0) == (
        "data: every pixel is ignored, so that no valid pixel is left to learn from or to measure. "
        "Check ignore_index, label_map and the masks."
    )


def test_a_split_without_a_valid_pixel_is_refused(tmp_path):
    root = write_folder(tmp_path / "data", {"train": 3, "val": 1})
    (root / "masks" / "val" / "sample000.png").write_bytes(png(np.full((6, 8), 255, np.uint8)))
    assert refusal(root, tmp_path, ignore_index=255).startswith("data: every pixel of the split validation is ignored")


def test_ids_with_gaps_are_no_classes_until_somebody_says_so(tmp_path):
    root = write_folder(tmp_path / "data")
    for path in (root / "masks").iterdir():
        path.write_bytes(png(np.asarray(Image.open(path)) * 10 + 200))
    assert "--label_map '{200: 0, 210: 1, 220: 2}'; if the ids between" in refusal(root, tmp_path)
    assert make(root, tmp_path, label_map={200: 0, 210: 1, 220: 2}).num_classes == 3
    assert make(root, tmp_path, num_classes=221).num_classes == 221


def test_a_full_disk_is_a_sentence_before_and_during_the_work(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "data")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    assert "the decoded cache needs 31.9 KiB and 0.0 KiB are free. Free some, or set cache_path" in refusal(
        root, tmp_path
    )
    monkeypatch.undo()

    def write_nothing(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", write_nothing)
    assert "No space left on device. Free some, or set cache_path elsewhere." in refusal(root, tmp_path)


def test_what_a_killed_builder_left_is_removed(tmp_path):
    root = write_folder(tmp_path / "data")
    place = locate_cache(open_source(root), CacheSettings(), tmp_path / "cache")
    mine, old, young = (
        place.parent / f".{place.name}.{name}.partial" for name in (f"{once._host()}.abc", "node7.abc", "node8.abc")
    )
    for left in (mine, old, young):
        left.mkdir(parents=True)
        (left / "images.bin").write_bytes(b"half")
    for path in (old / "images.bin", old):
        os.utime(path, (10**9, 10**9))
    assert make(root, tmp_path).path == place
    assert [left.exists() for left in (mine, old, young)] == [False, False, True]  # node8 may still be at work


def test_a_damaged_cache_is_noticed(tmp_path):
    cache = make(write_folder(tmp_path / "data"), tmp_path)
    (cache.path / "images.bin").write_bytes(b"short")
    with pytest.raises(
        DataError, match=r"images\.bin: 5 bytes, expected 1,440\. The cache is damaged: remove the folder"
    ):
        Cache(cache.path, seed=0).split("all").image(0)
    index = json.loads((cache.path / "index.json").read_text())
    (cache.path / "index.json").write_text(json.dumps({**index, "version": 99}))
    with pytest.raises(DataError, match=f"has format 99 and this program reads {index['version']}"):
        Cache(cache.path, seed=0)


@pytest.mark.parametrize(("key", "value"), [("dtype", None), ("ids", 7), ("splits", {"train": "x"})])
def test_an_index_without_its_seal_is_read_by_a_schema(tmp_path, key, value):
    cache = make(write_folder(tmp_path / "data"), tmp_path)
    index = json.loads((cache.path / "index.json").read_text())
    del index["sha256"]
    changed = {name: one for name, one in index.items() if name != key} | ({} if value is None else {key: value})
    (cache.path / "index.json").write_text(json.dumps(changed))
    with pytest.raises(DataError, match=rf"index\.json.*{key}"):
        Cache(cache.path, seed=0)


@pytest.mark.parametrize("name", ["images.bin", "labels.bin"])
def test_a_byte_that_changed_is_noticed_at_first_use_and_by_a_check_of_all(tmp_path, name):
    cache = make(write_folder(tmp_path / "data"), tmp_path)
    cache.check_all()
    content = bytearray((cache.path / name).read_bytes())
    content[-1] ^= 1  # of the last sample
    (cache.path / name).write_bytes(content)
    again = Cache(cache.path, seed=0)
    again.split("all").image(0)
    for check in (lambda: again.split("all").image(9), again.check_all):
        with pytest.raises(
            DataError, match=rf"{name}: its content of sample009 has changed since it was written.*remove the folder"
        ):
            check()


@pytest.mark.parametrize("name", ["images.bin", "labels.bin", "known.bin"])
def test_a_byte_that_changed_where_some_pixels_have_no_data(tmp_path, name):
    image = Image.new("RGBA", (8, 6), (9, 9, 9, 255))
    image.putpixel((3, 3), (0, 0, 0, 0))
    for number in range(4):
        for kind, picture in (("images", image), ("masks", Image.new("L", (8, 6)))):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / "data" / kind / f"{number}.png")
    cache = make(tmp_path / "data", tmp_path, num_classes=2)
    assert cache.has_nodata
    cache.check_all()
    content = bytearray((cache.path / name).read_bytes())
    content[0] ^= 1
    (cache.path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: its content of 0 has changed since it was written"):
        Cache(cache.path, seed=0).split("all").image(0)


@pytest.mark.parametrize("name", ["images.bin", "labels.bin"])
def test_an_older_cache_is_checked_by_its_sha256(tmp_path, name):
    """Its table has no quick digests."""
    cache = make(write_folder(tmp_path / "data"), tmp_path)
    table = {key: values for key, values in cache.table.items() if not key.endswith("_checks")}
    assert len(table) == len(cache.table) - 2
    cache.table = table
    cache.check_all()
    content = bytearray((cache.path / name).read_bytes())
    content[-1] ^= 1
    (cache.path / name).write_bytes(content)
    again = Cache(cache.path, seed=0)
    again.table = table
    with pytest.raises(DataError, match=rf"{name}: its content of sample009 has changed since it was written"):
        again.check_all()


@pytest.mark.parametrize("max_pixels", [10**6, 40])
def test_images_of_16_bits_are_mapped_by_the_stated_range(tmp_path, max_pixels):
    """Decoded or read by windows alike, and as a prediction with the same value_range reads them."""
    deep = np.random.default_rng(0).integers(0, 4096, (4, 6, 8)).astype(np.uint16)
    for number, pixels in enumerate(deep):
        for kind, values in (("images", pixels), ("masks", pixels > 2000)):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(tmp_path / "data" / kind / f"{number}.tif", values)
    source = open_source(tmp_path / "data")
    settings = CacheSettings(value_range=(0, 4095))
    cache = prepare(source, settings, seed=0, cache_path=tmp_path / "cache", max_pixels=max_pixels)
    assert len(cache.windowed) == (4 if max_pixels == 40 else 0)
    for number, pixels in enumerate(deep):
        with as_reader(cache.split("all").image(number)) as reader:
            np.testing.assert_array_equal(reader.read(0, 6, 0, 8)[..., 0], np.rint(pixels / 4095 * 255))


BUILDER = """
import sys, time
from unet_dist.data.decoded import build
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.sources.registry import open_source

inner = build._Builder.write
def write(self, folder):
    print("builds", flush=True)
    sys.stdin.readline()  # until the test has seen the others wait
    inner(self, folder)
build._Builder.write = write
cache = build.prepare(open_source(sys.argv[1]), CacheSettings(), seed=0, cache_path=sys.argv[2],
                      say=lambda line: print(line, flush=True))
print(cache.path, int(cache.split("all").image(3).sum()), flush=True)
"""


@pytest.mark.processes
def test_two_processes_make_one_cache(tmp_path):
    """The second waits, says so, and finds what the first made."""
    root = write_folder(tmp_path / "data")
    command = [sys.executable, "-c", BUILDER, str(root), str(tmp_path / "cache")]
    processes = []
    try:
        for _ in range(2):
            processes.append(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
            )
            assert processes[-1].stdout is not None
            first_line = processes[-1].stdout.readline()
            assert first_line.startswith("builds" if len(processes) == 1 else "Another process is making the cache")
        ends = [process.communicate("go\n", timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [errors for _, errors in ends] == ["", ""]
    assert ends[0][0] == ends[1][0] != ""  # the same folder and pixels, and no second "builds"


@pytest.mark.processes
def test_a_killed_builder_leaves_no_lock(tmp_path):
    root = write_folder(tmp_path / "data")
    command = [sys.executable, "-c", BUILDER, str(root), str(tmp_path / "cache")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "builds\n"
        process.kill()
    said: list[str] = []
    source = open_source(root)
    prepare(source, CacheSettings(), seed=0, cache_path=tmp_path / "cache", say=said.append)
    assert said == []
    assert not list((tmp_path / "cache").glob(".*.partial"))


def test_without_locks_the_first_whole_cache_stays(tmp_path, monkeypatch):
    """Another builder finishes while this one works, as where a file system has no locks."""
    root = write_folder(tmp_path / "data")
    inner = build._Builder.write

    def write_after_another(builder, folder):
        monkeypatch.setattr(build._Builder, "write", inner)
        make(root, tmp_path)
        inner(builder, folder)

    def refuse_lock(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(once.fcntl, "flock", refuse_lock)
    monkeypatch.setattr(build._Builder, "write", write_after_another)
    cache = make(root, tmp_path)
    assert (cache.split("all").image(0) == random_pair(0)[0]).all()
    assert not list((tmp_path / "cache").glob(".*.partial"))


def test_the_summary_is_the_cache_in_numbers(tmp_path):
    root = write_folder(tmp_path / "data", {"train": 4, "val": 1}, num_classes=2)
    cache = make(root, tmp_path, num_classes=3)
    summary = summarise(cache)
    assert [split.name for split in summary.splits] == ["train", "validation"]
    train = summary.splits[0]
    assert (train.num_images, train.sizes, train.absent_classes) == (4, {(6, 8): 4}, [2])
    assert sum(train.class_counts) == 4 * 6 * 8
    assert sum(train.frequencies) == pytest.approx(1)
    assert summary.num_bytes == sum((cache.path / name).stat().st_size for name in ("images.bin", "labels.bin"))
    stored = json.loads(json.dumps(summary.to_json()))
    assert stored["splits"][0]["sizes"] == {"6x8": 4}
    assert stored["mean"] == cache.mean


def test_progress_reaches_the_end_of_both_passes(tmp_path):
    seen: list[tuple[str, int, int]] = []
    prepare(
        open_source(write_folder(tmp_path / "data")),
        CacheSettings(),
        seed=0,
        cache_path=tmp_path / "cache",
        progress=lambda *step: seen.append(step),
    )
    assert seen == [(phase, done, 10) for phase in ("sizes", "decode") for done in range(1, 11)]


def test_a_table_makes_the_same_cache_as_a_folder(tmp_path):
    root = write_folder(tmp_path / "folder")
    pairs = [
        (path.read_bytes(), (root / "masks" / path.name).read_bytes()) for path in sorted((root / "images").iterdir())
    ]
    write_parquet(tmp_path / "table" / "train.parquet", pairs)
    folder, table = make(root, tmp_path), make(tmp_path / "table", tmp_path)
    assert folder.path != table.path
    for name in ("images.bin", "labels.bin"):
        assert (folder.path / name).read_bytes() == (table.path / name).read_bytes()


@pytest.mark.skipif(not (REAL_DATA / "isbi2012").is_dir(), reason="needs isbi2012 beside the checkout")
def test_isbi2012_is_grey(tmp_path):
    cache = make(REAL_DATA / "isbi2012", tmp_path)
    assert {name: len(split) for name, split in cache.splits.items()} == {"train": 20, "validation": 5}
    assert (cache.num_classes, cache.class_names, cache.channels) == (2, ["membrane", "cell"], 1)
    assert cache.split("train").image(0).shape == (512, 512, 1)
    assert cache.split("train").class_counts.sum() == 20 * 512 * 512


@pytest.mark.skipif(not (REAL_DATA / "camvid").is_dir(), reason="needs camvid beside the checkout")
def test_camvid_ignores_its_void(tmp_path):
    cache = make(REAL_DATA / "camvid", tmp_path, ignore_index=11)
    assert {name: len(split) for name, split in cache.splits.items()} == {"train": 367, "validation": 101}
    assert (cache.num_classes, cache.class_names[11], cache.ignore_index) == (12, "void", 11)
    train = cache.split("train")
    assert train.class_counts[11] == 0
    assert train.num_ignored > 0
    assert train.class_counts.sum() + train.num_ignored == 367 * 360 * 480
    assert set(np.unique(train.label(0))) <= {*range(11), IGNORED}


# ------------------------------------------------------------------------------------------------------------ identity


def test_the_identity_is_of_the_pixels_and_not_of_their_place(tmp_path):
    """Another folder, other names, another file format and another cache: the same pixels are the same data."""
    root = write_folder(tmp_path / "data", {"train": 3, "val": 2, "test": 1})
    identity = make(root, tmp_path).identity
    assert {split: found["images"] for split, found in identity.items()} == {"train": 3, "validation": 2}
    moved = tmp_path / "moved"
    for path in sorted(root.rglob("*.png")):
        target = (moved / path.relative_to(root)).with_name(f"renamed-{path.stem}.bmp")
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            picture.save(target)
    (moved / "README.md").write_text("moved")
    other = make(moved, tmp_path)
    assert other.path != make(root, tmp_path).path
    assert other.identity == identity
    assert make(root, tmp_path, seed=9).identity == identity


@pytest.mark.parametrize(
    ("split", "kind", "changed"),
    [
        ("train", "images", ("train", "pixels")),
        ("train", "masks", ("train", "labels")),
        ("val", "masks", ("validation", "labels")),
        ("test", "masks", None),  # no training reads it
    ],
)
def test_the_identity_tells_one_mirrored_file(tmp_path, split, kind, changed):
    """A mirrored picture has the same values as often: sums and counts would not tell it."""
    root = write_folder(tmp_path / "data", {"train": 3, "val": 2, "test": 1})
    before = make(root, tmp_path).identity
    path = root / kind / split / "sample000.png"
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    path.write_bytes(png(pixels[:, ::-1]))
    after = make(root, tmp_path).identity
    differing = [(name, word) for name, found in before.items() for word in found if found[word] != after[name][word]]
    assert differing == ([changed] if changed else [])


def test_other_labels_by_another_rule_are_other_data(tmp_path):
    root = write_folder(tmp_path / "data")
    plain, ignoring = (make(root, tmp_path, ignore_index=index).identity["train"] for index in (None, 2))
    assert plain["pixels"] == ignoring["pixels"]
    assert plain["labels"] != ignoring["labels"]


def test_the_digest_of_a_picture_wider_than_a_window_covers_all_of_it():
    image = np.zeros((520, 4100, 1), dtype=np.uint8)
    seen = {digest_pixels(image), digest_pixels(image[..., 0]), digest_pixels(image.reshape(4100, 520, 1))}
    for row, col in ((0, 0), (511, 4095), (0, 4099), (519, 0), (519, 4099)):
        image[row, col] = 1
        seen.add(digest_pixels(image))
    assert len(seen) == 8


def test_user_without_a_home_is_told_to_name_a_folder(monkeypatch):
    for key in ("UNET_DIST_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _uid: (_ for _ in ()).throw(KeyError("uid")))
    with pytest.raises(DataError, match=r"^cache_path: got none, .* Set --cache_path DIR\.$"):
        cache_folder()


@pytest.mark.parametrize(
    ("name", "damage", "place"),
    [
        ("samples.npz", lambda content: content[:-40], "samples.npz: it has changed since it was written"),
        ("samples.npz", lambda content: content.replace(b"sums.npy", b"sumz.npy"), "samples.npz: it has changed since"),
        (
            "index.json",
            lambda content: content.replace(b"sample000", b"sample00x"),
            "index.json: it has changed since it was written",
        ),
        ("index.json", lambda content: content[:40], "index.json is damaged"),
        ("index.json", lambda content: b"[]", "index.json: got a list, expected an object"),
    ],
)
def test_a_damaged_table_or_index_is_noticed(tmp_path, name, damage, place):
    """The order of names and of labels stands in them: two that change places would train without a word."""
    cache = make(write_folder(tmp_path / "data"), tmp_path)
    path = cache.path / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"{place}.*[Rr]emove the folder"):
        _ = Cache(cache.path, seed=0).table


def test_a_cache_from_before_the_digests_of_its_table_opens(tmp_path):
    cache = make(write_folder(tmp_path / "data"), tmp_path)
    index = json.loads((cache.path / "index.json").read_text())
    del index["sha256"]
    (cache.path / "index.json").write_text(json.dumps(index))
    assert Cache(cache.path, seed=0).ids == cache.ids


@pytest.mark.timeout(60)
def test_a_pipe_among_the_files_of_a_data_set_is_named(tmp_path):
    """Whoever opens it waits for ever, and in a thread no signal reaches the wait."""
    (tmp_path / "data").mkdir()
    os.mkfifo(tmp_path / "data" / "a.json")
    with pytest.raises(DataError, match=r"a\.json is not a regular file"):
        digest_files(tmp_path / "data", [tmp_path / "data" / "a.json"], tmp_path / "memo")
