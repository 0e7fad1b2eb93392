"""ENVI: every interleave, byte order and type reads as the numbers that were written; the raw file or the header names it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from unet_dist.data.decoded.decode import ImageRules, decode_pair
from unet_dist.data.decoded.labels import LabelRules
from unet_dist.data.decoded.planes import PlaneRules, plane_of
from unet_dist.data.sources.folder import FolderSource
from unet_dist.data.sources.pairs import RawPair
from unet_dist.errors import DataError
from unet_dist.imaging.reader import open_image
from unet_dist.prediction.jobs import find_left_out, find_sources

NUMBERS = [("u1", "<"), ("i2", ">"), ("u2", "<"), ("u2", ">"), ("f4", ">"), ("f8", "<"), ("i4", ">")]
CODES = {"u1": 1, "i2": 2, "i4": 3, "f4": 4, "f8": 5, "u2": 12, "u4": 13}


def write_envi(path: Path, values: np.ndarray, *, interleave: str = "bsq", order: str = "<", more: str = "") -> Path:
    """Write (H, W, C) values as PATH and its header beside; gives the header."""
    axes = {"bsq": (2, 0, 1), "bil": (0, 2, 1), "bip": (0, 1, 2)}[interleave]
    raw = values.transpose(axes).astype(values.dtype.newbyteorder(order))
    path.write_bytes(b"\0" * 7 + raw.tobytes())
    header = path.with_suffix(".hdr")
    header.write_text(
        f"ENVI\ndescription = {{\n  Spectral cube = of a leaf}}\n; comment\n"
        f"samples = {values.shape[1]}\nlines   = {values.shape[0]}\n"
        f"bands = {values.shape[2]}\nheader offset = 7\nfile type = ENVI Standard\ndata type = {CODES[values.dtype.str[1:]]}\n"
        f"interleave = {interleave}\nbyte order = {int(order == '>')}\n{more}"
    )
    return header


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize(("kind", "order"), NUMBERS)
def test_pixels_are_those_that_were_written(tmp_path: Path, interleave: str, kind: str, order: str):
    values = np.random.default_rng(0).integers(0, 200, (5, 7, 3)).astype(kind)
    header = write_envi(tmp_path / "cube.dat", values, interleave=interleave, order=order)
    for name in (header, tmp_path / "cube.dat"):
        with open_image(name) as reader:
            assert reader.shape == (5, 7, 3)
            assert reader.dtype.name == {"u1": "uint8", "i2": "int16", "u2": "uint16"}.get(kind, "float32")
            assert np.array_equal(reader.read(0, 5, 0, 7), values)
            assert np.array_equal(reader.read(1, 4, 2, 3), values[1:4, 2:3])


def test_bands_nodata_and_place_are_the_headers(tmp_path: Path):
    """By name, or by wavelength where bands have no name; UTM as GeoTIFF's keys."""
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    values[0, 1] = -9999
    more = (
        "data ignore value = -9999\nwavelength units = Nanometers\nwavelength = {\n 450.5, 550,\n 650, 850}\n"
        "map info = {UTM, 1.000, 1.000, 500000.0, 4100000.0, 10.0, 20.0, 33, North, WGS-84, units=Meters}\n"
    )
    header = write_envi(tmp_path / "scene.img", values, more=more)
    with open_image(header, bands=["850 nm", 1]) as reader:
        assert np.array_equal(reader.read(1, 2, 0, 3), values[1:, :, [3, 0]])
        known = reader.known(0, 2, 0, 3)
        assert known is not None
        assert known.tolist() == [[True, False, True], [True, True, True]]
        tags = reader.placement.geo_tags
        assert tags[33550] == (10.0, 20.0, 0.0)
        assert tags[33922] == (0.0, 0.0, 0.0, 500000.0, 4100000.0, 0.0)
        assert 32633 in tags[34735]
    names = write_envi(tmp_path / "named.img", values, more="band names = {blue, green, red, near infrared}\n")
    with open_image(names, bands=["near infrared"]) as reader:
        assert reader.read(1, 2, 0, 1).ravel().tolist() == [15]


