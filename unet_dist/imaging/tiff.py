"""TIFF and BigTIFF by windows: tiles and strips are decoded when a window needs them, pyramids by level.

Owns what in a TIFF counts as an image: one picture of the file's first series, or of a stack the one that is named
(`tiff_stack.py`), with all its samples as channels but the one that the file calls alpha, which must be opaque. Overviews
and masks belong to their image: where its mask is 0, it has no data. It stands upright, as its orientation says.
"""

from __future__ import annotations

import io
import logging
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import tifffile

from unet_dist.errors import RefusedError
from unet_dist.imaging.encoded import Encoded, parsing
from unet_dist.imaging.gdal_tags import band_names_tag, nodata_tag, scaling_tag
from unet_dist.imaging.image import GEO_TAGS, UINT8, ImageFormat, ImageReader, Opening, Placement, Stored
from unet_dist.imaging.limits import in_time, require_decodable
from unet_dist.imaging.loss import EXACT, loss_in
from unet_dist.imaging.picture_ends import is_cut_short
from unet_dist.imaging.pyramid import choose_level
from unet_dist.imaging.readers import BlockReader, MaskedReader, TurnedReader
from unet_dist.imaging.stated_sizes import stated_size
from unet_dist.imaging.tiff_pages import count_pages
from unet_dist.imaging.tiff_stack import StackImage, image_of, num_images
from unet_dist.imaging.values import (
    Conversion,
    Scaling,
    make_conversion,
    require_ids_unscaled,
)

# What it finds odd, such as a GDAL_NODATA of more digits than float32 has, is judged here.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

Decode = Callable[[int, int], np.ndarray]

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_MASK, _STRIPS, _TILES = 4, 273, 324
"""The bit of NewSubfileType that says so."""
_ALPHA = (1, 2)  # associated and unassociated
_HEADER_BYTES = 8
_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG = (6, 7, 34892, 33007)
_PICTURES = (*_JPEG, 22610, 33003, 33004, 33005, 34712, 34887, 34927, 34933, 34934, 50001, 50002, 52546)
"""Compressions whose pieces are pictures with a size of their own: JPEG, JPEG 2000, LERC, PNG, WebP, JPEG XL."""
_LOSS_BYTES = 2**16  # assumption: a header ends before
_MAPPED_BLOCK = (512, 512)
_QUICK_BYTES = 2**20
"""Decoded in this thread: a piece of so few bytes, of which no more are encoded, takes seconds at most in any codec. Another
thread allocates elsewhere, at a quarter more time (measured: tiles of 256 px)."""
_OME_MICRONS = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4}


def open_tiff(encoded: Encoded, opening: Opening) -> ImageReader:
    """Open one level of a TIFF, BigTIFF, GeoTIFF or OME-TIFF, as colours unless `interpret` says otherwise.

    Raises:
        RefusedError: damaged or truncated, a stack instead of one image, a colour space that is not grey or RGB, fewer than
            8 bits without a value_range, no such level, or a tile or strip of more than max_pixels.
        ConfigError: both level and mpp.
    """
    _ = encoded.head
    with parsing(encoded.name, kind="TIFF"), ExitStack() as stack:
        count_pages(encoded)
        file = stack.enter_context(tifffile.TiffFile(encoded.path or io.BytesIO(encoded.read())))
        reader = _open_level(encoded, file, opening)
        stack.pop_all()
        return reader


TIFF = ImageFormat(
    "TIFF", (".tif", ".tiff"), lambda encoded: not encoded.is_folder and encoded.head[:4] in _MARKS, open_tiff, True
)


