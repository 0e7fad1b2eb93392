"""The values of a mask on their way to ids: whole numbers out of floats, Pascal's palette, packed colours.

Owns what they are, whatever a data set means by them.
"""

from __future__ import annotations

import numpy as np

from unet_dist.data.decoded.label_map import MAX_ID
from unet_dist.errors import RefusedError


def whole_numbers(ids: np.ndarray) -> np.ndarray:
    """Turn whole numbers stored as floats into integers. Raises: RefusedError: others."""
    if ids.dtype.kind in "bui":
        return ids
    if ids.dtype.kind != "f":
        raise RefusedError(f"holds {ids.dtype} values", f"Write ids from 0 to {MAX_ID}.")
    if ids.dtype.itemsize < 4:  # float16 ends at 65504
        ids = ids.astype(np.float32)
    broken = ~(np.abs(ids) <= MAX_ID) | (ids != np.rint(ids))  # not a number compares as false
    if broken.any():
        raise RefusedError(
            f"holds {ids.dtype} values that are no ids, such as {ids[broken][0]:g} ({int(broken.sum()):,} px)",
            f"Write whole numbers from 0 to {MAX_ID}, without interpolation.",
        )
    return ids.astype(np.int64)


def pascal_ids(indices: np.ndarray, entries: np.ndarray) -> np.ndarray | None:
    """Give the ids of a mask whose palette is Pascal VOC's, of which 255 is void; None where it is another palette.

    Source: VOC development kit, VOCcolormap: the bits of an id, three by three from the highest of each colour on.
    """
    used = np.unique(indices)
    colours = np.zeros((len(used), 3), dtype=np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= ((used >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return indices if (entries[used] == colours).all() else None


def pack(pixels: np.ndarray) -> np.ndarray:
    """Pack (..., 3 or 4) uint32 into (...) 0xRRGGBB."""
    return pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
