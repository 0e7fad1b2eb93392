"""The readers that formats are made of: images in memory, decoded block by block, turned, of chosen bands, and filled where there
are no data.

Owns the blocks that are kept, and the order of bands. Knows no file format.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from unet_dist.errors import RefusedError
from unet_dist.imaging.image import (
    DEFAULT_CACHE_BYTES,
    UINT8,
    Closing,
    ImageReader,
    Interpret,
    Placement,
    Stored,
    ValueRange,
)
from unet_dist.imaging.values import Conversion, Scaling, make_conversion, require_ids_unscaled, upright, upright_shape
from unet_dist.wording import listed


class ArrayReader(Closing):
    """An image in memory or in a memory map.

    Args:
        array: (H, W) or (H, W, C) numbers; they are not copied.
        value_range, interpret, keeps_channels, nodata: as `Opening` says.
        known: (H, W) bool or uint8, where there are data; None leaves it to the values.
        name: what an error calls the image.
        scaling: what the values stand for.

    Raises:
        DataError: another number of axes, an empty axis, or values that are no numbers.
    """

    def __init__(
        self,
        array: np.ndarray,
        *,
        value_range: ValueRange | None = None,
        interpret: Interpret | None = None,
        keeps_channels: bool = False,
        nodata: float | None = None,
        known: np.ndarray | None = None,
        name: str = "the array",
        placement: Placement | None = None,
        scaling: Scaling | None = None,
    ) -> None:
        if array.ndim not in (2, 3) or array.size == 0:
            raise RefusedError(
                f"{name} has shape {array.shape}",
                "An image is (height, width) or (height, width, channels), none of them zero: select or transpose its axes.",
            )
        array = np.asarray(array)  # a memory map stays one, under a plainer type
        self._array = array[:, :, None] if array.ndim == 2 else array
        self._known = known
        samples = self._array.shape[2]
        if interpret is None:
            self._conversion = make_conversion(
                array.dtype,
                samples,
                value_range=value_range,
                nodata=nodata,
                name=name,
                scaling=scaling,
                bad=placement.bad_bands if placement else (),
            )
        else:
            require_ids_unscaled(scaling, name)
            stored = Stored(array.dtype, samples, nodata=nodata)
            self._conversion = Conversion(interpret.dtype, samples if keeps_channels else 1, False, interpret(stored))
        self.dtype = self._conversion.dtype
        has_nodata = known is not None or self._conversion.has_nodata
        self.placement = replace(placement or Placement(), has_nodata=has_nodata)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        height, width, _ = self._array.shape
        return height, width, self._conversion.channels

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        """Read a rectangle inside the image: (rows, cols, channels)."""
        pixels = self._read(row_start, row_stop, col_start, col_stop)
        return pixels if pixels.shape[2] == self._conversion.channels else pixels[:, :, :-1]

    def known(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray | None:
        """Tell where a rectangle has data: (rows, cols) bool; None everywhere."""
        if not self.placement.has_nodata:
            return None
        if self._known is not None:
            return np.asarray(self._known[row_start:row_stop, col_start:col_stop], dtype=bool)
        pixels = self._read(row_start, row_stop, col_start, col_stop)
        return None if pixels.shape[2] == self._conversion.channels else pixels[:, :, -1] != 0

    def _read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        _require_inside(self.shape, row_start, row_stop, col_start, col_stop)
        return self._conversion(self._array[row_start:row_stop, col_start:col_stop])


class BlockReader(Closing):
    """An image cut into a grid of blocks that are decoded when a window needs them; the last used ones are kept.

    Memory: `cache_bytes` of decoded blocks, or one block where that is larger. Threads may read at the same time.

    Args:
        shape: (height, width, channels).
        block_shape: (height, width) of a block; the last of a row or column reaches beyond the image.
        decode: (block row, block column) -> (rows, cols, channels), covering at least the block's part inside
            the image; with one plane more, where the block has pixels without data: 1 where there are data, 0 where not.
        dtype: of the pixels.
        has_nodata: whether some blocks may have such a plane.
        release: called once by `close`.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        block_shape: tuple[int, int],
        decode: Callable[[int, int], np.ndarray],
        *,
        dtype: np.dtype = UINT8,
        has_nodata: bool = False,
        placement: Placement | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self.shape = shape
        self.block_shape = block_shape
        self.dtype = dtype
        self.placement = replace(placement or Placement(), has_nodata=has_nodata)
        self._decode = decode
        self._cache_bytes = cache_bytes
        self._release = release
        self._blocks: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()  # least recently used first
        self._held_bytes = 0
        self._lock = threading.Lock()

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        """Read a rectangle inside the image: (rows, cols, channels), a view where one block holds it.

        Decodes only the blocks it touches.
        """
        _require_inside(self.shape, row_start, row_stop, col_start, col_stop)
        channels = self.shape[2]
        height, width = self.block_shape
        if row_start // height == (row_stop - 1) // height and col_start // width == (col_stop - 1) // width:
            top, left = row_start // height * height, col_start // width * width  # one block: a view of it
            block = self._block(row_start // height, col_start // width)
            return block[row_start - top : row_stop - top, col_start - left : col_stop - left, :channels]
        pixels = np.empty((row_stop - row_start, col_stop - col_start, channels), dtype=self.dtype)
        for rows, cols, block in self._parts(row_start, row_stop, col_start, col_stop):
            pixels[rows, cols] = block[:, :, :channels]
        return pixels

    def known(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray | None:
        """Tell where a rectangle has data: (rows, cols) bool; None everywhere."""
        if not self.placement.has_nodata:
            return None
        known = np.ones((row_stop - row_start, col_stop - col_start), dtype=bool)
        for rows, cols, block in self._parts(row_start, row_stop, col_start, col_stop):
            if block.shape[2] > self.shape[2]:
                known[rows, cols] = block[:, :, -1]
        return known

    def _parts(
        self, row_start: int, row_stop: int, col_start: int, col_stop: int
    ) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Yield what blocks hold of a rectangle, and its rows and columns in the rectangle."""
        height, width = self.block_shape
        for block_row in range(row_start // height, -(-row_stop // height)):
            top, bottom = max(row_start, block_row * height), min(row_stop, (block_row + 1) * height)
            for block_col in range(col_start // width, -(-col_stop // width)):
                left, right = max(col_start, block_col * width), min(col_stop, (block_col + 1) * width)
                block = self._block(block_row, block_col)[
                    top - block_row * height : bottom - block_row * height,
                    left - block_col * width : right - block_col * width,
                ]
                yield slice(top - row_start, bottom - row_start), slice(left - col_start, right - col_start), block

    def close(self) -> None:
        """Let go of the file and of the blocks."""
        with self._lock:
            self._blocks.clear()
            self._held_bytes = 0
        release, self._release = self._release, lambda: None
        release()

    def _block(self, block_row: int, block_col: int) -> np.ndarray:
        key = block_row, block_col
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key]
        block = self._decode(block_row, block_col)  # outside the lock: decoders work in parallel
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = block
                self._held_bytes += block.nbytes
            while self._held_bytes > self._cache_bytes and len(self._blocks) > 1:
                _, oldest = self._blocks.popitem(last=False)
                self._held_bytes -= oldest.nbytes
        return block


class TurnedReader(Closing):
    """An image that is stored turned or mirrored, upright: windows are turned one by one.

    Args:
        stored: the image as it lies in the file.
        orientation: 2 to 8, as Exif and TIFF number them.
    """

    def __init__(self, stored: ImageReader, orientation: int) -> None:
        assert 2 <= orientation <= 8, orientation
        self._stored, self._orientation = stored, orientation
        self.shape = (*upright_shape(*stored.shape[:2], orientation), stored.shape[2])
        self.dtype = stored.dtype
        turned = orientation >= 5
        resolution = stored.placement.resolution
        self.placement = replace(stored.placement, resolution=resolution[::-1] if turned and resolution else resolution)

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        """Read a rectangle inside the upright image: (rows, cols, channels), a view."""
        return upright(self._stored.read(*self._place(row_start, row_stop, col_start, col_stop)), self._orientation)

    def known(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray | None:
        """Tell where a rectangle has data: (rows, cols) bool; None everywhere."""
        known = self._stored.known(*self._place(row_start, row_stop, col_start, col_stop))
        return None if known is None else upright(known, self._orientation)

    def close(self) -> None:
        """Let go of the file."""
        self._stored.close()

    def _place(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> tuple[int, int, int, int]:
        """Where a rectangle of the upright image is stored."""
        rows, cols = (row_start, row_stop), (col_start, col_stop)
        if self._orientation in (3, 4, 7, 8):
            rows = self.shape[0] - row_stop, self.shape[0] - row_start
        if self._orientation in (2, 3, 6, 7):
            cols = self.shape[1] - col_stop, self.shape[1] - col_start
        if self._orientation >= 5:
            rows, cols = cols, rows
        return *rows, *cols


class BandsReader(Closing):
    """Chosen bands of an image, in their order.

    Args:
        stored: the image with all its bands.
        bands: numbers of bands, from 1 as GDAL counts, or names that the file gives them.
        name: what an error calls the image.

    Raises:
        RefusedError: the image has no such band; it is closed.
    """

    def __init__(self, stored: ImageReader, bands: Sequence[int | str], name: str) -> None:
        height, width, count = stored.shape
        names = stored.placement.band_names
        missing = [band for band in bands if (band > count if isinstance(band, int) else names.count(band) != 1)]
        if missing:
            stored.close()
            has = f"{name} has {count} {'band' if count == 1 else 'bands'}"
            if isinstance(missing[0], int):
                raise RefusedError(f"{has}, and bands asks for number {missing[0]}", f"Choose from 1 to {count}.")
            called = f"called {listed(names, 20)}" if names else "without names"
            raise RefusedError(
                f"{has}, {called}, and bands asks for {missing[0]}", "Name others, or give numbers from 1."
            )
        self._stored = stored
        self._indices = [band - 1 if isinstance(band, int) else names.index(band) for band in bands]
        self.shape = (height, width, len(bands))
        self.dtype = stored.dtype
        kept = tuple(names[i] for i in self._indices) if names else ()
        self.placement = replace(stored.placement, band_names=kept, bad_bands=())

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        """Read a rectangle inside the image: (rows, cols, channels)."""
        return self._stored.read(row_start, row_stop, col_start, col_stop)[:, :, self._indices]

    def known(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray | None:
        """Tell where a rectangle has data in the file, bands left out included: (rows, cols) bool; None everywhere."""
        return self._stored.known(row_start, row_stop, col_start, col_stop)

    def close(self) -> None:
        """Let go of the file."""
        self._stored.close()


class MaskedReader(Closing):
    """An image whose file has a mask beside: where that is 0, there are no data.

    Args:
        stored: the image.
        mask: (H, W, 1), of the same size; closed with the image.
    """

    def __init__(self, stored: ImageReader, mask: ImageReader) -> None:
        assert stored.shape[:2] == mask.shape[:2], (stored.shape, mask.shape)
        self._stored, self._mask = stored, mask
        self.shape, self.dtype = stored.shape, stored.dtype
        self.placement = replace(stored.placement, has_nodata=True)

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        """Read a rectangle inside the image: (rows, cols, channels)."""
        return self._stored.read(row_start, row_stop, col_start, col_stop)

    def known(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray | None:
        """Tell where a rectangle has data: (rows, cols) bool."""
        known = self._stored.known(row_start, row_stop, col_start, col_stop)
        unmasked = self._mask.read(row_start, row_stop, col_start, col_stop)[:, :, 0] != 0
        return unmasked if known is None else known & unmasked

    def close(self) -> None:
        """Let go of the file and of the blocks."""
        self._mask.close()
        self._stored.close()


class FilledReader(Closing):
    """An image as a network sees it: a stated value where there are no data.

    Closing it leaves the image open, which belongs to somebody else.

    Args:
        stored: the image.
        fill: (C,), of its type.
    """

    def __init__(self, stored: ImageReader, fill: np.ndarray) -> None:
        self._stored, self._fill = stored, fill
        self.shape, self.dtype, self.placement = stored.shape, stored.dtype, stored.placement

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        """Read a rectangle inside the image: (rows, cols, channels)."""
        pixels = self._stored.read(row_start, row_stop, col_start, col_stop)
        known = self._stored.known(row_start, row_stop, col_start, col_stop)
        return pixels if known is None or known.all() else np.where(known[:, :, None], pixels, self._fill)

    def known(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray | None:
        """Tell where a rectangle has data: (rows, cols) bool; None everywhere."""
        return self._stored.known(row_start, row_stop, col_start, col_stop)


def _require_inside(shape: tuple[int, int, int], row_start: int, row_stop: int, col_start: int, col_stop: int) -> None:
    inside = 0 <= row_start < row_stop <= shape[0] and 0 <= col_start < col_stop <= shape[1]
    assert inside, f"rows {row_start}:{row_stop}, columns {col_start}:{col_stop} are not inside {shape}"