def _open_level(encoded: Encoded, file: Any, opening: Opening) -> ImageReader:
    name = encoded.name
    number = _require_image(file, encoded)
    levels = [image_of(level, number, name) for level in file.series[0].levels]
    sides = [dict(zip(entry.axes, entry.shape, strict=True)) for entry in levels]
    shapes = [(side["Y"], side["X"]) for side in sides]
    if min(map(min, shapes)) < 1:
        raise _damaged(name, f"its levels measure {shapes}")
    placement = replace(_placement(file), band_names=band_names_tag(file))
    chosen = choose_level(shapes, placement.microns_per_px, level=opening.level, mpp=opening.mpp, name=name)
    height, width = shapes[chosen]
    page = levels[chosen].keyframe
    if page.planarconfig not in (1, 2):  # readers take others for the one or for the other
        raise _damaged(name, f"its PlanarConfiguration is {int(page.planarconfig)}, expected 1 or 2")
    if page.dtype is None:  # what it leaves out would be read as zeros of any type
        raise _damaged(name, f"its BitsPerSample is {page.bitspersample}")
    samples = page.samplesperpixel * sides[chosen].get("C", 1)
    values_of, block_shape = _source(encoded, file, levels[chosen], opening.max_pixels)
    scaling = scaling_tag(file, samples, opening, name)
    if opening.interpret is None:
        to_pixels = _colours(page, samples, opening, nodata_tag(file, opening), scaling, name)
    else:
        require_ids_unscaled(scaling, name)
        stored, interpret = _stored(page, samples, nodata_tag(file, opening), encoded), opening.interpret
        to_pixels = Conversion(interpret.dtype, samples if opening.keeps_channels else 1, False, interpret(stored))

    if to_pixels.channels < 1:
        raise _damaged(name, "it has no channel beside its alpha")

    def decode(block_row: int, block_col: int) -> np.ndarray:
        values = values_of(block_row, block_col)
        rows = min(block_shape[0], height - block_row * block_shape[0])
        cols = min(block_shape[1], width - block_col * block_shape[1])
        if values.ndim != 3 or values.shape[0] < rows or values.shape[1] < cols or values.shape[2] != samples:
            raise _damaged(name, f"a tile or strip holds {values.shape}, not {(rows, cols, samples)}")
        return to_pixels(values[:rows, :cols])  # without what a tile at the border is filled up with

    reader: ImageReader = BlockReader(
        (height, width, to_pixels.channels),
        block_shape,
        decode,
        dtype=to_pixels.dtype,
        has_nodata=to_pixels.has_nodata,
        placement=placement.scaled(shapes[0][0] / height, shapes[0][1] / width),
        cache_bytes=opening.cache_bytes,
        release=file.close,
    )
    if opening.interpret is None and (mask := _mask_of(file, (height, width), name)) is not None:
        mask_of, mask_block = _source(encoded, file, mask, opening.max_pixels)
        reader = MaskedReader(reader, BlockReader((height, width, 1), mask_block, mask_of))
    orientation = page.tags.valueof(274, default=1)
    # Where the place in the world is stated it is that of the stored rows, and viewers of maps turn nothing.
    return reader if placement.geo_tags or orientation not in range(2, 9) else TurnedReader(reader, orientation)


def _require_image(file: Any, encoded: Encoded) -> int:
    """Give the number of the image that is meant, counted from 0. Raises: RefusedError: there is none, or it is one of several."""
    series, name = file.series[0], encoded.name
    count = num_images(series)
    if encoded.page is None and count > 1:
        sides = ", ".join(f"{axis} {side}" for axis, side in zip(series.axes, series.shape, strict=True))
        file_name = encoded.path.name if encoded.path else "file.tif"
        raise RefusedError(
            f"{name} is a stack of images (axes {sides})",
            f"Name one of its {count} images, from {file_name}#1 to {file_name}#{count}; of a folder or for predict, "
            "those at a place of an axis: --select z=5.",
        )
    if encoded.page is not None and encoded.page > count:
        raise RefusedError(f"{name} holds {count} image{'s' * (count != 1)}", "Name one of them.")
    # Overviews (1) and masks (4) belong to the image; scanners add a label and a thumbnail, and say who they are.
    others = [entry for entry in file.series[1:] if not int(entry.keyframe.subfiletype) & 0b101]
    if others and not (file.is_svs or file.is_ndpi or file.is_scn or file.is_bif or file.is_ome or file.is_philips):
        raise RefusedError(
            f"{name} holds {len(others) + 1} images of different kinds", "Write each as a file of its own."
        )
    return (encoded.page or 1) - 1


def _mask_of(file: Any, shape: tuple[int, int], name: str) -> StackImage | None:
    """Find the mask of an image of this (height, width), as GDAL writes it beside: 0 where there are no data; None without one."""
    levels = [level for series in file.series[1:] for level in series.levels]
    masks = [level for level in levels if int(level.keyframe.subfiletype) & _MASK and level.shape == shape]
    return image_of(masks[0], 0, name) if masks else None


def _source(encoded: Encoded, file: Any, series: Any, max_pixels: int) -> tuple[Decode, tuple[int, int]]:
    """Return how a block's stored values (rows, cols, samples) are had, and the block's shape."""
    if _STRIPS in series.keyframe.tags and _TILES in series.keyframe.tags:
        raise _damaged(encoded.name, "it says where strips lie and where tiles lie, expected one of the two")
    if series.dataoffset is not None:  # uncompressed in one piece, often one strip: cut it where we like
        return _mapped(encoded, file, series), _MAPPED_BLOCK
    page = series.keyframe
    height, width = page.chunks[:2]
    height = min(height, page.imagelength)  # RowsPerStrip may be 2^32 - 1, which means one strip
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    bytes_per_px = 2 * samples * np.dtype(page.dtype).itemsize  # the decoded bytes, and a copy as pixels
    require_decodable(height, width, max_pixels, encoded.name, bytes_per_px=bytes_per_px)
    return _segments(encoded, file, series, (height, width)), (height, width)


