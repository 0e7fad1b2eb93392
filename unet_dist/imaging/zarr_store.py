"""Zarr arrays (v2, v3) and OME-Zarr pyramids by windows.

Owns which axes of an array are height, width and channels, and which arrays of a group are the levels of one image.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unet_dist.errors import DataError, ExtraError
from unet_dist.imaging.image import (
    BlockReader,
    Interpret,
    Placement,
    Stored,
    ValueRange,
    require_decodable,
    require_mappable,
    to_uint8,
)
from unet_dist.imaging.pyramid import choose_level

_MIN_BLOCK = 256
"""Smaller chunks are read several at a time: each request to Zarr costs about a millisecond."""

_AXES = {"y": "y", "x": "x", "c": "c", "channel": "c", "band": "c", "height": "y", "width": "x"}
_LENGTH_MICRONS = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr array or group."""
    return any((path / name).exists() for name in ("zarr.json", ".zarray", ".zgroup"))


def open_zarr(
    path: Path,
    *,
    level: int | None,
    mpp: float | None,
    value_range: ValueRange | None,
    max_pixels: int,
    cache_bytes: int,
    interpret: Interpret | None = None,
) -> BlockReader:
    """Open an array, or a level of a group: of an OME-Zarr image, or of a group of arrays that are named 0, 1, 2 ...

    Its values are pixels unless `interpret` says otherwise.

    An array's axes are read from its names (y, x and, if there is one, c; others of length 1); without names it is
    (height, width) or (height, width, channels).

    Raises:
        DataError: not Zarr, a group without an array or with arrays that are no pyramid, unknown axes, other values
            than uint8 without a value_range, no such level, or chunks of more than max_pixels.
        ExtraError: zarr 3 is not installed.
    """
    node = _open(path)
    attributes = dict(node.attrs)
    image = (attributes.get("ome", attributes).get("multiscales") or [{}])[0]
    arrays = _levels(node, image, path)
    axes = [_axes(array, image, path) for array in arrays]
    shapes = [(array.shape[at["y"]], array.shape[at["x"]]) for array, at in zip(arrays, axes, strict=True)]
    placement = _placement(image)
    chosen = choose_level(shapes, placement.microns_per_px, level=level, mpp=mpp, name=str(path))
    array, at, (height, width) = arrays[chosen], axes[chosen], shapes[chosen]
    channels = array.shape[at["c"]] if "c" in at else 1
    to_pixels: Callable[[np.ndarray], np.ndarray] = partial(to_uint8, value_range=value_range)
    if interpret is None:
        require_mappable(np.dtype(array.dtype), value_range, str(path))
    else:
        to_pixels, channels = interpret(Stored(np.dtype(array.dtype), channels)), 1
    block_height, block_width = (_whole_chunks(array.chunks[at["y"]]), _whole_chunks(array.chunks[at["x"]]))
    require_decodable(min(block_height, height), min(block_width, width), max_pixels, str(path))

    def decode(block_row: int, block_col: int) -> np.ndarray:
        selection: list[Any] = [slice(None) if axis == at.get("c") else 0 for axis in range(array.ndim)]
        selection[at["y"]] = slice(block_row * block_height, min((block_row + 1) * block_height, height))
        selection[at["x"]] = slice(block_col * block_width, min((block_col + 1) * block_width, width))
        try:
            values = np.asarray(array[tuple(selection)])
        except (OSError, RuntimeError, ValueError) as error:  # what the codecs raise on damaged chunks
            raise DataError(
                f"{path}: the chunk at row {block_row * block_height}, column {block_col * block_width} cannot be "
                f"decoded: {error}. It is damaged: copy the folder again."
            ) from error
        kept = sorted(at.values())
        order = [kept.index(at[name]) for name in ("y", "x", "c") if name in at]
        values = values.transpose(order)
        return to_pixels(values if values.ndim == 3 else values[:, :, None])

    return BlockReader(
        (height, width, channels),
        (block_height, block_width),
        decode,
        placement=placement.scaled(shapes[0][0] / height, shapes[0][1] / width),
        cache_bytes=cache_bytes,
    )


def require_zarr() -> Any:
    """Import zarr, version 3.

    Raises:
        ExtraError: it is not installed, as on Python 3.10.
    """
    try:
        import zarr
    except ImportError as error:
        raise ExtraError(
            "Zarr needs the package zarr, version 3: pip install 'zarr>=3' (Python 3.11 or newer)."
        ) from error
    return zarr


def _open(path: Path) -> Any:
    zarr = require_zarr()
    try:
        return zarr.open(str(path), mode="r")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # zarr trusts its own metadata
        raise DataError(
            f"{path} is not a Zarr array or group: {error}. Check the path, or copy the folder again."
        ) from error


def _levels(node: Any, image: dict, path: Path) -> list[Any]:
    """Return the arrays of one image, the finest first."""
    if hasattr(node, "shape"):
        return [node]
    if image.get("datasets"):
        names = [entry["path"] for entry in image["datasets"]]
    else:
        names = sorted(name for name, _ in node.arrays())
        if len(names) > 1 and all(name.isdecimal() for name in names):
            names.sort(key=int)
        elif len(names) != 1:
            found = f"the arrays {', '.join(names)}" if names else "no array"
            groups = sorted(name for name, _ in node.groups())
            inside = f" and the groups {', '.join(groups)}" if groups else ""
            raise DataError(
                f"{path} is a Zarr group with {found}{inside}. Expected one array, arrays named 0, 1, 2 ... or OME-Zarr "
                f"multiscales: name the one you mean, {path}/NAME."
            )
    try:
        return [node[name] for name in names]
    except KeyError as error:
        raise DataError(f"{path} lists the level {error} and does not hold it. Copy the folder again.") from error


def _axes(array: Any, image: dict, path: Path) -> dict[str, int]:
    """Say which axis is y, x and, where there is one, c."""
    names = [entry if isinstance(entry, str) else entry["name"] for entry in image.get("axes", [])]
    names = names or list(getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS", []))
    if not names:
        names = ["y", "x", "c"][: array.ndim]
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] > min(array.shape[:2])):
            raise DataError(
                f"{path} has shape {array.shape} and unnamed axes. Expected (height, width) or (height, width, "
                "channels): name its axes (dimension_names y, x, c) or transpose it."
            )
    at = {_AXES[name.lower()]: axis for axis, name in enumerate(names) if str(name).lower() in _AXES}
    others = [axis for axis in range(array.ndim) if axis not in at.values()]
    if not {"y", "x"} <= at.keys() or any(array.shape[axis] != 1 for axis in others):
        sides = ", ".join(f"{name} {side}" for name, side in zip(names, array.shape, strict=False))
        raise DataError(
            f"{path} has the axes {sides}. Expected y, x and perhaps c, and others only of length 1: select one image "
            "and write it as an array of its own."
        )
    return at


def _whole_chunks(side: int) -> int:
    return side * -(-_MIN_BLOCK // side)


def _placement(image: dict) -> Placement:
    """Read the size of a pixel of level 0 from OME-Zarr."""
    try:
        axes = {entry["name"]: (index, _LENGTH_MICRONS[entry["unit"]]) for index, entry in enumerate(image["axes"])
                if entry["name"] in "yx"}  # fmt: skip
        transforms = image["datasets"][0]["coordinateTransformations"]
        scale = next(entry["scale"] for entry in transforms if entry["type"] == "scale")
        x, y = (scale[axes[name][0]] * axes[name][1] for name in "xy")
        return Placement((1e4 / x, 1e4 / y), 3)
    except (KeyError, TypeError, IndexError, StopIteration, ZeroDivisionError):
        return Placement()
