"""An image format: how its files are known, and how one is opened for reading by windows."""

from __future__ import annotations

import struct

import numpy as np

from unet_dist.contracts import Encoded, ImageFormat, Opening
from unet_dist.imaging.readers import ArrayReader

MARK = b"LEAFPLAN"
HEADER = struct.Struct("<8s3H")  # the mark, height, width, channels; then the pixels, row by row


def open_plane(encoded: Encoded, opening: Opening) -> ArrayReader:
    """Map the pixels into memory. What goes wrong here becomes the refusal of this one image."""
    mark, height, width, channels = HEADER.unpack(encoded.head[: HEADER.size])
    if mark != MARK:
        raise ValueError(f"it begins with {mark!r}, expected {MARK!r}")
    pixels = encoded.map(np.dtype(np.uint8), HEADER.size, (height, width, channels))
    return ArrayReader(pixels, value_range=opening.value_range, interpret=opening.interpret, name=encoded.name)


def write_plane(pixels: np.ndarray) -> bytes:
    """Encode an image (H, W, C) uint8."""
    return HEADER.pack(MARK, *pixels.shape) + pixels.tobytes()


PLANE = ImageFormat(
    "leaf plane", (".plane",), lambda encoded: encoded.head.startswith(MARK), open_plane, by_windows=True
)
