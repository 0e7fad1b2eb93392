"""Proves that written pictures carry ids and colours, and that a file is whole or not there."""

import errno
import resource
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from unet_dist.errors import DataError
from unet_dist.imaging.palette import class_palette
from unet_dist.imaging.png import write_png
from unet_dist.imaging.writer import _regions, write_label_map, write_overlay
from unet_dist.storage.files import replacing


@pytest.mark.parametrize("num_classes", [1, 2, 11, 35, 255])
def test_a_label_map_keeps_ids_and_shows_colours_in_8_bits(tmp_path, num_classes):
    labels = np.random.default_rng(0).integers(0, num_classes, (30, 40), dtype=np.uint8)
    labels[0, 0] = 255
    palette = class_palette(num_classes)
    write_label_map(tmp_path / "new" / "a.png", labels, palette)
    picture = Image.open(tmp_path / "new" / "a.png")
    assert picture.mode == "P"
    assert picture.tile[0][3] == "P"  # not P;1, P;2 or P;4
    np.testing.assert_array_equal(np.asarray(picture), labels)
    colours = np.asarray(picture.convert("RGB"))
    assert colours[0, 0].tolist() == [0, 0, 0]
    labels[0, 0] = 0
    np.testing.assert_array_equal(colours.reshape(-1, 3)[1:], palette[labels].reshape(-1, 3)[1:])


def test_more_ids_than_8_bits_hold_are_grey_in_16_bits_and_coloured_in_the_overlay(tmp_path):
    labels = np.array([[0, 255, 256], [299, 300, 65535]], np.uint16).repeat(30, 0).repeat(30, 1)
    palette = class_palette(300)
    write_label_map(tmp_path / "a.png", labels, palette)
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), labels)
    image = np.full((*labels.shape, 3), 100, np.uint8)
    write_overlay(tmp_path / "o.png", image, labels, palette, opacity=1.0)
    shown = np.asarray(Image.open(tmp_path / "o.png"))[15::30, 15::30]
    np.testing.assert_array_equal(shown[0], palette[[0, 255, 256]])
    np.testing.assert_array_equal(shown[1], [palette[299], [100] * 3, [100] * 3])


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 1), np.uint8), ((6, 7), np.uint8), ((3, 5, 3), np.uint8), ((1, 7), np.uint16), ((6, 7), np.uint16)],
)
def test_a_png_holds_its_values(tmp_path, shape, dtype):
    """Read by Pillow, which checks every checksum; by rows and columns that do not lie one after the other, too."""
    whole = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (2 * shape[0], *shape[1:]), dtype, endpoint=True)
    values = whole[::2]
    write_png(tmp_path / "a.png", values)
    with Image.open(tmp_path / "a.png") as picture:
        picture.verify()
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), values)


def test_the_same_labels_give_the_same_bytes(tmp_path):
    labels = np.random.default_rng(0).integers(0, 5, (300, 40), dtype=np.uint8)
    for name in "ab":
        write_label_map(tmp_path / name, labels, class_palette(5))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_an_overlay_tints_by_class_and_draws_borders(tmp_path, channels):
    image = np.full((600, 20, channels), 100, np.uint8)
    labels = np.zeros((600, 20), np.uint8)
    labels[:, 10:] = 1
    labels[300:] = 255
    palette = class_palette(2)
    write_overlay(tmp_path / "o.png", image, labels, palette, opacity=0.25)
    overlay = np.asarray(Image.open(tmp_path / "o.png"))
    assert overlay.shape == (600, 20, 3)
    np.testing.assert_array_equal(overlay[10, 3], np.rint(100 * 0.75 + palette[0] * 0.25))
    np.testing.assert_array_equal(overlay[10, 15], np.rint(100 * 0.75 + palette[1] * 0.25))
    np.testing.assert_array_equal(overlay[10, 9], palette[0])
    np.testing.assert_array_equal(overlay[299, 15], palette[1])  # a border across two bands
    assert (overlay[300:] == 100).all()  # no class, no tint


