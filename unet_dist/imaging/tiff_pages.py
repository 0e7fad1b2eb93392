"""The chain of pages in a TIFF, walked before a library reads them: each page names the next, and may name itself.

Owns the limit on their number. Reads a few bytes per page, no tag.
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

from unet_dist.errors import RefusedError
from unet_dist.imaging.encoded import Encoded

_SIZES = {
    False: ("H", 12, "I"),
    True: ("Q", 20, "Q"),
}  # the number of entries, bytes of one, the next page: TIFF, BigTIFF

MAX_PAGES = 65_536
"""Derived: a second of walking; stacks of microscopes have thousands."""


def count_pages(encoded: Encoded) -> int:
    """Count the pages of a TIFF or BigTIFF.

    Raises:
        RefusedError: the chain returns to a page before, or is longer than MAX_PAGES. Where the file ends, the count does.
    """
    with encoded.open() as file:
        head = file.read(4)
        order = "<" if head[:2] == b"II" else ">"
        is_big = head[2:4] in (b"+\0", b"\0+")
        file.seek(8 if is_big else 4)
        (place,) = _read(file, order + ("Q" if is_big else "I"))
        seen: set[int] = set()
        while place:
            if place in seen or len(seen) >= MAX_PAGES:
                reason = (
                    "page names an earlier one as the next" if place in seen else f"chain is over {MAX_PAGES:,} pages"
                )
                raise RefusedError(
                    f"{encoded.name} is a damaged or truncated TIFF: a {reason}", "Copy it again, or write it anew."
                )
            seen.add(place)
            file.seek(place)
            place = _next(file, order, *_SIZES[is_big])
    return len(seen)


def _next(file: BinaryIO, order: str, number: str, entry_bytes: int, pointer: str) -> int:
    """Go past the entries of the page that begins here, and read where the next one is; 0 for none."""
    (entries,) = _read(file, order + number)
    file.seek(entries * entry_bytes, io.SEEK_CUR)
    (place,) = _read(file, order + pointer)
    return place


def _read(file: BinaryIO, form: str) -> tuple[int]:
    content = file.read(struct.calcsize(form))
    return struct.unpack(form, content) if len(content) == struct.calcsize(form) else (0,)
