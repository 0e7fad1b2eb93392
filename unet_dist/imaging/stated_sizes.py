"""The size that the header of an encoded picture states, which its decoder takes memory for: a piece of a TIFF may hold a picture
far larger than the piece.

Owns a few bytes of JPEG, JPEG 2000, JPEG XL, PNG, WebP and LERC. Decodes nothing.
"""

from __future__ import annotations

import struct

from unet_dist.imaging.jpeg_xl import code_in_jpeg_xl, size_in_jpeg_xl

_JPEG_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))


def stated_size(content: bytes) -> tuple[int, int] | None:
    """Read (height, width) of a picture; None where its header is none of these, or damaged."""
    try:
        if content[:2] == b"\xff\xd8":
            return _jpeg(content)
        if content[:8] == b"\x89PNG\r\n\x1a\n":
            return _turned(struct.unpack_from(">II", content, 16))
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            return _webp(content)
        if content[:6] == b"Lerc2 ":
            (version,) = struct.unpack_from("<i", content, 6)
            height, width = struct.unpack_from("<ii", content, 14 if version >= 3 else 10)
            return max(height, 0), max(width, 0)
        if (code := code_in_jpeg_xl(content)) is not None:
            return size_in_jpeg_xl(code)
        if (place := content[:4096].find(b"\xff\x4f\xff\x51")) >= 0:  # JPEG 2000, bare or in boxes
            right, lower, left, upper = struct.unpack_from(">4I", content, place + 8)
            return max(lower - upper, 0), max(right - left, 0)
    except (struct.error, IndexError):
        return None
    return None


def _turned(size: tuple[int, ...]) -> tuple[int, int]:
    width, height = size
    return height, width


def _jpeg(content: bytes) -> tuple[int, int] | None:
    """Go from marker to marker, to the first frame."""
    at = 2
    while content[at] == 0xFF:
        kind = content[at + 1]
        if kind in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", content, at + 5)
            return height, width
        if kind == 0xDA:  # pixels before any frame
            return None
        # Fill bytes, and markers without a length.
        at += 1 if kind == 0xFF else 2 if kind in (0x01, *range(0xD0, 0xD9)) else 2 + _short(content, at + 2)
    return None


def _short(content: bytes, at: int) -> int:
    return int(struct.unpack_from(">H", content, at)[0])


def _webp(content: bytes) -> tuple[int, int] | None:
    kind = content[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
        return height, width
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return height & 0x3FFF, width & 0x3FFF
    return None
