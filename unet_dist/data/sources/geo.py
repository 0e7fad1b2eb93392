"""Polygons on the ground over georeferenced rasters, drawn as masks.

Owns how a raster's pixels lie in the world, and which property of a feature names its class. Class ids: 0 is background, the
classes follow by name. Features are drawn in the order of the file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unet_dist.data.sources.named_pictures import candidates
from unet_dist.data.sources.polygons import BACKGROUND, Canvas, Drawn, Sample, is_background, picture_header
from unet_dist.data.sources.splits import FRACTIONS, canonical_split, check_split_names, is_split_name
from unet_dist.data.sources.vectors import Feature, Layer, clip, is_vector_file, read_vectors
from unet_dist.data.sources.walk import find_files
from unet_dist.errors import DataError, ExtraError
from unet_dist.wording import counted, listed

_SUFFIXES = (".geojson", ".gpkg", ".json")
_USUAL = ("class", "label", "class_name", "category", "classname", "name", "type")
_ONLY_CLASS = "object"
_MARGIN_PX = 1024.0
"""The margin around the raster within which outlines are kept."""
_SCALE, _TIE_POINTS, _MATRIX, _KEYS = 33550, 33922, 34264, 34735
_RASTER_TYPE, _GEOGRAPHIC, _PROJECTED, _IS_POINT = 1025, 2048, 3072, 2


@dataclass(frozen=True)
class Grid:
    """Where a raster's pixels lie.

    Attributes:
        shape: (height, width).
        matrix: (2, 3), from (column, row, 1) to (x, y); (0, 0) is the upper left corner of the first pixel.
        epsg: of x and y, None where the file does not say.
    """

    shape: tuple[int, int]
    matrix: np.ndarray
    epsg: int | None

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Turn (N, 2) x and y into columns and rows."""
        return np.linalg.solve(self.matrix[:, :2], (points - self.matrix[:, 2]).T).T

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east and north."""
        height, width = self.shape
        corners = np.array([(0, 0, 1), (width, 0, 1), (0, height, 1), (width, height, 1)]) @ self.matrix.T
        (west, south), (east, north) = corners.min(axis=0), corners.max(axis=0)
        return float(west), float(south), float(east), float(north)


def find_vectors(root: Path) -> list[Path]:
    """List the GeoJSON and GeoPackage files in a folder and in those below it."""
    return [path for suffix in _SUFFIXES for path in candidates(root, suffix) if is_vector_file(path)]


def read_geo(root: Path, files: Sequence[Path], label_column: str) -> Drawn:
    """Read the samples: every georeferenced raster below the folder that features lie on.

    Args:
        label_column: the property that names the class, where features have it.

    Raises:
        DataError: a file is damaged, no raster fits, or nothing tells the class of a feature.
    """
    layers = {path: read_vectors(path) for path in files}
    features = [feature for layer in layers.values() for feature in layer.features]
    column = _column(files[0], features, label_column)
    class_names = [BACKGROUND, *_classes(files[0], features, column)]
    samples: dict[str, list[Sample]] = {}
    num_without, notes = 0, set[str]()
    rasters = find_files(root, {".tif", ".tiff"})
    _check_folders(root, rasters)
    num_nowhere = 0
    for raster in rasters:
        grid = read_grid(raster)
        if grid is None:
            num_nowhere += 1
            continue
        path = _file_of(raster, files)
        placed, note = _placed(path, layers[path], grid)
        notes |= {note} if note else set()
        near = [feature for feature in placed if _overlap(feature.bounds, grid.bounds)]
        if not near:
            num_without += 1
            continue
        draw = partial(draw_features, near, grid, column, class_names)
        name = raster.relative_to(root).with_suffix("").as_posix()
        samples.setdefault(_split_of(raster, root), []).append(
            Sample(name, raster, draw, f"of {raster.name} in {path.name}")
        )
    if not samples:
        raise DataError(f"{files[0]}: its features lie on none of the {num_without} georeferenced TIFFs below {root}.")
    if num_without:
        notes.add(f"{counted(num_without, 'raster')} without a feature left out")
    if num_nowhere:
        notes.add(f"{counted(num_nowhere, 'raster')} without a place in the world left out")
    return Drawn(
        {split: samples[split] for split in FRACTIONS if split in samples},
        class_names,
        list(files),
        "; ".join(sorted(notes)),
    )


def read_grid(path: Path) -> Grid | None:
    """Read where the pixels of a TIFF lie, None where it does not say."""
    shape, placement = picture_header(path)
    tags = placement.geo_tags
    if (
        _SCALE in tags and _TIE_POINTS in tags and 0 not in tags[_SCALE][:2]
    ):  # before the matrix, and down, as GDAL reads them
        (x_scale, y_scale, *_), (column, row, _, x, y, *_) = tags[_SCALE], tags[_TIE_POINTS]
        y_scale = abs(y_scale)
        matrix = np.array([(x_scale, 0, x - column * x_scale), (0, -y_scale, y + row * y_scale)], dtype=np.float64)
    elif _MATRIX in tags:
        whole = np.array(tags[_MATRIX], dtype=np.float64).reshape(4, 4)
        matrix = whole[:2, [0, 1, 3]]
    else:
        return None
    keys = _geo_keys(tags.get(_KEYS, ()))
    if keys.get(_RASTER_TYPE) == _IS_POINT:  # the file states the centre of a pixel
        matrix[:, 2] -= matrix[:, :2] @ (0.5, 0.5)
    return Grid(shape, matrix, keys.get(_PROJECTED, keys.get(_GEOGRAPHIC)))


def draw_features(
    features: Sequence[Feature], grid: Grid, column: str | None, class_names: list[str], *, overlap: bool = False
) -> np.ndarray:
    """Draw features on a raster: (H, W)."""
    height, width = grid.shape
    canvas = Canvas(height, width, len(class_names), overlap=overlap)
    beyond = width + _MARGIN_PX, height + _MARGIN_PX
    for feature in features:
        name = _class_of(feature, column)
        value = 0 if is_background(name) else class_names.index(name)
        for polygon in feature.polygons:
            rings = [grid.to_pixels(ring) for ring in polygon]
            rings = list(clip(rings, -_MARGIN_PX, beyond))
            if rings:
                canvas.rings([np.round(ring, 6) for ring in rings], value)
    return canvas.ids()


def _geo_keys(stored: Sequence[int]) -> dict[int, int]:
    """Read the keys of the GeoTIFF standard whose values are numbers."""
    entries = np.array(stored, dtype=np.int64)[4:].reshape(-1, 4) if len(stored) >= 4 else np.empty((0, 4), np.int64)
    return {int(key): int(value) for key, place, _, value in entries if place == 0}


def _placed(path: Path, layer: Layer, grid: Grid) -> tuple[list[Feature], str]:
    """Give the features in the raster's coordinates, and a note where that was assumed."""
    if layer.epsg is None or grid.epsg is None:
        return layer.features, f"{path.name} is taken in the rasters' coordinates"
    if layer.epsg == grid.epsg:
        return layer.features, ""
    try:
        warp: Any = importlib.import_module("rasterio.warp")
    except ImportError:
        raise ExtraError(
            f"{path}: its coordinates are EPSG:{layer.epsg}, and a raster has EPSG:{grid.epsg}. Install the extra geo (pip "
            f"install 'unet_dist[geo]'), or convert it: ogr2ogr -t_srs EPSG:{grid.epsg} OUT {path.name}."
        ) from None
    change = partial(warp.transform, f"EPSG:{layer.epsg}", f"EPSG:{grid.epsg}")  # longitude first, whatever EPSG says
    return [
        Feature([[_changed(change, ring) for ring in rings] for rings in one.polygons], one.properties)
        for one in layer.features
    ], ""


