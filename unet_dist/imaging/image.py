"""What an image is to everybody else: a shape, a place in the world, and windows of uint8 pixels.

Owns the protocol, the images that lie in memory (or in a memory map), the images that are decoded block by block, and
the one way from other number types to uint8. Knows no file format.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from unet_dist.errors import DataError, RefusedError
from unet_dist.imaging.encoded import Encoded

if TYPE_CHECKING:
    from typing_extensions import Self

ValueRange = tuple[float, float]
"""The values that become 0 and 255; between them the map is linear, beyond them it is clipped."""

DEFAULT_MAX_PIXELS = 8192 * 8192
"""Pixels decoded in one piece: 192 MiB as RGB. A 9 KiB PNG can hold more."""

DEFAULT_CACHE_BYTES = 128 * 2**20
"""Decoded blocks kept by one reader; derived: 572 rows of a striped RGB image 78,000 px wide."""


GEO_TAGS = {33550: "d", 33922: "d", 34264: "d", 34735: "H", 34736: "d", 34737: "s"}
"""The tags of the GeoTIFF standard and their types: pixel scale, tie points, matrix, keys and the keys' values."""


@dataclass(frozen=True)
class Placement:
    """Where the pixels lie in the world, as the file said it; a label map of the same grid keeps it."""

    resolution: tuple[float, float] | None = None
    """Pixels per unit, horizontal and vertical (the order of the TIFF tags)."""
    resolution_unit: int = 1
    """TIFF ResolutionUnit: 1 none (an aspect only), 2 inch, 3 centimetre."""
    geo_tags: Mapping[int, Any] = field(default_factory=dict)
    """GeoTIFF tags by number (GEO_TAGS), as read."""
    nodata: int | None = None
    """The value of uint8 pixels, in all channels, where the file has no data (GDAL_NODATA)."""

    @property
    def microns_per_px(self) -> float | None:
        """Width of a pixel in micrometres, None where the file does not say."""
        unit_um = {2: 25_400.0, 3: 10_000.0}.get(self.resolution_unit)
        return None if self.resolution is None or unit_um is None else unit_um / self.resolution[0]

    def scaled(self, row_factor: float, col_factor: float) -> Placement:
        """Return the placement of a coarser grid of the same extent, whose pixels are these factors larger."""
        tags = dict(self.geo_tags)
        if 33550 in tags:  # (x, y, z) of a pixel
            x, y, *rest = tags[33550]
            tags[33550] = (x * col_factor, y * row_factor, *rest)
        if 33922 in tags:  # (column, row, 0, x, y, z) for each tie point
            ties = np.array(tags[33922], dtype=np.float64).reshape(-1, 6)
            tags[33922] = tuple((ties / (col_factor, row_factor, 1, 1, 1, 1)).ravel().tolist())
        if 34264 in tags:  # 4 x 4, from (column, row, 0, 1) to (x, y, z, 1)
            matrix = np.array(tags[34264], dtype=np.float64).reshape(4, 4)
            tags[34264] = tuple((matrix * (col_factor, row_factor, 1, 1)).ravel().tolist())
        x_y = self.resolution and (self.resolution[0] / col_factor, self.resolution[1] / row_factor)
        return replace(self, resolution=x_y, geo_tags=tags)


class ValueRangeError(RefusedError):
    """Values of more than 8 bits, and nobody said which are black and white."""


@dataclass(frozen=True)
class Stored:
    """How a file stores its values: what the ids of a mask are read by, and pixels do not need.

    Attributes:
        dtype: of a value.
        channels: values of a pixel.
        palette: (entries, 3) uint8, the colours that the values stand for; None where they stand for themselves.
        lossy: the compression that changes values, such as JPEG; None where they are those once written.
        white_is_zero: whether the largest value is shown black.
    """

    dtype: np.dtype
    channels: int
    palette: np.ndarray | None = None
    lossy: str | None = None
    white_is_zero: bool = False


Interpret = Callable[[Stored], Callable[[np.ndarray], np.ndarray]]
"""How a file stores its values -> the way from them, (rows, cols, channels), to (rows, cols, any) uint8."""


@dataclass(frozen=True)
class Opening:
    """How an image is to be opened: the one argument of every format.

    Attributes:
        level: of a pyramid; 0 is the finest and the default.
        mpp: micrometres per pixel, instead of a level: takes the level of this size.
        value_range: the values that become 0 and 255; needed for anything but uint8.
        max_pixels: refuse to decode more pixels than this in one piece.
        cache_bytes: decoded pieces of the file that are kept; also the bound on what a reader holds.
        interpret: turns stored values into uint8 of one channel, such as the ids of a mask; None gives colours.
    """

    level: int | None = None
    mpp: float | None = None
    value_range: ValueRange | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    cache_bytes: int = DEFAULT_CACHE_BYTES
    interpret: Interpret | None = None


