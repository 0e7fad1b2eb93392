"""Whether an encoded picture ends before its pixels do, as in a file that was not copied whole.

Owns the marks of an end. Decoders of JPEG and JPEG XR fill the missing pixels with grey; that of JPEG 2000 takes zeros for data.
"""

from __future__ import annotations

import struct

_END = b"\xff\xd9"
_DATA_OF_JPEG, _DATA_OF_JPEG_2000 = b"\xff\xda", b"\xff\x93"
_JPEG_XR, _PLACE, _LENGTH = b"II\xbc\x01", 0xBCC0, 0xBCC1


def is_cut_short(content: bytes) -> bool:
    """Tell whether a JPEG, JPEG 2000 or JPEG XR lacks its end; of others, False."""
    if content[:2] == b"\xff\xd8":
        return _lacks_end(content, _DATA_OF_JPEG)
    if b"\xff\x4f\xff\x51" in content[:4096]:
        return _lacks_end(content, _DATA_OF_JPEG_2000)
    return content[:4] == _JPEG_XR and _ends_beyond(content)


def _lacks_end(content: bytes, data: bytes) -> bool:
    """Look for the mark of the end behind that of the data, in which it never is; padding may follow."""
    return not content.endswith(_END) and content.find(_END, max(content.find(data), 0)) < 0


def _ends_beyond(content: bytes) -> bool:
    try:
        (at,) = struct.unpack_from("<I", content, 4)
        (count,) = struct.unpack_from("<H", content, at)
        entries = dict(struct.iter_unpack("<H6xI", content[at + 2 : at + 2 + 12 * count]))
    except struct.error:
        return True
    return entries.get(_PLACE, 0) + entries.get(_LENGTH, 0) > len(content)
