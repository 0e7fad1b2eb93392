"""The quantity that a PNG says its values measure (the chunk pCAL): physical = p0 + p1 * value / (x1 - x0).

Owns this chunk. Other equations, and a line through rounded values, are refused.
Source: Extensions to the PNG 1.2 Specification, version 1.2.0, pCAL.
"""

from __future__ import annotations

import os
import struct

import numpy as np

from unet_dist.errors import RefusedError
from unet_dist.imaging.encoded import Encoded
from unet_dist.imaging.values import Scaling, scaling_of

_MOST_CHUNKS, _MOST_BYTES = 10_000, 2**16
"""assumption: no file has more chunks before its pixels, nor a longer calibration."""
_LINE = 0


def png_scaling(encoded: Encoded, dtype: np.dtype, channels: int) -> Scaling | None:
    """Read what the values measure; None where the file says nothing, or nothing that changes them.

    Raises:
        RefusedError: an equation that is no line of the stored values, or a damaged one.
    """
    body = _chunk(encoded)
    if body is None:
        return None
    try:
        _, _, rest = body.partition(b"\0")  # the name of the calibration
        first, last, kind, number = struct.unpack_from(">iiBB", rest)
        _, *numbers = rest[10:].split(b"\0")  # the unit, and the parameters
        zero, slope = (float(text) for text in numbers[:2])
        largest = np.iinfo(dtype).max
        if kind != _LINE or number != 2 or last - first != largest:
            raise ValueError
    except (ValueError, struct.error) as error:
        raise RefusedError(
            f"{encoded.name} says what its values measure (pCAL), and not by a line through them as they are stored",
            "Write the values that are meant; or take the chunk pCAL out, if those stored are meant.",
        ) from error
    return scaling_of([slope / largest], [zero + slope * first / largest], channels, encoded.name)


def _chunk(encoded: Encoded) -> bytes | None:
    """Find the chunk before the pixels, from head to head: of most files these are a few."""
    with encoded.open() as file:
        file.seek(8)
        for _ in range(_MOST_CHUNKS):
            head = file.read(8)
            if len(head) < 8 or head[4:] == b"IDAT":
                return None
            (length,) = struct.unpack_from(">I", head)
            if head[4:] == b"pCAL":
                return file.read(min(length, _MOST_BYTES))
            file.seek(length + 4, os.SEEK_CUR)
    return None
