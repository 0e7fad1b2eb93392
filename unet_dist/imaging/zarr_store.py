"""Zarr arrays (v2, v3) and OME-Zarr pyramids by windows.

Owns which axes of an array are height, width and channels, and which arrays of a group are the levels of one image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from unet_dist.errors import ExtraError, RefusedError, UnetDistError
from unet_dist.imaging.encoded import Encoded, parsing
from unet_dist.imaging.image import ImageFormat, Interpret, Opening, Placement, Stored
from unet_dist.imaging.limits import in_time, require_decodable
from unet_dist.imaging.pyramid import choose_level
from unet_dist.imaging.readers import BlockReader
from unet_dist.imaging.values import Conversion, make_conversion, nodata_of, require_ids_unscaled
from unet_dist.imaging.zarr_chunks import chunk_check
from unet_dist.imaging.zarr_conventions import conventions_of, flag_names, within

_MIN_BLOCK = 256
"""Smaller chunks are read several at a time: each request to Zarr costs about a millisecond."""

_AXES = {
    **dict.fromkeys(("y", "height", "lat", "latitude", "northing", "row", "rows", "line", "lines"), "y"),
    **dict.fromkeys(("x", "width", "lon", "longitude", "easting", "col", "cols", "column", "columns"), "x"),
    **dict.fromkeys(("c", "channel", "channels", "band", "bands"), "c"),
}
# What numcodecs and zarr decode without running anything of the file's.
# fmt: off
_CODECS = {
    "bytes", "endian", "transpose", "sharding_indexed", "crc32c", "blosc", "gzip", "zstd", "zlib",
    "bz2", "lzma", "lz4", "delta", "shuffle", "bitround", "fixedscaleoffset", "quantize",
    "packbits", "crc32", "adler32", "fletcher32", "jenkins_lookup3", "pcodec", "zfpy", "astype",
}
# fmt: on
_LENGTH_MICRONS = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr array or group."""
    return path.is_dir() and any((path / name).exists() for name in ("zarr.json", ".zarray", ".zgroup"))


def open_zarr(encoded: Encoded, opening: Opening) -> BlockReader:
    """Open an array, or a level of a group: of an OME-Zarr image, or of a group of arrays that are named 0, 1, 2 ...

    Its values are pixels unless `interpret` says otherwise.

    An array's axes are read from its names: y, x and, if there is one, c; others count images, of which one is named
    (image.zarr#3). Without names it is (height, width) or (height, width, channels).

    Raises:
        RefusedError: not Zarr, a group without an array or with arrays that are no pyramid, unknown axes, values
            that are no numbers, no such level, chunks of more than max_pixels, or a codec that is not known
            to be harmless.
        ExtraError: zarr 3 is not installed.
    """
    path, name, interpret = encoded.path, encoded.name, opening.interpret
    assert path is not None, encoded
    if not is_zarr(path):
        raise RefusedError(f"{name} is a folder and not Zarr", "Expected an image file or a Zarr array or group.")
    with parsing(name, kind="Zarr"):
        return _open_zarr(path, encoded, opening, interpret)


def _class_names(path: Path) -> dict[int, str]:
    name = str(path)
    with parsing(name, kind="Zarr"):
        node = _open(path, name)
        attributes = dict(node.attrs)
        array = _levels(node, (attributes.get("ome", attributes).get("multiscales") or [{}])[0], name)[0]
        return flag_names({**attributes, **dict(array.attrs)})


ZARR = ImageFormat("Zarr", (".zarr",), lambda encoded: encoded.is_folder, open_zarr, True, class_names=_class_names)