def test_a_folder_of_headers_is_data_and_a_changed_raw_file_is_other_data(tmp_path: Path):
    """The raw file belongs to its image: it is none of its own, nothing that is left out, and part of what the cache stands for."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for number in range(3):
        values = np.full((6, 6, 2), number, np.uint16)
        write_envi(tmp_path / f"images/s{number}.raw", values)
        write_envi(tmp_path / f"masks/s{number}.raw", np.full((6, 6, 1), number % 2, np.uint8))
    source = FolderSource(tmp_path)
    assert source.splits == {"train": 3} or sum(source.splits.values()) == 3
    before = source.signature(tmp_path / "memo")
    write_envi(tmp_path / "images/s1.raw", np.full((6, 6, 2), 9, np.uint16))
    assert FolderSource(tmp_path).signature(tmp_path / "memo2") != before
    assert [path.name for path in find_sources([str(tmp_path / "images")])] == ["s0.hdr", "s1.hdr", "s2.hdr"]
    assert find_left_out([str(tmp_path / "images")]) == []
    pair = RawPair("s1", tmp_path / "images/s1.hdr", tmp_path / "masks/s1.hdr", "s1.hdr", "s1.hdr")
    decoded = decode_pair(pair, LabelRules(num_classes=2), 10**6, ImageRules())
    assert (decoded.image == 9).all()
    assert (decoded.label == 1).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("interleave = bsq", "interleave = tile"), 'has the interleave "tile". Expected bsq, bil or bip'),
        (("data type = 12", "data type = 6"), "has the data type 6. Expected real numbers"),
        (("lines   = 5", "lines = 500"), "cube.dat holds 217 bytes, and its header needs 21,007"),
        (("lines   = 5\n", ""), "is an ENVI header without lines"),
        (("byte order", "file compression = 1\nbyte order"), "is a compressed ENVI file"),
        (("lines   = 5", "lines = five"), "damaged or truncated ENVI header"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(tmp_path: Path, change: tuple[str, str], says: str):
    header = write_envi(tmp_path / "cube.dat", np.zeros((5, 7, 3), np.uint16))
    header.write_text(header.read_text().replace(*change))
    with pytest.raises(DataError, match=re.escape(says)):
        open_image(header)


def test_a_header_alone_names_what_is_missing(tmp_path: Path):
    header = write_envi(tmp_path / "cube.dat", np.zeros((5, 7, 3), np.uint16))
    (tmp_path / "cube.dat").unlink()
    with pytest.raises(DataError, match=r"is an ENVI header without its raw file. Put it beside: cube, cube\.dat"):
        open_image(header)


def test_bad_bands_are_left_out_by_the_user(tmp_path: Path):
    """AVIRIS and others list the bands that the air absorbs; no place lacks data for what those hold."""
    values = np.arange(1, 25, dtype=np.float32).reshape(2, 3, 4)
    values[..., 1] = -1
    header = write_envi(tmp_path / "a.img", values, more="bbl = {1, 0,\n 1, 1}\ndata ignore value = -1\n")
    with pytest.raises(DataError, match=r"calls 1 of its 4 bands bad \(bbl\)\. The others are --bands 1,3,4; or take"):
        open_image(header)
    with open_image(header, bands=[1, 3, 4]) as reader:
        np.testing.assert_array_equal(reader.read(0, 2, 0, 3), values[..., [0, 2, 3]])
        assert reader.known(0, 2, 0, 3) is None
    with pytest.raises(DataError, match=r"has 4 bands, and its list of bad bands \(bbl\) 3 entries"):
        open_image(write_envi(tmp_path / "b.img", values, more="bbl = {1, 0, 1}\n"))
    with open_image(write_envi(tmp_path / "c.img", values, more="bbl = {1, 1, 1, 1}\n")) as reader:
        assert reader.shape == (2, 3, 4)


def test_planes_of_overlapping_classes_are_bands(tmp_path: Path):
    planes = np.random.default_rng(0).integers(0, 2, (5, 7, 3)).astype(np.uint8)
    mask = write_envi(tmp_path / "m.img", planes)
    image = write_envi(tmp_path / "i.img", planes)
    pair = decode_pair(
        RawPair("a", image, mask, "i.hdr", "m.hdr"), PlaneRules(num_classes=3, ignore_index=None, label_map=None), 10**6
    )
    for number in range(3):
        np.testing.assert_array_equal(plane_of(pair.label, number) == 1, planes[..., number] == 1)
