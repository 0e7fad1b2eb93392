"""The way in to pixels: whatever the user names becomes a reader, and a window may reach beyond its border.

Owns the mirror at the border. Training crops and prediction windows are both read here,
so that a network sees the same pixels in both.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_dist.errors import DataError, RefusedError
from unet_dist.imaging.encoded import Encoded, parsing
from unet_dist.imaging.formats import format_of
from unet_dist.imaging.gdal_beside import category_names, masked, with_stated
from unet_dist.imaging.image import (
    DEFAULT_CACHE_BYTES,
    DEFAULT_MAX_PIXELS,
    ImageReader,
    Interpret,
    Opening,
    ValueRange,
)
from unet_dist.imaging.limits import in_time
from unet_dist.imaging.picture import picture_reader
from unet_dist.imaging.readers import ArrayReader, BandsReader
from unet_dist.imaging.views import with_channels

__all__ = ["ArrayReader", "ImageLike", "ImageReader", "as_reader", "open_image", "read_window", "read_window_into"]

ImageLike = str | os.PathLike | Image.Image | np.ndarray | ImageReader


def open_image(
    image: str | os.PathLike | Encoded,
    *,
    level: int | None = None,
    mpp: float | None = None,
    value_range: ValueRange | None = None,
    nodata: float | None = None,
    bands: Sequence[int | str] | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    interpret: Interpret | None = None,
    keeps_channels: bool = False,
    channels: int | None = None,
) -> ImageReader:
    """Open an image for reading by windows: the one way in for training, prediction, evaluation and the demo.

    TIFF, Zarr, .npy and slides are never read whole, and have no largest size. PNG, JPEG and other pictures are decoded
    once, at the first read.

    Args:
        image: a file, the folder of a Zarr array or group, or bytes.
        bands: numbers of the channels to take, from 1, or the file's names of them, in this order; None takes all.
        level, mpp, value_range, nodata, max_pixels, cache_bytes, interpret, keeps_channels: as `Opening` says.
        channels: 3 gives a grey image as colour, its channel repeated; any other image stays as it is.

    Raises:
        DataError: missing, unreadable, too large, or of a kind that needs a setting; the message says which.
        ConfigError: both level and mpp.
        ExtraError: the format needs a package that is not installed.
    """
    encoded = image if isinstance(image, Encoded) else Encoded.of(image)
    opening = Opening(level, mpp, value_range, nodata, max_pixels, cache_bytes, interpret, keeps_channels)
    with parsing(encoded.name):
        opening = with_stated(opening, encoded)
        reader = in_time(encoded.name, lambda: format_of(encoded).open(encoded, opening))
        reader = masked(reader, encoded, opening)
        if bands is None and interpret is None and (bad := reader.placement.bad_bands):
            reader.close()
            raise _bad_bands(encoded.name, reader.shape[2], bad)
    return with_channels(reader if bands is None else BandsReader(reader, bands, encoded.name), channels)


def class_names_in(path: Path) -> dict[int, str]:
    """Give the names that the file of a mask, or GDAL's beside, has for its ids as they are stored; none where they have none.

    Raises:
        RefusedError: it cannot be read.
    """
    encoded = Encoded.of(path)
    if encoded.path is None:
        return {}
    return category_names(encoded.path) or format_of(encoded).class_names(encoded.path)


def _bad_bands(name: str, count: int, bad: Sequence[int]) -> RefusedError:
    good = ",".join(str(band) for band in range(1, count + 1) if band not in bad)
    remedy = f"The others are --bands {good}; or take the list out of the header." if good else "Correct the list."
    return RefusedError(f"{name} calls {len(bad)} of its {count} bands bad (bbl)", remedy)


def as_reader(image: ImageLike, *, value_range: ValueRange | None = None) -> ImageReader:
    """Turn a path, a Pillow image, an (H, W) or (H, W, C) array or a reader into a reader.

    Raises:
        DataError: something else, or an image that cannot be read as it is.
    """
    if isinstance(image, (str, os.PathLike)):
        return open_image(image, value_range=value_range)
    if isinstance(image, Image.Image):
        return picture_reader(image, value_range=value_range, name="the image")
    if isinstance(image, np.ndarray):
        return ArrayReader(image, value_range=value_range)
    if isinstance(image, ImageReader):
        return image
    raise DataError(
        f"An image came as {type(image).__name__}. Expected a path, a Pillow image or a numpy array of shape "
        "(height, width, channels)."
    )


def read_window(reader: ImageReader, row: int, col: int, height: int, width: int) -> np.ndarray:
    """Read the window whose upper left corner is (row, col), mirrored where it reaches beyond the image.

    Args:
        row, col: in image coordinates; negative, and beyond the image, is allowed.

    Returns:
        (height, width, channels) of the image's type, possibly a view of the image: not to be written to.
    """
    if _is_inside(reader, row, col, height, width):
        return reader.read(row, row + height, col, col + width)
    window = np.empty((height, width, reader.shape[2]), dtype=reader.dtype)
    read_window_into(window, reader, row, col)
    return window


def read_window_into(window: np.ndarray, reader: ImageReader, row: int, col: int, *, is_flipped: bool = False) -> None:
    """Read a window as `read_window` does, into memory that is there: every pixel is copied once.

    Args:
        window: (height, width, channels) of the image's type, written to.
        is_flipped: exchange left and right.
    """
    height, width = window.shape[:2]
    if _is_inside(reader, row, col, height, width):
        order = slice(None, None, -1 if is_flipped else 1)
        _copy_columns(window, reader.read(row, row + height, col, col + width), order)
        return
    rows = mirror_indices(row, row + height, reader.shape[0])
    cols = mirror_indices(col, col + width, reader.shape[1])
    if is_flipped:
        cols = cols[::-1]
    first_row, first_col = int(rows.min()), int(cols.min())
    pixels = reader.read(first_row, int(rows.max()) + 1, first_col, int(cols.max()) + 1)
    rows, cols = rows - first_row, cols - first_col
    # Between a lowest and the nearest highest row lie all that are seen, once each: a mirrored axis goes to and fro.
    lowest, highs = int(rows.argmin()), np.flatnonzero(rows == rows.max())
    highest = int(highs[np.abs(highs - lowest).argmin()])
    top, bottom = min(lowest, highest), max(lowest, highest) + 1
    pixels = pixels[:: 1 if lowest <= highest else -1]
    for left, part in _runs(cols):
        _copy_columns(window[top:bottom, left : left + _length(part)], pixels, part)
    place = top + (rows if lowest <= highest else len(pixels) - 1 - rows)  # of each row, in the window itself
    window[:top] = window[place[:top]]
    window[bottom:] = window[place[bottom:]]


def _is_inside(reader: ImageReader, row: int, col: int, height: int, width: int) -> bool:
    return 0 <= row <= reader.shape[0] - height and 0 <= col <= reader.shape[1] - width


def _copy_columns(window: np.ndarray, pixels: np.ndarray, part: slice) -> None:
    """Copy columns in the order of a slice; backwards channel by channel, as numpy turns whole pixels at a seventh of the pace."""
    if part.step > 0:
        window[:] = pixels[:, part]
        return
    for channel in range(window.shape[2]):
        window[:, :, channel] = pixels[:, part, channel]


def _runs(indices: np.ndarray) -> list[tuple[int, slice]]:
    """Cut indices that go up or down by one, or stand still, as a mirror makes them, into slices, each with its place.

    Run by run: an index a pixel would gather pixel by pixel, at five times the cost.

    >>> _runs(np.array([2, 1, 0, 1, 2, 3]))
    [(0, slice(2, 0, -1)), (2, slice(0, 4, 1))]
    """
    if indices[0] == indices[-1] and not indices.any():  # one pixel, seen everywhere
        return [(place, slice(0, 1, 1)) for place in range(len(indices))]
    steps = np.diff(indices, append=indices[-1])
    steps[-1] = steps[-2]
    turns = [0, *(np.flatnonzero(np.diff(steps)) + 1), len(indices)]
    runs = []
    for start, stop in itertools.pairwise(int(turn) for turn in turns):
        step, first = int(steps[start]), int(indices[start])
        end = int(indices[stop - 1]) + step
        runs.append((start, slice(first, end if end >= 0 else None, step)))
    return runs


def _length(run: slice) -> int:
    stop = -1 if run.stop is None else run.stop
    return (stop - run.start) // run.step


def mirror_indices(start: int, stop: int, size: int) -> npt.NDArray[np.int64]:
    """Return, for each coordinate of [start, stop), the pixel of [0, size) that the mirrored image shows there.

    The edge is not repeated (d c b | a b c d | c b a) and the image is mirrored as often as needed; an image one pixel
    wide is constant.

    >>> mirror_indices(-2, 6, 4).tolist()
    [2, 1, 0, 1, 2, 3, 2, 1]
    """
    assert size >= 1, size
    assert start <= stop, (start, stop)
    if size == 1:
        return np.zeros(stop - start, dtype=np.int64)
    period = 2 * (size - 1)
    phase = np.arange(start, stop, dtype=np.int64) % period
    return np.minimum(phase, period - phase)
