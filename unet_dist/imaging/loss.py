"""Whether a piece of a TIFF was compressed with loss, as its own header says: ids of a mask do not survive that.

Owns a few bytes of WebP, JPEG 2000, JPEG XL and LERC. Decodes nothing. A JPEG is known by the compression of the TIFF.
Source: ISO/IEC 15444-1:2019, A.6.1 (COD: transformation 0 is not reversible); ISO/IEC 18181-1, ImageMetadata (xyb_encoded).
"""

from __future__ import annotations

import struct

from unet_dist.imaging.stated_sizes import jpeg_xl_header

_HALF = 0.5  # whole numbers survive an error of so much


def loss_in(content: bytes) -> str | None:
    """Name the lossy compression of a piece; None where its header states no loss, or is none of these."""
    try:
        if content[8:12] == b"WEBP" and b"VP8 " in content[:4096]:
            return "lossy WebP"
        if content[:6] == b"Lerc2 ":
            (version,) = struct.unpack_from("<i", content, 6)
            (error,) = struct.unpack_from("<d", content, {2: 34, 3: 38}.get(version, 42))
            return "lossy LERC" if error > _HALF else None
        if content[:2] == b"\xff\x0a" and _is_xyb(content[2:]):
            return "lossy JPEG XL"
        if content[4:8] == b"JXL " and (at := content.find(b"jxlc\xff\x0a")) >= 0 and _is_xyb(content[at + 6 :]):
            return "lossy JPEG XL"
        start = content[:4096].find(b"\xff\x4f\xff\x51")
        if start >= 0 and (code := content.find(b"\xff\x52", start)) >= 0 and content[code + 13] == 0:
            return "lossy JPEG 2000"
    except (struct.error, IndexError):
        return None
    return None


def _is_xyb(content: bytes) -> bool:
    """Tell whether a JPEG XL has its colours in XYB, which only loss has; one of more channels beside colour is not looked into."""
    _, take = jpeg_xl_header(content)
    if take(1):  # all by default
        return True
    if take(1):
        take(3)  # orientation
        if take(1) or take(1) or take(1):  # another size, a preview, an animation
            return False
    if take(1):  # floats
        take((0, 0, 0, 6)[take(2)])
        take(4)
    else:
        take((0, 0, 0, 6)[take(2)])
    take(1)
    return take(2) == 0 and bool(take(1))
