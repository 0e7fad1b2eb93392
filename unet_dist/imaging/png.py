"""RGB pictures as PNG, band by band: written quickly, in the memory of a band.

Owns the bytes of a PNG. Pillow tries five filters for each row and takes the best by a guess; here a row is what changed since
the row above, and zlib looks for runs only: a third to a half of the time of its quickest level, and smaller files
(tests/measure/small_costs.py png). Must not know what is in the picture.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BITS, _RGB = 8, 2
_UP = 2
"""Filter type of a row: each byte less the byte above it, modulo 256."""


def write_rgb_png(path: Path, bands: Iterable[np.ndarray], height: int, width: int) -> None:
    """Write a picture that comes in bands of rows, the upper first.

    Source: W3C, Portable Network Graphics (PNG) Specification (Third Edition), sections 5, 9 and 10.

    Args:
        bands: each (rows, width, 3) uint8; `height` rows in all.

    Raises:
        OSError: the disk refuses.
    """
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    above, num_rows = np.zeros(width * 3, dtype=np.uint8), 0
    with path.open("wb") as file:
        file.write(_SIGNATURE)
        file.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, _BITS, _RGB, 0, 0, 0)))
        for band in bands:
            assert band.shape[1:] == (width, 3), f"a band of {band.shape} in a picture {width} px wide"
            assert band.dtype == np.uint8, band.dtype
            rows = band.reshape(len(band), width * 3)
            filtered = np.empty((len(rows), 1 + width * 3), dtype=np.uint8)
            filtered[:, 0] = _UP
            np.subtract(rows[0], above, out=filtered[0, 1:])
            np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
            above, num_rows = rows[-1].copy(), num_rows + len(rows)
            file.write(_chunk(b"IDAT", packer.compress(filtered.data)))
        assert num_rows == height, f"{num_rows} rows came, and {height} were said"
        file.write(_chunk(b"IDAT", packer.flush()))
        file.write(_chunk(b"IEND", b""))


def _chunk(kind: bytes, data: bytes) -> bytes:
    """Pack a chunk; one of no data is left out unless it ends the file."""
    if kind == b"IDAT" and not data:
        return b""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
