"""The code of a JPEG 2000: bits and sign of its values, and which plane is transparency.

Owns a few bytes of the file. Pillow changes all but 8 bits without a sign: it scales grey to 16, and moves signed values up.
Source: ISO/IEC 15444-1:2019, A.5.1 (SIZ) and I.5.3.6 (cdef).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from unet_dist.errors import RefusedError
from unet_dist.imaging.encoded import Encoded
from unet_dist.imaging.stated_sizes import stated_size

_MOST_BOXES = 2**24
"""assumption: what lies before the code, such as a place in the world, is smaller."""


@dataclass(frozen=True)
class Planes:
    """What the code says.

    Attributes:
        count: of planes.
        bits: of a value.
        dtype: that holds it.
        has_alpha: whether the last plane is transparency.
    """

    count: int
    bits: int
    dtype: np.dtype
    has_alpha: bool

    @property
    def is_plain(self) -> bool:
        """Whether Pillow decodes just these values."""
        return self.dtype == np.uint8 and self.bits == 8 and (self.count in (1, 3) or self.has_alpha)


def planes_of(encoded: Encoded, size: tuple[int, int] | None = None, count: int | None = None) -> Planes:
    """Read what the code says.

    Args:
        size, count: (height, width) and number of planes that the header before it says, where it was read.

    Raises:
        RefusedError: there is none, it contradicts the header, or its planes are of different kinds.
    """
    with encoded.open() as file:
        start = file.read(_MOST_BOXES)
    place = start.find(b"\xff\x4f\xff\x51")
    if place < 0 or len(start) < place + 45:
        raise RefusedError(f"{encoded.name} is a JPEG 2000 without its code", "It is damaged: fetch it again.")
    stated, (planes,) = stated_size(start[place:]), struct.unpack_from(">H", start, place + 40)
    if (size or stated, count or planes) != (stated, planes):
        raise RefusedError(
            f"{encoded.name} states two sizes or numbers of planes, in its header and in its code",
            "The file is damaged: fetch it again, or leave it out.",
        )
    kinds = set(start[place + 42 : place + 42 + 3 * planes : 3])
    if len(kinds) != 1:
        raise RefusedError(f"{encoded.name} is a JPEG 2000 of planes of several types", "Write them in one type.")
    kind = kinds.pop()
    bits = (kind & 0x7F) + 1
    dtype = np.dtype(f"{'i' if kind & 0x80 else 'u'}{1 if bits <= 8 else 2 if bits <= 16 else 4}")
    return Planes(planes, bits, dtype, _last_is_alpha(start[:place], planes))


def _last_is_alpha(boxes: bytes, count: int) -> bool:
    place = boxes.find(b"cdef")
    if place < 0 or len(boxes) < place + 6:
        return False
    (number,) = struct.unpack_from(">H", boxes, place + 4)
    entries = boxes[place + 6 : place + 6 + 6 * number]
    kinds = {channel: kind for channel, kind, _ in struct.iter_unpack(">HHH", entries[: len(entries) // 6 * 6])}
    return kinds.get(count - 1) in (1, 2)
