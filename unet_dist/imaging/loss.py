"""Whether a piece of a TIFF was compressed with loss: ids of a mask do not survive that.

Owns which compressions are exact, and a few bytes of those that may be: WebP, JPEG XL and LERC. Decodes no picture. A piece that
does not show that it is exact counts as lossy. So does all JPEG 2000: a reversible code cut at a rate looks like a whole one.
"""

from __future__ import annotations

import struct
import zlib

from unet_dist.imaging.jpeg_xl import code_in_jpeg_xl, is_exact_jpeg_xl

EXACT = (1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 34926, 34933, 50000, 50013)
"""Compressions of a TIFF: none, fax, LZW, deflate, PackBits, LZMA, Zstandard and PNG."""
_LOSSY = {
    **dict.fromkeys((6, 7, 33007, 34892), "JPEG"),
    **dict.fromkeys((33003, 33004, 33005, 34712), "JPEG 2000"),
    **dict.fromkeys((22610, 34934), "JPEG XR"),
}
_HALF = 0.5  # whole numbers survive an error of so much
_LERC_HEAD = 128  # bytes, more than it has


def loss_in(compression: int, content: bytes) -> str | None:
    """Name the lossy compression of a piece, None where it is exact.

    Args:
        compression: as the TIFF numbers it.
        content: how the piece begins.
    """
    if compression in EXACT:
        return None
    if compression in _LOSSY:
        return _LOSSY[compression]
    try:
        return _loss_of(content)
    except (struct.error, ValueError, zlib.error):
        return f"TIFF whose compression ({compression}) may lose"


def _loss_of(content: bytes) -> str | None:
    """Look into the header of a piece. Raises: ValueError and others: it is none of these, or damaged."""
    if content[8:12] == b"WEBP":
        return "lossy WebP" if b"VP8L" not in content[:4096] else None
    if content[:6] == b"Lerc2 ":
        (version,) = struct.unpack_from("<i", content, 6)
        (error,) = struct.unpack_from("<d", content, {2: 34, 3: 38}.get(version, 42))
        return None if error <= _HALF else "lossy LERC"
    if content[:1] == b"\x78":  # LERC packed once more by deflate; by Zstandard nothing here looks into it
        return _loss_of(zlib.decompressobj().decompress(content, _LERC_HEAD))
    code = code_in_jpeg_xl(content)
    if code is None:
        raise ValueError("none of these")
    return None if is_exact_jpeg_xl(code) else "lossy JPEG XL"
