"""The way in to pixels: whatever the user names becomes a reader, and a window may reach beyond its border.

Owns the choice of the format and the mirror at the border. Training crops and prediction windows are both read here,
so that a network sees the same pixels in both.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from unet_dist.errors import DataError
from unet_dist.imaging.image import DEFAULT_MAX_PIXELS, ArrayReader, ImageReader, ValueRange
from unet_dist.imaging.picture import open_picture, picture_pixels
from unet_dist.tiling.geometry import mirror_indices

__all__ = ["ArrayReader", "ImageLike", "ImageReader", "as_reader", "open_image", "read_window"]

ImageLike = str | os.PathLike | Image.Image | np.ndarray | ImageReader


def open_image(
    path: str | os.PathLike,
    *,
    value_range: ValueRange | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> ImageReader:
    """Open an image file for reading by windows.

    Args:
        path: PNG, JPEG, WebP or BMP.
        value_range: the values that become 0 and 255; needed for anything but uint8.
        max_pixels: refuse to decode more pixels than this in one piece.

    Raises:
        DataError: missing, unreadable, too large, or of a kind that needs a setting; the message says which.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist. Check the path.")
    return open_picture(path, value_range=value_range, max_pixels=max_pixels)


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
    if pixels.shape[:2] == (height, width) and row_start == row and col_start == col:
        return pixels
    return pixels[(rows - row_start)[:, None], cols - col_start]