def _open_zarr(path: Path, encoded: Encoded, opening: Opening, interpret: Interpret | None) -> BlockReader:
    name = encoded.name
    node = _open(path, name)
    attributes = dict(node.attrs)
    image = (attributes.get("ome", attributes).get("multiscales") or [{}])[0]
    arrays = _levels(node, image, name)
    axes = [_axes(array, image, name)[0] for array in arrays]
    shapes = [(array.shape[at["y"]], array.shape[at["x"]]) for array, at in zip(arrays, axes, strict=True)]
    placement = _placement(image)
    chosen = choose_level(shapes, placement.microns_per_px, level=opening.level, mpp=opening.mpp, name=name)
    array, at, (height, width) = arrays[chosen], axes[chosen], shapes[chosen]
    places = _places(array, _axes(array, image, name)[1], encoded)
    channels = array.shape[at["c"]] if "c" in at else 1
    _require_harmless(array, name)
    _check_chunks(array, name)
    dtype = np.dtype(array.dtype)
    said = conventions_of(array, channels, name)
    nodata = said.nodata if opening.nodata is None else nodata_of(opening.nodata, dtype)
    if interpret is None:
        to_pixels = make_conversion(
            dtype,
            channels,
            value_range=opening.value_range,
            nodata=nodata,
            name=name,
            scaling=said.scaling,
            valid=said.valid,
        )
    else:
        require_ids_unscaled(said.scaling, name)
        to_ids = interpret(Stored(dtype, channels, nodata=nodata, has_flags=said.has_flags))
        to_ids = to_ids if said.valid is None else within(said.valid, nodata, to_ids, name)
        to_pixels = Conversion(interpret.dtype, channels if opening.keeps_channels else 1, False, to_ids)
    block_height, block_width = (_whole_chunks(array.chunks[at["y"]]), _whole_chunks(array.chunks[at["x"]]))
    # A chunk is decoded whole, also the part of it that lies beyond a small array.
    chunk_height, chunk_width = (max(block_height, array.chunks[at["y"]]), max(block_width, array.chunks[at["x"]]))
    chunk_height = chunk_height if array.chunks[at["y"]] > height else min(block_height, height)
    chunk_width = chunk_width if array.chunks[at["x"]] > width else min(block_width, width)
    # All that lies behind a pixel of a chunk: channels, and what axes of length 1 claim.
    deep = int(
        np.prod([side for axis, side in enumerate(array.chunks) if axis not in (at["y"], at["x"])], dtype=np.int64)
    )
    bytes_per_px = 2 * deep * np.dtype(array.dtype).itemsize
    require_decodable(chunk_height, chunk_width, opening.max_pixels, name, bytes_per_px=bytes_per_px)

    def decode(block_row: int, block_col: int) -> np.ndarray:
        selection: list[Any] = [
            slice(None) if axis == at.get("c") else places.get(axis, 0) for axis in range(array.ndim)
        ]
        selection[at["y"]] = slice(block_row * block_height, min((block_row + 1) * block_height, height))
        selection[at["x"]] = slice(block_col * block_width, min((block_col + 1) * block_width, width))
        try:
            values = in_time(name, lambda: np.asarray(array[tuple(selection)]))
        except RefusedError:
            raise
        except Exception as error:  # codecs answer damaged chunks with whatever they lead to
            raise RefusedError(
                f"{name}: the chunk at row {block_row * block_height}, column {block_col * block_width} cannot be "
                f"decoded: {error}",
                "It is damaged: copy the folder again.",
            ) from error
        kept = sorted(at.values())
        order = [kept.index(at[axis]) for axis in ("y", "x", "c") if axis in at]
        values = values.transpose(order)
        return to_pixels(values if values.ndim == 3 else values[:, :, None])

    return BlockReader(
        (height, width, to_pixels.channels),
        (block_height, block_width),
        decode,
        dtype=to_pixels.dtype,
        has_nodata=to_pixels.has_nodata,
        placement=placement.scaled(shapes[0][0] / height, shapes[0][1] / width),
        cache_bytes=opening.cache_bytes,
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


def _open(path: Path, name: str) -> Any:
    zarr = require_zarr()
    from unet_dist.imaging.zarr_files import RegularFiles

    try:
        return zarr.open(RegularFiles(path, read_only=True), mode="r")
    except Exception as error:  # zarr trusts its own metadata
        raise RefusedError(
            f"{name} is not a Zarr array or group: {error}", "Check the path, or copy the folder again."
        ) from error


def _require_harmless(array: Any, name: str) -> None:
    """Refuse values and codecs that are not named here, before a chunk is read: numcodecs may be asked to unpickle.

    Raises:
        RefusedError: no plain numbers, or such a codec.
    """
    if np.dtype(array.dtype).kind not in "buif":
        raise RefusedError(f"{name} holds {array.dtype} values", "Expected real numbers: convert it first.")
    stored = array.metadata.to_dict()
    codecs = list(stored.get("codecs") or [stored.get("compressor"), *(stored.get("filters") or [])])
    while codecs:
        codec = codecs.pop()
        if codec is None:
            continue
        told = codec if isinstance(codec, dict) else codec.get_config()
        kind = str(told.get("name") or told.get("id")).removeprefix("numcodecs.")
        if kind not in _CODECS:
            raise RefusedError(
                f'{name} is written with the codec "{kind}"',
                f"Expected one of {', '.join(sorted(_CODECS))}: write it anew.",
            )
        inner = told.get("configuration") or {}
        codecs += [*inner.get("codecs", []), *inner.get("index_codecs", [])]  # of shards


def _check_chunks(array: Any, name: str) -> None:
    """Have the chunks of an array checked as they are read, from here on. Raises: RefusedError: codecs as a bomb has them."""
    stored = array.metadata.to_dict()
    codecs = list(stored.get("codecs") or [*(stored.get("filters") or []), stored.get("compressor")])
    try:
        array.store.check = chunk_check(codecs, array.chunks, array.shards, np.dtype(array.dtype).itemsize)
    except ValueError as error:
        raise RefusedError(f"{name} is not decoded: {error}", "Write it anew, with one compression.") from error


def _levels(node: Any, image: dict, name: str) -> list[Any]:
    """Return the arrays of one image, the finest first."""
    if hasattr(node, "shape"):
        return [node]
    if image.get("datasets"):
        names = [entry["path"] for entry in image["datasets"]]
    else:
        names = sorted(key for key, _ in node.arrays())
        if len(names) > 1 and all(key.isdecimal() for key in names):
            names.sort(key=int)
        elif len(names) != 1:
            found = f"the arrays {', '.join(names)}" if names else "no array"
            groups = sorted(key for key, _ in node.groups())
            inside = f" and the groups {', '.join(groups)}" if groups else ""
            raise RefusedError(
                f"{name} is a Zarr group with {found}{inside}",
                "Expected one array, arrays named 0, 1, 2 ... or OME-Zarr multiscales: name the one you mean, "
                f"{name}/NAME.",
            )
    try:
        return [node[key] for key in names]
    except KeyError as error:
        raise RefusedError(f"{name} lists the level {error} and does not hold it", "Copy the folder again.") from error


def zarr_axes(path: Path) -> tuple[tuple[str, int], ...]:
    """Name the axes that count images, in lower case, and their lengths: none of one image, or of what cannot be read."""
    try:
        with parsing(str(path), kind="Zarr"):
            node = _open(path, str(path))
            attributes = dict(node.attrs)
            image = (attributes.get("ome", attributes).get("multiscales") or [{}])[0]
            array = _levels(node, image, str(path))[0]
            others = _axes(array, image, str(path))[1]
            return tuple((word, int(array.shape[axis])) for axis, word in others.items())
    except UnetDistError:  # whoever reads the pixels says what is wrong with it
        return ()


def _places(array: Any, others: dict[int, str], encoded: Encoded) -> dict[int, int]:
    """Find the place on each axis that counts images of the one that is meant. Raises: RefusedError: none is, or there is none."""
    sides = [array.shape[axis] for axis in others]
    count = int(np.prod(sides, dtype=np.int64))
    if encoded.page is None and count > 1:
        said = ", ".join(f"{word} {side}" for word, side in zip(others.values(), sides, strict=True))
        folder = encoded.path.name if encoded.path else "image.zarr"
        raise RefusedError(
            f"{encoded.name} is a stack of images (axes {said})",
            f"Name one of its {count} images, from {folder}#1 to {folder}#{count}; of a folder or for predict, those at a "
            f"place of an axis: --select {next(iter(others.values()))}=1.",
        )
    number = encoded.page or 1
    if number > count:
        raise RefusedError(f"{encoded.name} holds {count} image{'s' * (count != 1)}", "Name one of them.")
    found = np.unravel_index(number - 1, sides) if others else ()
    return {axis: int(place) for axis, place in zip(others, found, strict=True)}


def _axes(array: Any, image: dict, name: str) -> tuple[dict[str, int], dict[int, str]]:
    """Say which axis is y, x and, where there is one, c; and the names of longer ones beside, which count images."""
    names = [entry if isinstance(entry, str) else entry["name"] for entry in image.get("axes", [])]
    names = names or list(getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS", []))
    if not names:
        names = ["y", "x", "c"][: array.ndim]
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] > min(array.shape[:2])):
            raise RefusedError(
                f"{name} has shape {array.shape} and unnamed axes",
                "Expected (height, width) or (height, width, channels): name its axes (dimension_names y, x, c) or "
                "transpose it.",
            )
    at = {_AXES[str(word).lower()]: axis for axis, word in enumerate(names) if str(word).lower() in _AXES}
    others = {
        axis: str(names[axis]).lower() if axis < len(names) else ""
        for axis in range(array.ndim)
        if axis not in at.values() and array.shape[axis] != 1
    }
    if not {"y", "x"} <= at.keys() or not all(others.values()) or 0 in array.shape:
        sides = ", ".join(f"{word} {side}" for word, side in zip(names, array.shape, strict=False))
        raise RefusedError(
            f"{name} has the axes {sides}",
            "Expected y, x and perhaps c, and names for all others: name them (dimension_names), or transpose it.",
        )
    return at, others


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
