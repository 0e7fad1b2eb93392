"""The way in to pixels: whatever the user names becomes a reader, and a window may reach beyond its border.

Owns the choice of the format and the mirror at the border. Training crops and prediction windows are both read here,
so that a network sees the same pixels in both.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
from PIL import Image

from unet_dist.errors import DataError
from unet_dist.imaging.image import (
    DEFAULT_CACHE_BYTES,
    DEFAULT_MAX_PIXELS,
    ArrayReader,
    ImageReader,
    Interpret,
    ValueRange,
)
from unet_dist.imaging.picture import open_picture, picture_pixels
from unet_dist.imaging.pyramid import choose_level
from unet_dist.imaging.slide import SLIDE_SUFFIXES, open_slide
from unet_dist.imaging.tiff import open_tiff
from unet_dist.imaging.zarr_store import is_zarr, open_zarr
from unet_dist.tiling.geometry import mirror_indices

__all__ = ["ArrayReader", "ImageLike", "ImageReader", "as_reader", "open_image", "read_window"]

ImageLike = str | os.PathLike | Image.Image | np.ndarray | ImageReader


def open_image(
    path: str | os.PathLike,
    *,
    level: int | None = None,
    mpp: float | None = None,
    value_range: ValueRange | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> ImageReader:
    """Open an image file for reading by windows.

    TIFF, Zarr, .npy and slides are never read whole, and have no largest size. PNG, JPEG, WebP and BMP are decoded
    once, at the first read.

    Args:
        path: a file, or the folder of a Zarr array or group.
        level: of a pyramid; 0 is the finest and the default.
        mpp: micrometres per pixel, instead of a level: takes the level of this size.
        value_range: the values that become 0 and 255; needed for anything but uint8.
        max_pixels: refuse to decode more pixels than this in one piece.
        cache_bytes: decoded pieces of the file that are kept; also the bound on what a reader holds.

    Raises:
        DataError: missing, unreadable, too large, or of a kind that needs a setting; the message says which.
        ConfigError: both level and mpp.
        ExtraError: the format needs a package that is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist. Check the path.")
    if path.is_dir():
        if not is_zarr(path):
            raise DataError(f"{path} is a folder and not Zarr. Expected an image file or a Zarr array or group.")
        return open_zarr(
            path, level=level, mpp=mpp, value_range=value_range, max_pixels=max_pixels, cache_bytes=cache_bytes
        )
    if path.suffix.lower() in SLIDE_SUFFIXES:
        return open_slide(path, level=level, mpp=mpp, value_range=value_range, cache_bytes=cache_bytes)
    if _is_tiff(path):
        return open_tiff(
            path, level=level, mpp=mpp, value_range=value_range, max_pixels=max_pixels, cache_bytes=cache_bytes
        )
    if path.suffix.lower() == ".npy":
        reader: ImageReader = open_npy(path, value_range=value_range)
    else:
        reader = open_picture(path, value_range=value_range, max_pixels=max_pixels)
    choose_level([reader.shape[:2]], reader.placement.microns_per_px, level=level, mpp=mpp, name=str(path))
    return reader


def reads_by_windows(path: Path) -> bool:
    """Tell whether a file is TIFF or Zarr, which are read by windows whatever their size."""
    return is_zarr(path) if path.is_dir() else _is_tiff(path)


def open_values(path: Path, interpret: Interpret, *, max_pixels: int, cache_bytes: int) -> ImageReader:
    """Open the values of a TIFF or Zarr as they are stored, such as the ids of a mask.

    Args:
        interpret: turns them into uint8.
        max_pixels, cache_bytes: as `open_image`.

    Returns:
        (height, width, 1).

    Raises:
        DataError, ExtraError: as `open_image`; and what interpret raises.
    """
    opener = open_zarr if path.is_dir() else open_tiff
    return opener(
        path,
        level=None,
        mpp=None,
        value_range=None,
        max_pixels=max_pixels,
        cache_bytes=cache_bytes,
        interpret=interpret,
    )


def open_npy(path: Path, *, value_range: ValueRange | None = None) -> ArrayReader:
    """Map a .npy file of shape (H, W) or (H, W, C) into memory.

    Raises:
        DataError: damaged, truncated, of another shape, or not uint8 without a value_range.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} cannot be mapped: {error}. Expected a whole .npy file of plain numbers.") from error
    return ArrayReader(array, value_range=value_range, name=str(path))


def as_reader(image: ImageLike, *, value_range: ValueRange | None = None) -> ImageReader:
    """Turn a path, a Pillow image, an (H, W) or (H, W, C) array or a reader into a reader.

    Raises:
        DataError: something else, or an image that cannot be read as it is.
    """
    if isinstance(image, (str, os.PathLike)):
        return open_image(image, value_range=value_range)
    if isinstance(image, Image.Image):
        pixels = picture_pixels(image, value_range=value_range, name="the image")
        return ArrayReader(pixels)
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
        (height, width, channels) uint8, possibly a view of the image: not to be written to.
    """
    rows = mirror_indices(row, row + height, reader.shape[0])
    cols = mirror_indices(col, col + width, reader.shape[1])
    row_start, col_start = int(rows.min()), int(cols.min())
    pixels = reader.read(row_start, int(rows.max()) + 1, col_start, int(cols.max()) + 1)
    if pixels.shape[0] != height or row_start != row:
        pixels = pixels[rows - row_start]
    if pixels.shape[1] == 1 < width:
        pixels = np.repeat(pixels, width, axis=1)
    elif pixels.shape[1] != width or col_start != col:
        # Run by run: an index a column would gather pixel by pixel, at five times the cost.
        pixels = np.concatenate([pixels[:, run] for run in _runs(cols - col_start)], axis=1)
    return pixels


def _runs(indices: np.ndarray) -> list[slice]:
    """Cut indices that go up or down by one, as a mirror makes them, into slices.

    >>> _runs(np.array([2, 1, 0, 1, 2, 3]))
    [slice(2, 0, -1), slice(0, 4, 1)]
    """
    steps = np.diff(indices, append=indices[-1])
    steps[-1] = steps[-2] if len(steps) > 1 else 1
    turns = [0, *(np.flatnonzero(np.diff(steps)) + 1), len(indices)]
    runs = []
    for start, stop in itertools.pairwise(int(turn) for turn in turns):
        step, first = int(steps[start]), int(indices[start])
        end = int(indices[stop - 1]) + step
        runs.append(slice(first, end if end >= 0 else None, step))
    return runs


def _is_tiff(path: Path) -> bool:
    """Tell TIFF and BigTIFF by their first bytes, whatever the file is called."""
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}. Check the path and your permissions.") from error
