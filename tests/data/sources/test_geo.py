"""Polygons of GeoJSON and GeoPackage are drawn over GeoTIFFs where they lie, pixel by pixel as pycocotools draws them."""

from __future__ import annotations

import json
import sqlite3
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.data.pictures import random_pair
from tests.data.sources.drawn import covered_classes
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.cache import Cache, CacheSettings
from unet_dist.data.sources.geo import read_grid
from unet_dist.data.sources.registry import open_source
from unet_dist.data.sources.vectors import clip, read_vectors
from unet_dist.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
coco = pytest.importorskip("pycocotools.mask")

HEIGHT, WIDTH = 30, 40
WEST, NORTH, PX = 500_000.0, 5_400_000.0, 2.0
OUTER = np.array([(4.1, 3.2), (31.8, 5.1), (27.3, 24.6), (6.4, 22.2)])
HOLE = np.array([(12.1, 9.2), (20.3, 10.1), (18.2, 16.4)])
FAR = np.array([(-90_000.0, 10.4), (90_000.0, 12.9), (90_000.0, 90_000.0), (-90_000.0, 90_000.0)])


def write_raster(path: Path, seed: int = 0, west: float = WEST, epsg: int = 32633, is_point: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 2 if is_point else 1, 3072, 0, 1, epsg)
    tie = (0.0, 0.0, 0.0, west + is_point * PX / 2, NORTH - is_point * PX / 2, 0.0)
    tags = [(33550, "d", 3, (PX, PX, 0.0), True), (33922, "d", 6, tie, True), (34735, "H", len(keys), keys, True)]
    tifffile.imwrite(path, random_pair(seed, HEIGHT, WIDTH)[0], photometric="rgb", metadata=None, extratags=tags)


def world(points: np.ndarray) -> list[list[float]]:
    closed = np.concatenate([points, points[:1]])
    return [[WEST + PX * x, NORTH - PX * y] for x, y in closed.tolist()]


def drawn(*rings: np.ndarray) -> np.ndarray:
    """What an odd number of outlines surround, each as pycocotools draws it."""
    planes = [coco.decode(coco.frPyObjects([ring.ravel().tolist()], HEIGHT, WIDTH))[..., 0] for ring in rings]
    result: np.ndarray = np.bitwise_xor.reduce(planes)
    return result


def feature(shape: str, coordinates: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": shape, "coordinates": coordinates}, "properties": properties}


def features() -> list[dict[str, Any]]:
    return [
        feature("Polygon", [world(FAR)], **{"class": "water", "area": 1}),
        feature("MultiPolygon", [[world(OUTER), world(HOLE)]], **{"class": "roof", "area": 2}),
    ]


def write_geojson(path: Path, found: list[dict[str, Any]], epsg: int | None = 32633) -> Path:
    crs = {} if epsg is None else {"crs": {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{epsg}"}}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", **crs, "features": found}))
    return path


def wkb(shape: str, coordinates: Any, order: str, depth: int) -> bytes:
    """A shape as well-known binary; with heights where depth is 3."""
    code = {"Polygon": 3, "MultiPolygon": 6}[shape] + (1000 if depth == 3 else 0)
    head = struct.pack(f"{order}BII", order == "<", code, len(coordinates))
    if shape == "MultiPolygon":
        return head + b"".join(wkb("Polygon", part, order, depth) for part in coordinates)
    rings = b""
    for ring in coordinates:
        values = np.array([(*point, 7.0)[:depth] for point in ring], dtype=f"{order}f8")
        rings += struct.pack(f"{order}I", len(ring)) + values.tobytes()
    return head + rings


