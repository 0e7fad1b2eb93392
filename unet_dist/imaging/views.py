"""An image seen through another: a part of it, or grey as colour.

Owns the two readers that stand before another reader. Knows no file format.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from unet_dist.imaging.image import Closing, ImageReader

Part = tuple[int, int, int, int]
"""Top, bottom, left and right of a rectangle inside an image, px."""


class PartReader(Closing):
    """A rectangle of an image, as an image of its own.

    Args:
        whole: the image.
        part: the rectangle, inside it.
    """

    def __init__(self, whole: ImageReader, part: Part) -> None:
        top, bottom, left, right = part
        assert 0 <= top < bottom <= whole.shape[0], (part, whole.shape)
        assert 0 <= left < right <= whole.shape[1], (part, whole.shape)
        self._whole, self._top, self._left = whole, top, left
        self.shape = (bottom - top, right - left, whole.shape[2])
        self.dtype = whole.dtype
        # The tags of a place in the world are the whole's, and would be wrong here.
        self.placement = replace(whole.placement, geo_tags={})

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        """Read a rectangle inside the part: (rows, cols, channels)."""
        top, left = self._top, self._left
        assert 0 <= row_start < row_stop <= self.shape[0], (row_start, row_stop, self.shape)
        assert 0 <= col_start < col_stop <= self.shape[1], (col_start, col_stop, self.shape)
        return self._whole.read(top + row_start, top + row_stop, left + col_start, left + col_stop)

    def known(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray | None:
        """Tell where a rectangle has data: (rows, cols) bool; None everywhere."""
        top, left = self._top, self._left
        return self._whole.known(top + row_start, top + row_stop, left + col_start, left + col_stop)

    def close(self) -> None:
        """Let go of the file."""
        self._whole.close()


class GreyAsColour(Closing):
    """A grey image whose channel is repeated.

    Args:
        grey: the image, of one channel.
        channels: that it is to have.
    """

    def __init__(self, grey: ImageReader, channels: int) -> None:
        assert grey.shape[2] == 1, grey.shape
        self._grey = grey
        self.shape = (*grey.shape[:2], channels)
        self.dtype, self.placement = grey.dtype, grey.placement

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        """Read a rectangle inside the image: (rows, cols, channels)."""
        return np.repeat(self._grey.read(row_start, row_stop, col_start, col_stop), self.shape[2], axis=2)

    def known(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray | None:
        """Tell where a rectangle has data: (rows, cols) bool; None everywhere."""
        return self._grey.known(row_start, row_stop, col_start, col_stop)

    def close(self) -> None:
        """Let go of the file."""
        self._grey.close()


def with_channels(reader: ImageReader, channels: int | None) -> ImageReader:
    """Give a grey image three channels where three are wanted; any other stays as it is."""
    return GreyAsColour(reader, 3) if channels == 3 and reader.shape[2] == 1 else reader