def _changed(change: Callable[..., Any], ring: np.ndarray) -> np.ndarray:
    return np.stack(change(ring[:, 0], ring[:, 1])[:2], axis=1)


def _file_of(raster: Path, files: Sequence[Path]) -> Path:
    """Give the file of a raster's features: the only one, or that of the same name."""
    found = list(files) if len(files) == 1 else [path for path in files if path.stem == raster.stem]
    if len(found) != 1:
        raise DataError(
            f"{raster}: which of {listed([path.name for path in files])} holds its features? Keep one for all rasters, or one for "
            "each, of its name."
        )
    return found[0]


def _check_folders(root: Path, rasters: Sequence[Path]) -> None:
    """Raises DataError: a folder on the way to a raster looks like a split, or lies beside one, and is none."""
    inside: dict[Path, set[str]] = {}
    for raster in rasters:
        for folder in raster.relative_to(root).parents:
            if folder.name:
                inside.setdefault(folder.parent, set()).add(folder.name)
    for parent, names in inside.items():
        check_split_names(root / parent, names)


def _split_of(raster: Path, root: Path) -> str:
    words = [part for part in raster.relative_to(root).parts[:-1] if is_split_name(part)]
    return canonical_split(words[0]) if words else "train"


def _column(path: Path, features: Sequence[Feature], label_column: str) -> str | None:
    """Find the property that names the class, None where features have none."""
    found = list(dict.fromkeys(key for feature in features for key in feature.properties))
    by_lower = {key.lower(): key for key in found}
    if label_column in found:
        return label_column
    usual = next((by_lower[key] for key in _USUAL if key in by_lower), None)
    if usual is not None or not found:
        return usual
    if len(found) == 1:
        if len(features) > 2 and len({str(feature.properties.get(found[0])) for feature in features}) == len(features):
            raise DataError(
                f"{path}: each of its {len(features)} features has its own {found[0]}. If that names classes: --label_column "
                f"{found[0]}; else remove it, and all are of one class, or add a property class."
            )
        return found[0]
    raise DataError(f"{path}: which of {listed(found)} names the class of a feature? Name it: --label_column NAME.")


def _classes(path: Path, features: Sequence[Feature], column: str | None) -> list[str]:
    if not features:
        raise DataError(f"{path}: it holds no polygons.")
    if column is not None and any(feature.properties.get(column) in (None, "") for feature in features):
        raise DataError(f"{path}: a feature has no {column}. Fill it, or remove the feature.")
    if column is not None and any(isinstance(feature.properties[column], dict | list) for feature in features):
        raise DataError(
            f"{path}: {column} of a feature holds several values, expected one. Name a property that names the class: "
            "--label_column NAME."
        )
    names = {_class_of(feature, column) for feature in features}
    return sorted((name for name in names if not is_background(name)), key=lambda name: (_number(name), name))


def _class_of(feature: Feature, column: str | None) -> str:
    value = _ONLY_CLASS if column is None else feature.properties[column]
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _number(name: str) -> float:
    return int(name) if name.isdigit() else float("inf")


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
