"""Proves that names and colours of classes, whatever the names hold, are read by GDAL and by any reader of XML or GeoJSON, and
that a region holds its pixels and no others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from unet_dist.imaging.image import Placement
from unet_dist.imaging.legend import as_xml_text, background_of, write_category_names, write_qgis_style
from unet_dist.imaging.palette import class_palette
from unet_dist.imaging.raster import write_raster
from unet_dist.imaging.regions import write_regions

NAMES = [
    "Straße & <b>",
    "车",
    "a\"b'c]]>",
    "&lt;!ENTITY x SYSTEM 'file:///etc/passwd'&gt;",
    "x\x00\x1b[31m\ny",
    "\ud800z",
    "😀",
]
SHOWN = [*NAMES[:4], "x\ufffd\ufffd[31m\ufffdy", "\ufffdz", "😀"]
PALETTE = class_palette(len(NAMES))
PLACED = Placement(geo_tags={33550: (0.5, 0.5, 0.0), 33922: (0.0, 0.0, 0.0, 400_000.0, 5_800_000.0, 0.0)})


def test_category_names_are_read_by_gdal(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    shutil: Any = pytest.importorskip("rasterio.shutil")
    path = tmp_path / "a.tif"
    write_raster(path, np.arange(42, dtype=np.uint8).reshape(6, 7) % 7, palette=PALETTE, placement=PLACED)
    write_category_names(tmp_path / "a.tif.aux.xml", NAMES)
    # rasterio has no call for them, and GDAL's own copy of a raster into XML holds what it read.
    shutil.copy(path, tmp_path / "a.vrt", driver="VRT")
    categories = ElementTree.parse(tmp_path / "a.vrt").findall("VRTRasterBand/CategoryNames/Category")
    assert [category.text for category in categories] == SHOWN
    with rasterio.open(path) as labels:
        assert [labels.colormap(1)[value][:3] for value in range(7)] == [tuple(c) for c in PALETTE.tolist()]
    # UTF-8 as it is, no references to characters
    assert "Straße &amp; &lt;b&gt;".encode() in (tmp_path / "a.tif.aux.xml").read_bytes()


def test_a_qgis_style_has_value_colour_and_label(tmp_path: Path) -> None:
    write_qgis_style(tmp_path / "a.qml", NAMES, PALETTE)
    root = ElementTree.parse(tmp_path / "a.qml").getroot()
    (renderer,) = root.findall("pipe/rasterrenderer")
    assert (root.tag, renderer.get("type"), renderer.get("band")) == ("qgis", "paletted", "1")
    entries = renderer.findall("colorPalette/paletteEntry")
    assert [entry.get("label") for entry in entries] == SHOWN
    assert [int(entry.get("value", "")) for entry in entries] == list(range(7))
    colours = [list(bytes.fromhex(entry.get("color", "")[1:])) for entry in entries]
    assert colours == PALETTE.tolist()
    assert {entry.get("alpha") for entry in entries} == {"255"}


def test_text_without_hazards_stays() -> None:
    assert as_xml_text("sky ~ Ölfeld 3/4") == "sky ~ Ölfeld 3/4"
    assert as_xml_text("\x7f\x85\ufffe") == "\ufffd" * 3


def test_regions_hold_their_pixels(tmp_path: Path) -> None:
    features: Any = pytest.importorskip("rasterio.features")
    labels = np.random.default_rng(0).integers(0, 8, (9, 12)).astype(np.uint8).repeat(2, 0).repeat(3, 1)
    labels[labels == 7] = 255
    labels[4:10, 6:15], labels[6:8, 9:12] = 2, 3  # a hole
    write_regions(tmp_path / "a.geojson", labels, NAMES, PALETTE)
    found = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))
    assert found["type"] == "FeatureCollection"
    drawn = np.full(labels.shape, 255, dtype=np.uint8)
    written = [name.encode(errors="replace").decode() for name in NAMES]
    for feature in found["features"]:
        assert feature["properties"]["objectType"] == "annotation"
        said = feature["properties"]["classification"]
        value = written.index(said["name"])
        assert said["color"] == PALETTE[value].tolist()
        assert all(ring[0] == ring[-1] for ring in feature["geometry"]["coordinates"])
        mask = features.geometry_mask([feature["geometry"]], labels.shape, features.IDENTITY, invert=True)
        assert (drawn[mask] == 255).all(), "no pixel is in two regions"
        drawn[mask] = value
    np.testing.assert_array_equal(drawn, labels)
    assert max(len(feature["geometry"]["coordinates"]) for feature in found["features"]) > 1
    assert "车" in (tmp_path / "a.geojson").read_text(encoding="utf-8")


def test_nothing_labelled_is_no_region(tmp_path: Path) -> None:
    pytest.importorskip("rasterio.features")
    write_regions(tmp_path / "a.geojson", np.full((3, 4), 255, dtype=np.uint8), NAMES, PALETTE)
    assert json.loads((tmp_path / "a.geojson").read_text())["features"] == []


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["class_0", "class_1"], 0),
        (["class_0", "class_1", "class_2"], 0),
        (["cell", "BG"], 1),
        (["class_0", "road", "class_2"], None),
        (["road", "car", "sky"], None),
    ],
)
def test_the_background_of_an_overlay(names: list[str], expected: int | None) -> None:
    """Masks of unnamed ids have it at 0, however many classes there are."""
    assert background_of(names) == expected
