"""Images whose windows are all read, on their way to the overlay: the pixels that are decoded need not be decoded again.

Owns how many wait, and that each is closed. A reader has one owner at a time: the thread that reads windows hands it over, and the
one that makes the outputs takes it, so that no reader needs to serve two threads.
"""

from __future__ import annotations

import math
import threading
from contextlib import AbstractContextManager

from unet_dist.imaging.image import ImageReader

_MOST_BYTES = 64 * 2**20
"""Pixels that wait, decoded: those of ten RGB images of 1080x1920. What does not fit is decoded again."""
_MOST_READERS = 16
"""Each may hold a file open, however small."""


class Handover(AbstractContextManager["Handover"]):
    """Readers that wait to be taken."""

    def __init__(self) -> None:
        self._waiting: dict[int, ImageReader] = {}
        self._lock = threading.Lock()

    def put(self, image: int, reader: ImageReader) -> None:
        """Hand over an image; it is closed where too much waits already."""
        with self._lock:
            waiting = sum(_bytes_of(other) for other in self._waiting.values())
            if waiting + _bytes_of(reader) <= _MOST_BYTES and len(self._waiting) < _MOST_READERS:
                self._waiting[image] = reader
                return
        reader.close()

    def take(self, image: int) -> ImageReader | None:
        """Become the owner of an image's reader; None where it did not wait."""
        with self._lock:
            return self._waiting.pop(image, None)

    def __exit__(self, *_: object) -> None:
        for reader in self._waiting.values():
            reader.close()


def _bytes_of(reader: ImageReader) -> int:
    return math.prod(reader.shape) * reader.dtype.itemsize
