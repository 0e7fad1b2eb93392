"""TIFF and BigTIFF by windows: tiles and strips are decoded when a window needs them, pyramids by level.

Owns what in a TIFF counts as an image: one picture of the file's first series, with all its samples as channels
(also an alpha channel: a file cannot say cheaply that it is opaque, and four-band aerial images are often marked so).
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from unet_dist.errors import DataError, UnetDistError
from unet_dist.imaging.image import (
    GEO_TAGS,
    BlockReader,
    Interpret,
    Placement,
    Stored,
    ValueRange,
    ValueRangeError,
    require_decodable,
    require_mappable,
    to_uint8,
)
from unet_dist.imaging.pyramid import choose_level

Decode = Callable[[int, int], np.ndarray]

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_JPEG = (6, 7, 34892, 33007)
_MAPPED_BLOCK = (512, 512)
_OME_MICRONS = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4}


def open_tiff(
    path: Path,
    *,
    level: int | None,
    mpp: float | None,
    value_range: ValueRange | None,
    max_pixels: int,
    cache_bytes: int,
    interpret: Interpret | None = None,
) -> BlockReader:
    """Open one level of a TIFF, BigTIFF, GeoTIFF or OME-TIFF, as colours unless `interpret` says otherwise.

    Raises:
        DataError: damaged or truncated, a stack instead of one image, a colour space that is not grey or RGB, more than
            8 bits without a value_range, no such level, or a tile or strip of more than max_pixels.
        ConfigError: both level and mpp.
    """
    file = None
    try:
        file = tifffile.TiffFile(path)
        return _open_level(path, file, level, mpp, value_range, max_pixels, cache_bytes, interpret)
    except Exception as error:
        if file is not None:
            file.close()
        if isinstance(error, UnetDistError):
            raise
        # tifffile answers damaged bytes with whatever they lead to, ZeroDivisionError too.
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def count_pixels(path: Path) -> int:
    """Count the pixels of the finest level by the header.

    Raises:
        DataError: damaged.
    """
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            return int(page.imagelength) * int(page.imagewidth)
    except Exception as error:  # as above
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def _open_level(
    path: Path,
    file: Any,
    level: int | None,
    mpp: float | None,
    value_range: ValueRange | None,
    max_pixels: int,
    cache_bytes: int,
    interpret: Interpret | None,
) -> BlockReader:
    levels = file.series[0].levels
    _require_one_image(levels[0], path)
    sides = [dict(zip(entry.axes, entry.shape, strict=True)) for entry in levels]
    shapes = [(side["Y"], side["X"]) for side in sides]
    if min(map(min, shapes)) < 1:
        raise _damaged(path, f"its levels measure {shapes}")
    placement = _placement(file)
    chosen = choose_level(shapes, placement.microns_per_px, level=level, mpp=mpp, name=str(path))
    height, width = shapes[chosen]
    page = levels[chosen].keyframe
    samples = page.samplesperpixel * sides[chosen].get("C", 1)
    channels = 3 if page.photometric == _PALETTE else samples
    values_of, block_shape = _source(path, file, levels[chosen], max_pixels)
    if interpret is None:
        to_pixels = _colours(page, value_range, path)
    else:
        to_pixels, channels = interpret(_stored(page, samples)), 1

    def decode(block_row: int, block_col: int) -> np.ndarray:
        values = values_of(block_row, block_col)
        rows = min(block_shape[0], height - block_row * block_shape[0])
        cols = min(block_shape[1], width - block_col * block_shape[1])
        if values.ndim != 3 or values.shape[0] < rows or values.shape[1] < cols or values.shape[2] != samples:
            raise _damaged(path, f"a tile or strip holds {values.shape}, not {(rows, cols, samples)}")
        return to_pixels(values)

    return BlockReader(
        (height, width, channels),
        block_shape,
        decode,
        placement=placement.scaled(shapes[0][0] / height, shapes[0][1] / width),
        cache_bytes=cache_bytes,
        release=file.close,
    )


def _require_one_image(series: Any, path: Path) -> None:
    if series.axes not in ("YX", "YXS", "SYX", "CYX"):
        sides = ", ".join(f"{axis} {side}" for axis, side in zip(series.axes, series.shape, strict=True))
        raise DataError(
            f"{path} is a stack of images (axes {sides}). Expected one image of height, width and channels: split it "
            "into one file each."
        )
    orientation = series.keyframe.tags.valueof(274, default=1)
    if orientation != 1:
        raise DataError(
            f"{path} is stored turned or mirrored (TIFF orientation {orientation}). Expected orientation 1: save it "
            "upright."
        )


def _source(path: Path, file: Any, series: Any, max_pixels: int) -> tuple[Decode, tuple[int, int]]:
    """Return how a block's stored values (rows, cols, samples) are had, and the block's shape."""
    if series.dataoffset is not None:  # uncompressed in one piece, often one strip: cut it where we like
        return _mapped(path, file, series), _MAPPED_BLOCK
    page = series.keyframe
    height, width = page.chunks[:2]
    height = min(height, page.imagelength)  # RowsPerStrip may be 2^32 - 1, which means one strip
    require_decodable(height, width, max_pixels, str(path))
    return _segments(path, file, series, (height, width)), (height, width)


def _mapped(path: Path, file: Any, series: Any) -> Decode:
    end, size = series.dataoffset + series.nbytes, path.stat().st_size
    if end > size:  # a map beyond the end of the file would end the process at the first read
        raise _damaged(path, f"the pixels end at byte {end} and the file at {size}")
    dtype = np.dtype(file.byteorder + series.dtype.char)
    mapped: np.ndarray = np.memmap(path, dtype, mode="r", offset=series.dataoffset, shape=series.shape)
    if series.axes == "YX":
        mapped = mapped[:, :, None]
    elif series.axes != "YXS":
        mapped = np.moveaxis(mapped, 0, -1)
    height, width = _MAPPED_BLOCK

    def cut(block_row: int, block_col: int) -> np.ndarray:
        rows = slice(block_row * height, (block_row + 1) * height)
        return np.array(mapped[rows, block_col * width : (block_col + 1) * width])

    return cut


def _segments(path: Path, file: Any, series: Any, segment_shape: tuple[int, int]) -> Decode:
    page = series.keyframe
    grid_rows, grid_cols = -(-page.imagelength // segment_shape[0]), -(-page.imagewidth // segment_shape[1])
    num_planes = 1 if page.planarconfig == 1 else page.samplesperpixel
    size = path.stat().st_size
    for part in series.pages:
        if part is None or min(len(part.dataoffsets), len(part.databytecounts)) < num_planes * grid_rows * grid_cols:
            raise _damaged(path, "it lists fewer tiles or strips than its size needs")
        ends = np.asarray(part.dataoffsets, dtype=np.int64) + np.asarray(part.databytecounts, dtype=np.int64)
        if ends.max() > size:
            first = int(np.argmax(ends > size))
            raise _damaged(path, f"segment {first} of {len(ends)} ends at byte {ends[first]} and the file at {size}")
    descriptor = file.filehandle.fileno()

    def decode_segment(part: Any, index: int) -> np.ndarray:
        count = part.databytecounts[index]
        if count == 0:  # a sparse file leaves out what is empty
            return np.full((*segment_shape, page.samplesperpixel // num_planes), page.nodata, page.dtype)
        # pread moves no file position: threads and forked workers share the descriptor.
        data = os.pread(descriptor, count, part.dataoffsets[index])
        try:
            values = page.decode(data, index, jpegtables=part.jpegtables, jpegheader=page.jpegheader)[0]
        except Exception as error:
            raise _damaged(path, f"segment {index}: {type(error).__name__}: {error}") from error
        return values[0]  # (depth 1, rows, cols, samples)

    def decode(block_row: int, block_col: int) -> np.ndarray:
        index = block_row * grid_cols + block_col
        area = grid_rows * grid_cols
        planes = [decode_segment(part, plane * area + index) for part in series.pages for plane in range(num_planes)]
        return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)

    return decode


def _colours(page: Any, value_range: ValueRange | None, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return how stored values become grey or RGB uint8."""
    if page.photometric == _PALETTE:
        table = _palette(page)
        return lambda values: to_uint8(table[values[:, :, 0]], value_range)
    decoded = page.photometric == _YCBCR and page.compression in _JPEG
    if page.photometric not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB) and not decoded:
        space = getattr(page.photometric, "name", page.photometric)
        raise DataError(f"{path} is in the colour space {space}. Expected grey or RGB: save it as RGB.")
    if value_range is None and page.bitspersample not in (1, 8):
        # Also fewer than 8 bits, which arrive as uint8 and would all look black.
        raise ValueRangeError(
            f"{path} holds {page.bitspersample}-bit values ({page.dtype}), and uint8 was expected. Say which values are "
            "black and white with value_range (12-bit data: 0,4095); they are mapped linearly to 0 and 255."
        )
    require_mappable(page.dtype, value_range, str(path))
    if page.photometric == _MIN_IS_WHITE:
        return lambda values: 255 - to_uint8(values, value_range)
    return lambda values: to_uint8(values, value_range)