def _mapped(encoded: Encoded, file: Any, series: Any) -> Decode:
    end, size = series.dataoffset + series.nbytes, encoded.num_bytes
    if series.dataoffset < _HEADER_BYTES:
        raise _damaged(encoded.name, f"the pixels begin at byte {series.dataoffset}, within the header")
    if end > size:  # a map beyond the end of the file would end the process at the first read
        raise _damaged(encoded.name, f"the pixels end at byte {end} and the file at {size}")
    dtype = np.dtype(file.byteorder + series.dtype.char)
    mapped = encoded.map(dtype, series.dataoffset, series.shape)
    if series.axes == "YX":
        mapped = mapped[:, :, None]
    elif series.axes != "YXS":
        mapped = np.moveaxis(mapped, 0, -1)
    height, width = _MAPPED_BLOCK

    def cut(block_row: int, block_col: int) -> np.ndarray:
        rows = slice(block_row * height, (block_row + 1) * height)
        return np.array(mapped[rows, block_col * width : (block_col + 1) * width])

    return cut


def _segments(encoded: Encoded, file: Any, series: Any, segment_shape: tuple[int, int]) -> Decode:
    page, name = series.keyframe, encoded.name
    if page.compression == 6:  # its tables lie elsewhere in the file, and writers differed in where
        raise RefusedError(
            f"{name} is compressed as old-style JPEG (compression 6), which is not read",
            "Write it anew without it: tiffcp -c zip IN.tif OUT.tif.",
        )
    if page.compression not in tifffile.TIFF.DECOMPRESSORS:
        raise RefusedError(
            f"{name} is compressed as {getattr(page.compression, 'name', page.compression)}, which the installed tifffile "
            "and imagecodecs do not decode",
            "Install newer ones (fax: imagecodecs 2026.3.6, of Python 3.11), or write it with deflate.",
        )
    grid_rows, grid_cols = -(-page.imagelength // segment_shape[0]), -(-page.imagewidth // segment_shape[1])
    num_planes = 1 if page.planarconfig == 1 else page.samplesperpixel
    samples = page.samplesperpixel // num_planes
    decoded_bytes = segment_shape[0] * segment_shape[1] * samples * np.dtype(page.dtype).itemsize
    size = encoded.num_bytes
    for part in series.pages:
        if part is None or min(len(part.dataoffsets), len(part.databytecounts)) < num_planes * grid_rows * grid_cols:
            raise _damaged(name, "it lists fewer tiles or strips than its size needs")
        starts, counts = (np.asarray(of, dtype=np.int64) for of in (part.dataoffsets, part.databytecounts))
        if (within := (starts < _HEADER_BYTES) & (counts > 0)).any():  # the codecs of fax make a picture of any bytes
            first = int(np.argmax(within))
            raise _damaged(name, f"segment {first} of {len(starts)} begins at byte {starts[first]}, within the header")
        ends = starts + counts
        if ends.max() > size:
            first = int(np.argmax(ends > size))
            raise _damaged(name, f"segment {first} of {len(ends)} ends at byte {ends[first]} and the file at {size}")
    content = encoded.content if isinstance(encoded.content, bytes) else None
    descriptor = -1 if content is not None else file.filehandle.fileno()

    def decode_segment(part: Any, index: int) -> np.ndarray:
        count, offset = part.databytecounts[index], part.dataoffsets[index]
        if count == 0:  # a sparse file leaves out empty tiles
            return np.full((*segment_shape, samples), page.nodata, page.dtype)
        try:
            # pread moves no file position: threads and forked workers share the descriptor.
            data = content[offset : offset + count] if content is not None else os.pread(descriptor, count, offset)
            if page.compression in _PICTURES and page.jpegheader is None and is_cut_short(data):
                raise _damaged(name, f"segment {index} ends before its picture does")
            if page.compression in _PICTURES and (stated := stated_size(data)) is not None:
                require_decodable(*stated, 2**62, name, bytes_per_px=2 * samples * np.dtype(page.dtype).itemsize)
            values = page.decode(data, index, jpegtables=part.jpegtables, jpegheader=page.jpegheader)[0]
        except RefusedError:
            raise
        except Exception as error:  # codecs answer damaged bytes with whatever they lead to
            raise _damaged(name, f"segment {index}: {type(error).__name__}: {error}") from error
        return values[0]  # (depth 1, rows, cols, samples)

    def decode(block_row: int, block_col: int) -> np.ndarray:
        index = block_row * grid_cols + block_col
        area = grid_rows * grid_cols
        segments = [(part, plane * area + index) for part in series.pages for plane in range(num_planes)]
        is_quick = decoded_bytes <= _QUICK_BYTES and all(
            part.databytecounts[at] <= decoded_bytes for part, at in segments
        )

        def decode_all() -> list[np.ndarray]:
            return [decode_segment(*segment) for segment in segments]

        planes = decode_all() if is_quick else in_time(name, decode_all)
        values = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)
        return values.astype(bool) if page.bitspersample == 1 else values  # the codecs of fax give 0 and 1 as bytes

    return decode


