"""Polygons of GeoJSON and GeoPackage files, in the coordinates of the world.

Owns the two formats: a GeoPackage is an SQLite file whose shapes are well-known binary. Knows nothing of rasters.
"""

from __future__ import annotations

import re
import sqlite3
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unet_dist.errors import DataError
from unet_dist.imaging.limits import decode_budget_bytes, decode_seconds
from unet_dist.storage.typed import read_json
from unet_dist.wording import duration, size

Rings = list[np.ndarray]
"""The outline of a polygon and its holes, each (N, 2) x and y."""

DEGREES = 4326
_SQLITE = b"SQLite format 3\0"
_ENVELOPES = (0, 32, 48, 48, 64)
_STEPS = 100_000
"""Of SQLite's machine, between two looks at the clock: about a millisecond."""
_ROW_BYTES, _BYTES_PER_BYTE = 1000, 3
"""What a feature takes beside its bytes, and a byte of an outline of three points as an array. Derived."""
_LIMIT_LENGTH = 0
"""SQLite's number of the limit on the length of a value."""
_POLYGON, _COLLECTIONS = 3, (4, 5, 6, 7)


@dataclass(frozen=True)
class Feature:
    """An object on the ground: its polygons and its properties."""

    polygons: list[Rings]
    properties: dict[str, Any]

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east and north."""
        points = np.concatenate([rings[0] for rings in self.polygons])
        (west, south), (east, north) = points.min(axis=0), points.max(axis=0)
        return float(west), float(south), float(east), float(north)


@dataclass(frozen=True)
class Layer:
    """The features of a file. `epsg` is None where it does not say what its coordinates are."""

    features: list[Feature]
    epsg: int | None


def is_vector_file(path: Path) -> bool:
    """Say whether a file is GeoJSON or a GeoPackage."""
    if path.suffix.lower() in (".geojson", ".json"):
        with path.open("rb") as file:
            return b'"FeatureCollection"' in file.read(4096)
    return path.suffix.lower() == ".gpkg"


def read_vectors(path: Path) -> Layer:
    """Read the polygons of a file. Raises: DataError: it is damaged, holds several layers, or something else than polygons."""
    try:
        if path.suffix.lower() == ".gpkg":
            with path.open("rb") as file:
                if file.read(16) != _SQLITE:
                    raise ValueError("no SQLite file")
            return _read_geopackage(path)
        return _read_geojson(path)
    except (OSError, ValueError, KeyError, TypeError, IndexError, struct.error, sqlite3.Error) as error:
        if "interrupted" in str(error):
            raise DataError(
                f"{path}: reading it takes longer than {duration(decode_seconds())}. Export it again, as a table in place of a "
                "view; if you trust the file, raise decode_seconds."
            ) from error
        kind = "GeoPackage" if path.suffix.lower() == ".gpkg" else "GeoJSON"
        raise DataError(
            f"{path}: cannot be read as {kind} ({type(error).__name__}: {error}). Export it again."
        ) from error


def _read_geojson(path: Path) -> Layer:
    stored: Any = read_json(path, object, remedy="Export it again.")
    stored = {"features": stored} if isinstance(stored, list) else stored  # as QuPath writes it
    features = []
    for number, one in enumerate(stored["features"], start=1):
        shape = one.get("geometry")
        if shape is None:
            continue
        if shape["type"] not in ("Polygon", "MultiPolygon"):
            raise _no_area(path, number, shape["type"])
        parts = [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]
        polygons = [[_finite(number, np.array(ring, dtype=np.float64)[:, :2]) for ring in rings] for rings in parts]
        if polygons:
            features.append(Feature(polygons, one.get("properties") or {}))
    name = str(((stored.get("crs") or {}).get("properties") or {}).get("name", ""))
    code = re.search(r"EPSG:(?:[\d.]*:)?(\d+)$", name)
    is_plain = all(max(map(abs, feature.bounds)) <= 360 for feature in features)
    return Layer(features, int(code[1]) if code else DEGREES if is_plain else None)


def _read_geopackage(path: Path) -> Layer:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        if setlimit := getattr(database, "setlimit", None):  # from Python 3.11 on: before a value takes memory
            setlimit(_LIMIT_LENGTH, min(decode_budget_bytes() // _BYTES_PER_BYTE, 2**30))
        # A layer may be a view, and a view has rows without end.
        until_s = time.monotonic() + decode_seconds()
        database.set_progress_handler(lambda: time.monotonic() > until_s, _STEPS)
        layers = database.execute("SELECT table_name, column_name, srs_id FROM gpkg_geometry_columns").fetchall()
        if len(layers) != 1:
            listed = ", ".join(str(layer["table_name"]) for layer in layers) or "none"
            raise DataError(
                f"{path}: its layers with shapes are {listed}. Expected one: export one layer, with a class column."
            )
        table, column, srs = layers[0]
        query = "SELECT organization, organization_coordsys_id FROM gpkg_spatial_ref_sys WHERE srs_id = ?"
        place = database.execute(query, (srs,)).fetchone()
        quoted = str(table).replace('"', '""')
        features = []
        taken = 0
        for number, row in enumerate(database.execute(f'SELECT * FROM "{quoted}"'), start=1):  # noqa: S608, quoted
            blob = row[column]
            taken += _ROW_BYTES + sum(len(value) for value in row if isinstance(value, str | bytes))
            if _BYTES_PER_BYTE * taken > decode_budget_bytes():
                raise DataError(
                    f"{path}: its layer takes more than {size(decode_budget_bytes())}, the limit of decode_memory. Raise it, or "
                    "cut the layer into files for parts of the land."
                )
            polygons = [] if blob is None else _polygons_of(path, number, bytes(blob))
            if polygons:
                properties = {key: row[key] for key in row.keys() if key not in (column, "fid", "ogc_fid")}  # noqa: SIM118
                features.append(Feature(polygons, properties))
    is_epsg = place is not None and str(place[0]).upper() == "EPSG"
    return Layer(features, int(place[1]) if is_epsg else None)


def _polygons_of(path: Path, number: int, blob: bytes) -> list[Rings]:
    """Read the shape of a GeoPackage: a head of its own, then well-known binary."""
    if blob[:2] != b"GP":
        raise ValueError(f"row {number} has no GeoPackage shape")
    flags = blob[3]
    if flags & 0b10000:  # empty
        return []
    return list(_walk_wkb(path, number, blob, 8 + _ENVELOPES[flags >> 1 & 0b111])[0])


def _walk_wkb(path: Path, number: int, blob: bytes, place: int) -> tuple[list[Rings], int]:
    """Read one shape of well-known binary; gives its polygons and where it ends."""
    order = "<" if blob[place] == 1 else ">"
    (code,) = struct.unpack_from(f"{order}I", blob, place + 1)
    place += 5
    kind, dimensions = code & 0xFF if code >= 1 << 28 else code % 1000, 2
    if code >= 1 << 28:  # the extended form has flags for z, m and a place in the world
        dimensions += bool(code & 1 << 31) + bool(code & 1 << 30)
        place += 4 * bool(code & 1 << 29)
    else:
        dimensions += (0, 1, 1, 2)[code // 1000]
    (count,) = struct.unpack_from(f"{order}I", blob, place)
    place += 4
    if kind in _COLLECTIONS:
        found: list[Rings] = []
        for _ in range(count):
            polygons, place = _walk_wkb(path, number, blob, place)
            found += polygons
        return found, place
    if kind != _POLYGON:
        raise _no_area(path, number, f"shape of type {kind}")
    rings: Rings = []
    for _ in range(count):
        (points,) = struct.unpack_from(f"{order}I", blob, place)
        if points < 3:
            raise ValueError(f"row {number} has an outline of {points} points")
        values = np.frombuffer(blob, f"{order}f8", points * dimensions, place + 4)
        rings.append(_finite(number, values.reshape(points, dimensions)[:, :2].astype(np.float64)))
        place += 4 + 8 * points * dimensions
    return [rings], place


def _finite(number: int, points: np.ndarray) -> np.ndarray:
    """The points. Raises: ValueError: one is no number, which would lie on no raster, and its feature be missing."""
    if not np.isfinite(points).all():
        raise ValueError(f"feature {number} has a point that is no number")
    return points


def _no_area(path: Path, number: int, kind: str) -> DataError:
    return DataError(f"{path}: feature {number} is a {kind}. Expected polygons: buffer it to an area, or remove it.")


def clip(rings: Sequence[np.ndarray], low: float, high: tuple[float, float]) -> Iterator[np.ndarray]:
    """Cut outlines down to a rectangle from (low, low) to `high`, edge by edge; what lies inside fills as before.

    Source: Sutherland and Hodgman, Reentrant polygon clipping (1974). Edges that it adds lie on the rectangle's border.
    """
    for ring in rings:
        points = ring
        if (ring >= low).all() and (ring <= high).all():
            yield ring
            continue
        for axis, bound, sign in ((0, low, 1), (0, high[0], -1), (1, low, 1), (1, high[1], -1)):
            if not len(points):
                break
            inside = sign * points[:, axis] >= sign * bound
            following, follows = np.roll(points, -1, axis=0), np.roll(inside, -1)
            kept: list[np.ndarray] = []
            for here, there, is_in, is_next in zip(points, following, inside, follows, strict=True):
                if is_in:
                    kept.append(here)
                if is_in != is_next:
                    kept.append(here + (there - here) * ((bound - here[axis]) / (there[axis] - here[axis])))
            points = np.array(kept).reshape(-1, 2)
        if len(points) >= 3:
            yield points