def write_geopackage(
    path: Path, found: list[dict[str, Any]], order: str = "<", depth: int = 2, epsg: int = 32633
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE gpkg_geometry_columns (table_name, column_name, geometry_type_name, srs_id)")
        base.execute("CREATE TABLE gpkg_spatial_ref_sys (srs_id, organization, organization_coordsys_id)")
        base.execute("INSERT INTO gpkg_geometry_columns VALUES ('plots', 'geom', 'GEOMETRY', 77)")
        base.execute("INSERT INTO gpkg_spatial_ref_sys VALUES (77, 'EPSG', ?)", (epsg,))
        base.execute('CREATE TABLE plots (fid INTEGER PRIMARY KEY, geom BLOB, "class" TEXT, area REAL)')
        for number, one in enumerate(found):
            flags = (order == "<") | (1 << 1)  # an envelope of four numbers
            blob = b"GP\0" + struct.pack("B", flags) + struct.pack(f"{order}i4d", 77, 0, 0, 0, 0)
            blob += wkb(one["geometry"]["type"], one["geometry"]["coordinates"], order, depth)
            told = one["properties"]
            base.execute("INSERT INTO plots VALUES (?, ?, ?, ?)", (number, blob, told.get("class"), told.get("area")))
    base.close()
    return path


def open_data(root: Path, said: list[str] | None = None, **keys: Any) -> Cache:
    source = open_source(root, say=None if said is None else said.append, **keys)
    return prepare(source, CacheSettings(), seed=0, cache_path=root.parent / "cache")


def expected() -> np.ndarray:
    """Water below a line that is nearly level, and a roof with a hole over it."""
    line = (
        10.4 + (FAR[1, 1] - FAR[0, 1]) * (np.arange(WIDTH) + 0.5 + 90_000) / 180_000
    )  # rounded to fifths of a pixel at both ends
    water = np.arange(HEIGHT)[:, None] + 0.5 > line
    return np.where(drawn(OUTER, HOLE) > 0, 1, 2 * water).astype(np.uint8)


@pytest.mark.parametrize("kind", ["geojson", "gpkg", "gpkg_of_heights"])
def test_features_over_rasters(tmp_path, kind):
    root = tmp_path / "d"
    for seed, name in enumerate(("train/a", "train/b", "val/c")):
        write_raster(root / f"images/{name}.tif", seed)
    write_raster(root / "images/train/far.tif", west=WEST + 10_000_000)
    if kind == "geojson":
        write_geojson(root / "plots.geojson", features())
    else:
        write_geopackage(root / "plots.gpkg", features(), *((">", 3) if kind == "gpkg_of_heights" else ()))
    said: list[str] = []
    cache = open_data(root, said)
    assert cache.class_names == ["background", "roof", "water"]
    assert cache.given_splits == {"train": 2, "validation": 1}, "a raster beyond all features has no labels"
    assert "1 raster without a feature left out" in said[0]
    found = np.asarray(cache.split("val").label(0)[:, :])
    assert (found == expected()).all()
    covered_classes(root, cache, tmp_path / "cache")


def test_a_raster_that_states_the_centres_of_its_pixels(tmp_path):
    root = tmp_path / "d"
    for name in "abc":
        write_raster(root / f"{name}.tif", is_point=True)
    write_geojson(root / "plots.geojson", features()[1:])
    assert (np.asarray(open_data(root).split("all").label(0)[:, :]) == drawn(OUTER, HOLE)).all()


@pytest.mark.parametrize("odd", ["a matrix beside", "rows stated downward"])
def test_tags_that_contradict_are_read_as_gdal_reads_them(tmp_path, odd):
    path = tmp_path / "a.tif"
    tags: list[tuple[Any, ...]] = [(33922, "d", 6, (0.0, 0.0, 0.0, WEST, NORTH, 0.0), True)]
    tags += [(33550, "d", 3, (PX, -PX if odd.startswith("rows") else PX, 0.0), True)]
    if odd == "a matrix beside":
        tags += [(34264, "d", 16, (9.0, 0.0, 0.0, WEST, 0.0, -9.0, 0.0, NORTH, *[0.0] * 7, 1.0), True)]
    tifffile.imwrite(path, random_pair(0, HEIGHT, WIDTH)[0], photometric="rgb", metadata=None, extratags=tags)
    found = read_grid(path)
    assert found is not None
    assert found.matrix.tolist() == [[PX, 0.0, WEST], [0.0, -PX, NORTH]]
    with pytest.importorskip("rasterio").open(path) as raster:
        assert found.matrix.ravel().tolist() == list(raster.transform)[:6]


def test_degrees_are_changed_to_the_rasters_coordinates(tmp_path):
    warp = pytest.importorskip("rasterio.warp")
    root = tmp_path / "d"
    for name in "abc":
        write_raster(root / f"{name}.tif")
    rings = []
    for ring in (OUTER, HOLE):
        longitude, latitude = warp.transform("EPSG:32633", "EPSG:4326", *np.array(world(ring)).T)
        rings.append(np.array([longitude, latitude]).T.tolist())
    write_geojson(root / "plots.geojson", [feature("Polygon", rings, kind="roof")], epsg=None)
    assert (np.asarray(open_data(root).split("all").label(0)[:, :]) == drawn(OUTER, HOLE)).all()


def test_which_property_names_the_class(tmp_path):
    root = tmp_path / "d"
    for name in "abc":
        write_raster(root / f"{name}.tif")
    shape = [world(OUTER)]
    write_geojson(
        root / "p.geojson", [feature("Polygon", shape, a=3.0, b="x"), feature("Polygon", shape, a=10.0, b="y")]
    )
    with pytest.raises(DataError, match=r"which of a, b names the class of a feature\? Name it: --label_column NAME"):
        _ = open_source(root).splits
    assert open_data(root, label_column="a").class_names == ["background", "3", "10"]
    write_geojson(root / "p.geojson", [feature("Polygon", shape)])
    assert open_data(root).class_names == ["background", "object"]


def test_a_property_of_several_values_is_no_class(tmp_path):
    write_raster(tmp_path / "d/a.tif")
    found = [one | {"properties": {"class": {"name": "roof", "colour": 1}}} for one in features()]
    write_geojson(tmp_path / "d/plots.geojson", found)
    with pytest.raises(DataError, match="class of a feature holds several values, expected one"):
        _ = open_source(tmp_path / "d").splits


def test_numbers_of_features_are_no_classes(tmp_path):
    root = tmp_path / "d"
    for name in "abc":
        write_raster(root / f"{name}.tif")
    shapes = [feature("Polygon", [world(OUTER + shift)], id=shift) for shift in (0, 1, 2)]
    write_geojson(root / "areas.geojson", shapes)
    with pytest.raises(DataError, match=r"each of its 3 features has its own id\..*--label_column id; else remove it"):
        open_data(root)
    assert open_data(root, label_column="id").class_names == ["background", "0", "1", "2"]
    for one in shapes:
        del one["properties"]["id"]
    write_geojson(root / "areas.geojson", shapes)
    assert open_data(root).class_names == ["background", "object"]


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ([feature("Point", [1, 2], **{"class": "x"})], "feature 1 is a Point. Expected polygons"),
        ([feature("Polygon", [world(OUTER)], **{"class": None})], "a feature has no class"),
        ([], "it holds no polygons"),
        ([feature("Polygon", [[[0, 0], [1, 0], [1, 1]]], **{"class": "x"})], "on none of the 1 georeferenced TIFFs"),
    ],
)
def test_features_that_cannot_be_used(tmp_path, found, sentence):
    write_raster(tmp_path / "d/a.tif")
    write_geojson(tmp_path / "d/p.geojson", found)
    with pytest.raises(DataError, match=sentence):
        _ = open_source(tmp_path / "d").splits


def test_a_damaged_geopackage(tmp_path):
    write_raster(tmp_path / "d/a.tif")
    (tmp_path / "d/p.gpkg").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as GeoPackage"):
        _ = open_source(tmp_path / "d").splits
    path = write_geopackage(tmp_path / "d/p.gpkg2", features()).rename(tmp_path / "p.gpkg")
    assert [len(one.polygons[0]) for one in read_vectors(path).features] == [1, 2]


def test_clipping_leaves_the_inside_as_it_was():
    random = np.random.default_rng(0)
    for _ in range(200):
        ring = random.integers(-40, 80, (random.integers(3, 9), 2)).astype(float)
        kept = list(clip([ring], -8.0, (48.0, 38.0)))
        assert (drawn(*kept, np.zeros((3, 2))) == drawn(ring, np.zeros((3, 2)))).mean() > 0.97