def test_an_overlay_leaves_the_background_and_outlines_an_object_on_all_sides(tmp_path):
    image = np.full((60, 60, 3), 100, np.uint8)
    labels = np.zeros((60, 60), np.uint8)
    labels[20:40, 20:40] = 1
    palette = class_palette(2)
    write_overlay(tmp_path / "o.png", image, labels, palette, opacity=0.25, background=0)
    overlay = np.asarray(Image.open(tmp_path / "o.png"))
    assert (overlay[labels == 0] == 100).all()
    for edge in (overlay[20, 20:40], overlay[39, 20:40], overlay[20:40, 20], overlay[20:40, 39]):
        np.testing.assert_array_equal(edge, np.broadcast_to(palette[1], (20, 3)))
    np.testing.assert_array_equal(overlay[30, 30], np.rint(100 * 0.75 + palette[1] * 0.25))


@pytest.mark.parametrize("scale", [1, 9])
def test_speckle_has_no_outline(tmp_path, scale):
    labels = np.zeros((300, 300), np.uint8)
    labels[::6, ::6] = 1  # speckle
    labels[100:130, 100:130] = 2
    labels = labels.repeat(scale, axis=0).repeat(scale, axis=1)
    image = np.full((*labels.shape, 3), 100, np.uint8)
    palette = class_palette(3)
    write_overlay(tmp_path / "o.png", image, labels, palette, opacity=0.25)
    overlay = np.asarray(Image.open(tmp_path / "o.png"))
    full = (overlay == palette[labels]).all(axis=2)
    edge = slice(99 * scale, 131 * scale)
    assert full[edge, edge].sum() >= 3.5 * 30 * scale, "the large region has one"
    full[edge, edge] = False
    assert not full.any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (40, 50)])
@pytest.mark.parametrize("num_classes", [1, 2, 3, 6])
def test_regions_are_those_of_each_class_by_itself(shape, num_classes):
    """Speckle, blobs and a spiral, whose runs meet late; scipy finds the regions class by class."""
    random = np.random.default_rng(num_classes)
    speckle = random.integers(0, num_classes, shape, dtype=np.uint8)
    blobs = np.kron(random.integers(0, num_classes, shape), np.ones((3, 4), int))[: shape[0], : shape[1]].astype(
        np.uint8
    )
    rows, cols = np.indices(shape) - np.array(shape)[:, None, None] / 2
    spiral = (np.floor((np.arctan2(rows, cols) + np.hypot(rows, cols)) / np.pi) % 2).astype(np.uint8)
    for labels in (speckle, blobs, spiral):
        runs, region = _regions(labels)
        found, pairs = region[runs], set()
        for value in np.unique(labels):
            wanted, _ = ndimage.label(labels == value, structure=np.ones((3, 3)))
            pairs |= {(value, a, b) for a, b in zip(found[labels == value], wanted[labels == value], strict=True)}
        assert len(pairs) == len({pair[1] for pair in pairs}) == len({(pair[0], pair[2]) for pair in pairs})


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"old")

    def write_half():
        with replacing(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"old"


def test_a_folder_is_replaced_whole(tmp_path):
    for content in ("one", "two"):
        with replacing(tmp_path / "a.zarr") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    assert [path.name for path in (tmp_path / "a.zarr").iterdir()] == ["two"]


def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path):
    code = (
        "import os, sys, pathlib; from unet_dist.storage.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")]).returncode == -9
    assert not (tmp_path / "a.png").exists()
    write_label_map(tmp_path / "a.png", np.zeros((4, 4), np.uint8), class_palette(1))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_full_disk_is_a_sentence_and_leaves_the_old_file(tmp_path):
    """A limit on the file's size stands in for the disk: the system refuses in the middle of the file."""
    labels = np.random.default_rng(0).integers(0, 255, (500, 500), dtype=np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DataError, match=r"a.png could not be written: File too large. Make room"):
            write_label_map(path, labels, class_palette(255))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"old"


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"could not be written: (File exists|Not a directory)"):
        write_label_map(tmp_path / "file" / "a.png", np.zeros((4, 4), np.uint8), class_palette(1))


def test_no_space_says_to_make_room(tmp_path):
    with pytest.raises(DataError, match=r"No space left on device. Make room"), replacing(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