def _colours(
    page: Any, samples: int, opening: Opening, nodata: float | None, scaling: Scaling | None, name: str
) -> Conversion:
    """Return how stored values become pixels; without an alpha channel.

    Raises:
        RefusedError: another colour space, or fewer than 8 bits without a value_range.
    """
    if page.photometric == _PALETTE:
        table = _palette(page, name)
        alpha = _alpha_index(page)
        others = slice(0) if alpha is None else slice(alpha, alpha + 1)
        conversion = make_conversion(
            UINT8,
            3 if alpha is None else 4,
            value_range=opening.value_range,
            nodata=None,
            name=name,
            alpha=None if alpha is None else 3,
        )

        def look_up(values: np.ndarray) -> np.ndarray:
            # As numbers: of one bit the indices are bools, by which numpy would choose and not look up.
            indices = values[:, :, 0].astype(np.intp)
            if (largest := int(indices.max(initial=0))) >= len(table):
                raise RefusedError(
                    f"{name} holds the index {largest} of a palette of {len(table)} colours",
                    "The file is damaged: fetch it again, or leave it out.",
                )
            colours = table[indices]
            return conversion(np.concatenate([colours, values[:, :, others]], axis=2))

        return replace(conversion, convert=look_up)
    decoded = page.photometric == _YCBCR and page.compression in _JPEG
    if page.photometric not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB) and not decoded:
        space = getattr(page.photometric, "name", page.photometric)
        raise RefusedError(f"{name} is in the colour space {space}", "Expected grey or RGB: save it as RGB.")
    if opening.value_range is None and 1 < page.bitspersample < 8:  # they arrive as uint8, and would all look black
        raise RefusedError(
            f"{name} holds {page.bitspersample}-bit values",
            f"Say which are black and white with value_range: 0,{2**page.bitspersample - 1}.",
        )
    return make_conversion(
        np.dtype(bool) if page.bitspersample == 1 else np.dtype(page.dtype),
        samples,
        value_range=opening.value_range,
        nodata=nodata,
        name=name,
        alpha=_alpha_index(page),
        is_inverted=page.photometric == _MIN_IS_WHITE,
        bits=page.bitspersample if 1 < page.bitspersample < 16 and page.bitspersample != 8 else None,
        scaling=scaling,
    )


def _alpha_index(page: Any) -> int | None:
    """Find the channel that the file itself calls alpha; others beyond grey or RGB are bands."""
    kinds = [int(kind) for kind in page.extrasamples]
    first = next((place for place, kind in enumerate(kinds) if kind in _ALPHA), None)
    return None if first is None else int(page.samplesperpixel) - len(kinds) + first


def _palette(page: Any, name: str) -> np.ndarray:
    """Read the colours of a palette: (entries, 3) uint8. Raises: RefusedError: it is no table of colours."""
    table = np.asarray(page.colormap).T  # (entries, 3) uint16
    if table.ndim != 2 or table.shape[1] != 3 or not table.size:
        raise _damaged(name, f"its palette has the shape {table.shape}, expected three values for each colour")
    return (table >> 8 if table.max() > 255 else table).astype(np.uint8)  # some writers leave the colours at 8 bits


def _stored(page: Any, samples: int, nodata: float | None, encoded: Encoded) -> Stored:
    name, lossy, found = encoded.name, None, zip(page.dataoffsets, page.databytecounts, strict=False)
    if page.compression not in EXACT and (piece := next((one for one in found if one[1]), None)):
        with encoded.open() as file:
            file.seek(piece[0])
            lossy = loss_in(int(page.compression), file.read(min(piece[1], _LOSS_BYTES)))
    return Stored(
        page.dtype,
        samples,
        _palette(page, name) if page.photometric == _PALETTE else None,
        lossy,
        white_is_zero=page.photometric == _MIN_IS_WHITE,
        nodata=nodata,
    )


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


def _damaged(name: str, reason: str) -> RefusedError:
    return RefusedError(
        f"{name} is a damaged or truncated TIFF: {reason.rstrip('.')}", "Copy it again, or write it anew."
    )
