"""Proves that formats of installed packages are asked last, imported late, and blamed by name and line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unet_dist.data.sources.walk import find_files
from unet_dist.errors import ConfigError, DataError, RefusedError
from unet_dist.imaging.encoded import Encoded
from unet_dist.imaging.formats import looks_like_image
from unet_dist.imaging.reader import open_image

GOOD = """
import numpy as np
from unet_dist.contracts import ImageFormat
from unet_dist.imaging.readers import ArrayReader

class Late(ArrayReader):
    def read(self, *window):
        return super().read(*window) if self.shape[0] < 5 else 1 / 0

def open_ramp(encoded, opening):
    side = int(encoded.read()[4:])
    return Late(np.full((side, side, 1), side, np.uint8), interpret=opening.interpret)

RAMP = ImageFormat("ramp", (".ramp",), lambda encoded: encoded.head[:4] == b"RAMP", open_ramp, True)
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the search path, where `offer` puts packages."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ramp_package", raising=False)
    return tmp_path


def offer(folder: Path, source: str, *, package: str = "ramp_package") -> None:
    (folder / f"{package}.py").write_text(source)
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[unet_dist.formats]\nramp = {package}:RAMP\n")


def test_a_file_is_found_by_its_name_or_its_bytes(outside: Path) -> None:
    offer(outside, GOOD)
    images = outside / "images"
    images.mkdir()
    for name in ("a.ramp", "B.RAMP", "c.txt", "d"):
        (images / name).write_bytes(b"RAMP3")
    Image.new("L", (4, 4)).save(images / "e.png")
    assert [path.name for path in find_files(images)] == ["B.RAMP", "a.ramp", "e.png"]
    assert looks_like_image(images / "a.ramp")
    assert not looks_like_image(images / "c.txt")
    assert "ramp_package" not in sys.modules, "a folder is searched without an import"
    with open_image(images / "e.png") as reader:
        assert reader.shape == (4, 4, 1)
    with open_image(Encoded.of((images / "e.png").read_bytes())) as reader:
        assert reader.shape == (4, 4, 1)
    assert "ramp_package" not in sys.modules, "ours are opened without an import"
    for image in (images / "a.ramp", images / "B.RAMP", images / "d", Encoded.of(b"RAMP3")):
        with open_image(image) as reader:
            assert np.array_equal(reader.read(0, 3, 1, 3), np.full((3, 2, 1), 3))


def test_a_fault_is_the_refusal_of_one_image_and_names_the_line(outside: Path) -> None:
    offer(outside, GOOD)
    (outside / "a.ramp").write_bytes(b"RAMPx")
    (outside / "b.ramp").write_bytes(b"RAMP7")
    with pytest.raises(
        RefusedError, match=r"a.ramp cannot be read by ramp_package:RAMP: ValueError: invalid literal"
    ) as said:
        open_image(outside / "a.ramp")
    assert f"({outside / 'ramp_package.py'}, line 11)" in str(said.value)
    assert "fault of the package ramp_package" in str(said.value)
    with open_image(outside / "b.ramp") as reader, pytest.raises(RefusedError, match=r"ZeroDivisionError.*line 8\)"):
        reader.read(0, 1, 0, 1)


def test_a_package_that_cannot_be_imported_is_named(outside: Path) -> None:
    offer(outside, "x = 1\nRAMP = y\n")
    (outside / "a.ramp").write_bytes(b"RAMP3")
    with pytest.raises(
        ConfigError, match=r"ramp_package:RAMP cannot be imported: NameError.*ramp_package.py, line 2\)"
    ):
        open_image(outside / "a.ramp")


def test_something_else_than_a_format_is_refused(outside: Path) -> None:
    offer(outside, "RAMP = 3\n")
    (outside / "a.ramp").write_bytes(b"RAMP3")
    with pytest.raises(ConfigError, match=r"ramp_package:RAMP is a int, expected an ImageFormat"):
        open_image(outside / "a.ramp")


def test_two_packages_for_one_suffix_are_both_named(outside: Path) -> None:
    offer(outside, GOOD)
    offer(outside, GOOD, package="slope_package")
    (outside / "a.ramp").write_bytes(b"RAMP3")
    with pytest.raises(ConfigError, match=r"offered by .*_package .* and .*_package .*Uninstall one of them"):
        open_image(outside / "a.ramp")


def test_what_nobody_knows_is_refused_as_a_picture(outside: Path) -> None:
    offer(outside, GOOD)
    (outside / "notes").write_bytes(b"words")
    with pytest.raises(DataError, match="is not an image that can be read"):
        open_image(outside / "notes")