def _palette(page: Any) -> np.ndarray:
    """Read the colours of a palette: (entries, 3) uint8."""
    table = page.colormap.T  # (entries, 3) uint16
    return (table >> 8 if table.max() > 255 else table).astype(np.uint8)  # some writers leave the colours at 8 bits


def _stored(page: Any, samples: int) -> Stored:
    obstacle = None
    if page.compression in _JPEG:
        obstacle = "is compressed as JPEG, which changes ids"
    elif page.photometric == _MIN_IS_WHITE:
        obstacle = "stores white as 0, so that its ids are upside down"
    return Stored(page.dtype, samples, _palette(page) if page.photometric == _PALETTE else None, obstacle)


def _placement(file: Any) -> Placement:
    """Read resolution and georeference of the finest level."""
    tags = file.series[0].keyframe.tags
    geo_tags = {code: tags[code].value for code in GEO_TAGS if code in tags}
    microns = _ome_microns(file.ome_metadata) if file.is_ome else None
    if microns is not None:
        return Placement((1e4 / microns[0], 1e4 / microns[1]), 3, geo_tags)
    unit = int(tags.valueof(296, default=2))  # inch, says the standard
    try:
        (x, x_per), (y, y_per) = tags[282].value, tags[283].value
        resolution = (x / x_per, y / y_per)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return Placement(geo_tags=geo_tags)
    stated = min(resolution) > 0 and (*resolution, unit) != (1, 1, 1)  # one per nothing is what writers put by default
    return Placement(resolution if stated else None, unit if stated else 1, geo_tags)


def _ome_microns(metadata: str) -> tuple[float, float] | None:
    """Read the size of a pixel, horizontal and vertical, from OME-XML."""
    try:
        pixels = next(node for node in ElementTree.fromstring(metadata).iter() if node.tag.endswith("}Pixels"))
        x, y = (
            float(pixels.attrib[f"PhysicalSize{axis}"]) * _OME_MICRONS[pixels.get(f"PhysicalSize{axis}Unit", "µm")]
            for axis in "XY"
        )
    except (ElementTree.ParseError, StopIteration, KeyError, ValueError):
        return None
    return (x, y) if min(x, y) > 0 else None


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is a damaged or truncated TIFF: {reason}. Copy it again, or write it anew.")