@dataclass(frozen=True)
class ImageFormat:
    """A kind of image file: what the registry lists.

    Attributes:
        name: as the user knows it.
        suffixes: of its files, in lower case; by them a folder is searched.
        recognises: tells an image of this kind, by its first bytes where they say.
        open: opens one.
        by_windows: whether it is read by windows, however large it is; else it is decoded whole at the first read.
    """

    name: str
    suffixes: tuple[str, ...]
    recognises: Callable[[Encoded], bool]
    open: Callable[[Encoded, Opening], ImageReader]
    by_windows: bool


@runtime_checkable
class ImageReader(Protocol):
    """An image that is read by windows."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""

    @property
    def placement(self) -> Placement:
        """Resolution and georeference of this grid of pixels."""

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        """Read a rectangle inside the image: (rows, cols, channels) uint8, possibly a view: not to be written to."""

    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Closing:
    """The context manager of every reader: leaving it closes the file."""

    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ArrayReader(Closing):
    """An image in memory or in a memory map.

    Args:
        array: (H, W) or (H, W, C), uint8 unless `value_range` or `interpret` (see `Opening`) is stated. It is not copied.
        name: what an error calls the image.

    Raises:
        DataError: another number of axes, an empty axis, or values that are not uint8 and no stated range.
    """

    def __init__(
        self,
        array: np.ndarray,
        *,
        value_range: ValueRange | None = None,
        interpret: Interpret | None = None,
        name: str = "the array",
        placement: Placement | None = None,
    ) -> None:
        if array.ndim not in (2, 3) or array.size == 0:
            raise RefusedError(
                f"{name} has shape {array.shape}",
                "An image is (height, width) or (height, width, channels), none of them zero: select or transpose its axes.",
            )
        array = np.asarray(array)  # a memory map stays one, under a plainer type
        self._array = array[:, :, None] if array.ndim == 2 else array
        if interpret is None:
            require_mappable(array.dtype, value_range, name)
            self._channels = self._array.shape[2]
            self._to_pixels: Callable[[np.ndarray], np.ndarray] = partial(to_uint8, value_range=value_range)
        else:
            self._channels, self._to_pixels = 1, interpret(Stored(array.dtype, self._array.shape[2]))
        self.placement = placement or Placement()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        height, width, _ = self._array.shape
        return height, width, self._channels

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        """Read a rectangle inside the image: (rows, cols, channels) uint8."""
        _require_inside(self.shape, row_start, row_stop, col_start, col_stop)
        return self._to_pixels(self._array[row_start:row_stop, col_start:col_stop])


class BlockReader(Closing):
    """An image cut into a grid of blocks that are decoded when a window needs them; the last used ones are kept.

    Memory: `cache_bytes` of decoded blocks, or one block where that is larger. Threads may read at the same time.

    Args:
        shape: (height, width, channels).
        block_shape: (height, width) of a block; the last of a row or column reaches beyond the image.
        decode: (block row, block column) -> (rows, cols, channels) uint8, covering at least the block's part inside
            the image.
        release: called once by `close`.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        block_shape: tuple[int, int],
        decode: Callable[[int, int], np.ndarray],
        *,
        placement: Placement | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self.shape = shape
        self.block_shape = block_shape
        self.placement = placement or Placement()
        self._decode = decode
        self._cache_bytes = cache_bytes
        self._release = release
        self._blocks: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()  # least recently used first
        self._held_bytes = 0
        self._lock = threading.Lock()

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        """Read a rectangle inside the image: (rows, cols, channels) uint8, a view where one block holds it.

        Decodes only the blocks it touches.
        """
        _require_inside(self.shape, row_start, row_stop, col_start, col_stop)
        height, width = self.block_shape
        if row_start // height == (row_stop - 1) // height and col_start // width == (col_stop - 1) // width:
            top, left = row_start // height * height, col_start // width * width  # one block: a view of it
            block = self._block(row_start // height, col_start // width)
            return block[row_start - top : row_stop - top, col_start - left : col_stop - left]
        pixels = np.empty((row_stop - row_start, col_stop - col_start, self.shape[2]), dtype=np.uint8)
        for block_row in range(row_start // height, -(-row_stop // height)):
            top, bottom = max(row_start, block_row * height), min(row_stop, (block_row + 1) * height)
            for block_col in range(col_start // width, -(-col_stop // width)):
                left, right = max(col_start, block_col * width), min(col_stop, (block_col + 1) * width)
                block = self._block(block_row, block_col)[
                    top - block_row * height : bottom - block_row * height,
                    left - block_col * width : right - block_col * width,
                ]
                pixels[top - row_start : bottom - row_start, left - col_start : right - col_start] = block
        return pixels

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
        turned = orientation >= 5
        resolution = stored.placement.resolution
        self.placement = replace(stored.placement, resolution=resolution[::-1] if turned and resolution else resolution)

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        """Read a rectangle inside the upright image: (rows, cols, channels) uint8, a view."""
        rows, cols = (row_start, row_stop), (col_start, col_stop)
        if self._orientation in (3, 4, 7, 8):
            rows = self.shape[0] - row_stop, self.shape[0] - row_start
        if self._orientation in (2, 3, 6, 7):
            cols = self.shape[1] - col_stop, self.shape[1] - col_start
        if self._orientation >= 5:
            rows, cols = cols, rows
        return upright(self._stored.read(*rows, *cols), self._orientation)

    def close(self) -> None:
        """Let go of the file."""
        self._stored.close()


def require_mappable(dtype: np.dtype, value_range: ValueRange | None, name: str) -> None:
    """Refuse values that have no stated way to uint8.

    Raises:
        ValueRangeError: not uint8 (or one bit) and no range.
        DataError: not a number type, or an empty or infinite range.
    """
    if dtype.kind not in "buif":
        raise RefusedError(f"{name} holds {dtype} values", "Expected real numbers: convert it first.")
    if value_range is None:
        if dtype not in (np.uint8, np.bool_):
            raise ValueRangeError(
                f"{name} holds {dtype} values, and uint8 was expected",
                "Say which values are black and white with value_range (12-bit data: 0,4095); they are mapped linearly to 0 "
                "and 255.",
            )
    elif not (np.isfinite(value_range).all() and value_range[0] < value_range[1]):
        raise DataError(f"value_range is {value_range}. Expected two finite numbers, the smaller first.")


def to_uint8(values: np.ndarray, value_range: ValueRange | None) -> np.ndarray:
    """Map the stated range linearly to 0..255, rounded and clipped; NaN becomes 0. One bit is 0 or 255."""
    if values.dtype == np.bool_:
        values = values * np.uint8(255)
    if value_range is None:
        return values
    low, high = value_range
    # float32 holds 16-bit integers exactly; wider types go through float64.
    scaled = values.astype(np.result_type(values.dtype, np.float32))
    scaled -= low
    scaled *= 255 / (high - low)
    if values.dtype.kind == "f":
        np.nan_to_num(scaled, copy=False, nan=0.0)
    return np.rint(np.clip(scaled, 0, 255, out=scaled), out=scaled).astype(np.uint8)


def decode_budget_bytes() -> int:
    """Say how much memory decoding one piece of an image may take: a quarter of the machine's."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def require_decodable(height: int, width: int, max_pixels: int, name: str, *, bytes_per_px: int = 1) -> None:
    """Refuse to decode more pixels or bytes in one piece than the limits, before any is decoded.

    Args:
        bytes_per_px: that decoding takes, of all copies there are at a time.

    Raises:
        RefusedError: height * width exceeds max_pixels, or its bytes the budget.
    """
    if height * width > max_pixels:
        raise RefusedError(
            f"{name} must be decoded in one piece of {height} x {width} = {height * width:,} px, and max_pixels is "
            f"{max_pixels:,}",
            "If you trust the file, raise max_pixels; a tiled TIFF or a Zarr array is read by windows and has no limit.",
        )
    needed, budget = height * width * bytes_per_px, decode_budget_bytes()
    if needed > budget:
        raise RefusedError(
            f"{name} must be decoded in one piece of {height} x {width} px, which takes {needed / 2**30:.1f} GiB, and a "
            f"quarter of this machine's memory is {budget / 2**30:.1f} GiB",
            "Write it as tiled TIFF or Zarr, which are read by windows.",
        )


def without_alpha(values: np.ndarray, index: int, name: str) -> np.ndarray:
    """Drop an alpha channel that is opaque everywhere: (H, W, C) -> (H, W, C - 1).

    Args:
        index: of the alpha channel.

    Raises:
        RefusedError: a pixel is transparent.
    """
    opaque = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else 1
    num_clear = int((values[:, :, index] < opaque).sum())
    if num_clear:
        raise RefusedError(
            f"{name} has {num_clear:,} transparent pixels",
            "Expected opaque grey or RGB: flatten it onto the background it is meant for.",
        )
    return np.delete(values, index, axis=2) if index < values.shape[2] - 1 else values[:, :, :-1]


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored values (H, W, C) as viewers show them, by the orientation of Exif and TIFF; as a view.

    Only 1 to 8 have a meaning; whatever else a file says is 1, as viewers take it.
    """
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    cols = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return values[rows, cols]


def upright_shape(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Give (height, width) of what is stored as height x width."""
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def _require_inside(shape: tuple[int, int, int], row_start: int, row_stop: int, col_start: int, col_stop: int) -> None:
    inside = 0 <= row_start < row_stop <= shape[0] and 0 <= col_start < col_stop <= shape[1]
    assert inside, f"rows {row_start}:{row_stop}, columns {col_start}:{col_stop} are not inside {shape}"
