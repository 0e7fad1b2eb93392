"""Files of right syntax and wrong meaning are refused, not read as something else: keys and pictures that are there twice, numbers
that are none, words in place of numbers, lines that no path has.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.data.pictures import write_folder
from tests.data.sources.test_annotation_tools import VIA_BOX, write_via
from tests.data.sources.test_geo import features, write_geojson, write_geopackage, write_raster
from unet_dist.data.sources.registry import open_source
from unet_dist.data.sources.table_cards import named_tables
from unet_dist.errors import DataError, RefusedError
from unet_dist.imaging.reader import open_image
from unet_dist.storage.typed import parse_json, parse_yaml


def read_masks(folder: Path) -> list[np.ndarray]:
    """What a data set draws."""
    source = open_source(folder)
    pairs = [source.read_pair(split, index) for split, size in source.splits.items() for index in range(size)]
    return [pair.mask() for pair in pairs if callable(pair.mask)]


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("text", ['{"a": 1, "b": 2, "a": 3}', '{"b": [{"a": 1, "a": 1}]}'])
def test_a_key_that_is_there_twice(text: str) -> None:
    """Parsers take the last and say nothing."""
    expected = r"the key 'a' twice, expected each key once"
    with pytest.raises(DataError, match=expected):
        parse_json(text, dict[str, Any], "it")
    with pytest.raises(DataError, match=expected):
        parse_yaml(text, dict[str, Any], "it")
    with pytest.raises(DataError, match=expected):
        parse_yaml("a: 1\nb: 2\na: 3\n", dict[str, Any], "it")
    assert parse_yaml("x: &x {a: 1, b: 2}\ny: {<<: *x, a: 3}\n1: a\n'1': b\n", dict[Any, Any], "it") == {
        "x": {"a": 1, "b": 2},
        "y": {"a": 3, "b": 2},
        1: "a",
        "1": "b",
    }


@pytest.mark.parametrize("changed", [{"cx": float("nan")}, {"rx": float("inf")}, {"ry": -1}, {"theta": float("nan")}])
def test_an_ellipse_of_no_numbers_is_not_left_out(tmp_path: Path, changed: dict[str, object]) -> None:
    ellipse = {"name": "ellipse", "cx": 4, "cy": 3, "rx": 2, "ry": 1, "theta": 0} | changed
    write_via(tmp_path, VIA_BOX, ellipse, attributes=({}, {}))
    with pytest.raises(RefusedError, match=r"has an ellipse at|cannot be drawn"):
        read_masks(tmp_path)


def test_a_box_in_words_is_the_box_of_its_numbers(tmp_path: Path) -> None:
    """1 and 3 as texts make 13, where they are joined."""
    drawn = []
    for name, box in (("numbers", VIA_BOX), ("words", {key: str(value) for key, value in VIA_BOX.items()})):
        write_via(tmp_path / name, box, attributes=({},))
        drawn.append(read_masks(tmp_path / name)[0])
    assert drawn[0].sum() == 6
    assert (drawn[0] == drawn[1]).all()


@pytest.mark.parametrize("kind", ["geojson", "gpkg"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_feature_that_lies_nowhere_is_not_left_out(tmp_path: Path, kind: str, value: float) -> None:
    write_raster(tmp_path / "a.tif")
    found = features()
    found[1]["geometry"]["coordinates"][0][0][1][0] = value
    if kind == "geojson":
        write_geojson(tmp_path / "plots.geojson", found)
    else:
        write_geopackage(tmp_path / "plots.gpkg", found)
    with pytest.raises(DataError, match="feature 2 has a point that is no number"):
        read_masks(tmp_path)


def test_collections_in_collections_are_a_sentence(tmp_path: Path) -> None:
    import sqlite3

    write_raster(tmp_path / "a.tif")
    path = write_geopackage(tmp_path / "plots.gpkg", features())
    with sqlite3.connect(path) as base:
        blob = b"GP\0\1" + struct.pack("<i", 77) + struct.pack("<BII", 1, 7, 1) * 100_000
        base.execute("UPDATE plots SET geom = ?", (blob,))
    base.close()
    with pytest.raises(DataError, match="cannot be read"):
        read_masks(tmp_path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("line", ["a/" * 500_000 + "b.png", "a\0.png", "x" * 1_000_000])
def test_a_line_that_no_path_has(tmp_path: Path, line: str) -> None:
    """Looking up every end of a line takes the square of its length."""
    write_folder(tmp_path, num_pairs=3)
    (tmp_path / "train.txt").write_text(line)
    with pytest.raises(DataError, match=r"train\.txt, line 1: there is no image") as refused:
        _ = open_source(tmp_path).splits
    assert len(str(refused.value)) < 1000


@pytest.mark.timeout(60)
@pytest.mark.parametrize("head", ["[" * 100_000, "a: 1\na: 2", "a: !!timestamp x", "? [a]\n: 1", "a: !!int ''"])
def test_a_card_that_cannot_be_read_is_not_taken_for_one_that_names_no_table(tmp_path: Path, head: str) -> None:
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\n# Data\n")
    with pytest.raises(DataError, match=re.escape("README.md, its head: ")):
        list(named_tables(tmp_path))


@pytest.mark.parametrize("name", ["", " ", "\0"])
def test_a_name_of_nothing_in_a_table_of_splits(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path, num_pairs=3)
    (tmp_path / "splits.json").write_text(json.dumps({"train": [name]}))
    with pytest.raises(DataError, match="entry 1: there is no image"):
        _ = open_source(tmp_path).splits


def test_a_label_that_no_file_can_hold(tmp_path: Path) -> None:
    write_via(tmp_path, VIA_BOX, attributes=({"class": "\ud800"},))
    with pytest.raises(DataError, match="its outlines cannot be read"):
        _ = open_source(tmp_path).splits


def test_a_tiff_of_strips_and_tiles_at_once(tmp_path: Path) -> None:
    """Readers differ in which they take."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((20, 30), np.uint8), photometric="minisblack", metadata=None, byteorder="<")
    kind = struct.pack("<HHII", 277, 3, 1, 1)  # samples per pixel: 1, as without it
    content = path.read_bytes()
    assert kind in content
    path.write_bytes(content.replace(kind, struct.pack("<HHII", 324, 4, 1, 8), 1))
    with pytest.raises(RefusedError, match="where strips lie and where tiles lie"):
        open_image(path)


def test_a_release_with_a_key_twice(tmp_path: Path) -> None:
    write_via(tmp_path, VIA_BOX, attributes=({},))
    stored = json.loads((tmp_path / "via.json").read_text())
    text = json.dumps(stored).replace('"regions": []', '"regions": [], "regions": []', 1)
    (tmp_path / "via.json").write_text(text)
    with pytest.raises(DataError, match="the key 'regions' twice"):
        read_masks(tmp_path)
