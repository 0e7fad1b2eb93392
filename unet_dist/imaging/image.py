"""What an image is to everybody else: a shape, a number type, a place in the world, and windows of pixels.

Owns the protocol of a reader, the options of opening an image, and the contract of a format. Knows no file format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from unet_dist.imaging.encoded import Encoded

if TYPE_CHECKING:
    from typing_extensions import Self

UINT8 = np.dtype(np.uint8)

ValueRange = tuple[float, float]
"""The values that become 0 and 255; between them the map is linear, beyond them it is clipped."""

DEFAULT_MAX_PIXELS = 8192 * 8192
"""Pixels decoded in one piece: 192 MiB as RGB. A 9 KiB PNG can hold more."""

DEFAULT_CACHE_BYTES = 128 * 2**20
"""Decoded blocks kept by one reader; derived: 572 rows of a striped RGB image 78,000 px wide."""


GEO_TAGS = {33550: "d", 33922: "d", 34264: "d", 34735: "H", 34736: "d", 34737: "s", 50844: "d"}
"""The tags of the GeoTIFF standard and their types: pixel scale, tie points, matrix, keys and the keys' values; RPC's numbers."""


@dataclass(frozen=True)
class Placement:
    """Where the pixels lie in the world, as the file said it; a label map of the same grid keeps it."""

    resolution: tuple[float, float] | None = None
    """Pixels per unit, horizontal and vertical (the order of the TIFF tags)."""
    resolution_unit: int = 1
    """TIFF ResolutionUnit: 1 none (an aspect only), 2 inch, 3 centimetre."""
    geo_tags: Mapping[int, Any] = field(default_factory=dict)
    """GeoTIFF tags by number (GEO_TAGS), as read."""
    has_nodata: bool = False
    """Whether some pixels may have no data: a stated value (GDAL_NODATA), transparent, or no number."""
    band_names: tuple[str, ...] = ()
    """One per channel, as the file names them; none where it does not."""
    bad_bands: tuple[int, ...] = ()
    """Numbers of the bands, from 1, that the file says are not to be used."""

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
        if len(tags.get(50844, ())) == 92:  # source: "RPCs in GeoTIFF": 0, 0 is the centre of a pixel
            numbers = list(tags[50844])
            for place, factor in ((2, row_factor), (3, col_factor)):  # the offset; five places on, the scale
                numbers[place] = (numbers[place] + 0.5) / factor - 0.5
                numbers[place + 5] /= factor
            tags[50844] = tuple(numbers)
        x_y = self.resolution and (self.resolution[0] / col_factor, self.resolution[1] / row_factor)
        return replace(self, resolution=x_y, geo_tags=tags)


@dataclass(frozen=True)
class Stored:
    """How a file stores its values: what the ids of a mask are read by, and pixels do not need.

    Attributes:
        dtype: of a value.
        channels: values of a pixel.
        palette: (entries, 3) uint8, the colours that the values stand for; None where they stand for themselves.
        lossy: the compression that changes values, such as JPEG; None where they are those once written.
        white_is_zero: whether the largest value is shown black.
        nodata: the value that the file says stands for no data; None where it says nothing.
        has_flags: whether the bits of a value are flags of their own.
    """

    dtype: np.dtype
    channels: int
    palette: np.ndarray | None = None
    lossy: str | None = None
    white_is_zero: bool = False
    nodata: float | None = None
    has_flags: bool = False


@dataclass(frozen=True)
class Interpret:
    """The way to read stored values, such as the ids of a mask.

    Attributes:
        of: how a file stores its values -> the way from them, (rows, cols, channels), to (rows, cols, any) of the type.
        dtype: of what comes.
    """

    of: Callable[[Stored], Callable[[np.ndarray], np.ndarray]]
    dtype: np.dtype = UINT8

    def __call__(self, stored: Stored) -> Callable[[np.ndarray], np.ndarray]:
        """The way from the values of a file that stores them so."""
        return self.of(stored)


@dataclass(frozen=True)
class Opening:
    """How an image is to be opened: the one argument of every format.

    Attributes:
        level: of a pyramid; 0 is the finest and the default.
        mpp: micrometres per pixel, instead of a level: takes the level of this size.
        value_range: the values that become 0 and 255, which makes 8 bits of any type; None keeps the type.
        nodata: the value that stands for no data, in place of what the file says.
        max_pixels: refuse to decode more pixels than this in one piece.
        cache_bytes: decoded pieces of the file that are kept; also the bound on what a reader holds.
        interpret: turns stored values into one channel, such as the ids of a mask; None gives colours.
        keeps_channels: interpret gives as many channels as are stored, such as a mask's plane for each class.
        scales: factors and offsets that a file beside states, by band from 0; they go before those of the file.
    """

    level: int | None = None
    mpp: float | None = None
    value_range: ValueRange | None = None
    nodata: float | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    cache_bytes: int = DEFAULT_CACHE_BYTES
    interpret: Interpret | None = None
    keeps_channels: bool = False
    scales: tuple[Mapping[int, object], Mapping[int, object]] = ({}, {})


@dataclass(frozen=True)
class ImageFormat:
    """A kind of image file: what the registry lists.

    Attributes:
        name: as the user knows it.
        suffixes: of its files, in lower case; by them a folder is searched.
        recognises: tells an image of this kind, by its first bytes where they say.
        open: opens one.
        by_windows: whether it is read by windows, however large it is; else it is decoded whole at the first read.
        beside: other files that the image of a path is made of, such as the raw values of a header.
        class_names: the names that a mask has for its ids, as they are stored.
    """

    name: str
    suffixes: tuple[str, ...]
    recognises: Callable[[Encoded], bool]
    open: Callable[[Encoded, Opening], ImageReader]
    by_windows: bool
    beside: Callable[[Path], list[Path]] = lambda path: []
    class_names: Callable[[Path], dict[int, str]] = lambda path: {}


@runtime_checkable
class ImageReader(Protocol):
    """An image that is read by windows."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""

    @property
    def dtype(self) -> np.dtype:
        """Of the pixels: uint8, uint16, int16 or float32."""

    @property
    def placement(self) -> Placement:
        """Resolution and georeference of this grid of pixels."""

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        """Read a rectangle inside the image: (rows, cols, channels), possibly a view: not to be written to."""

    def known(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray | None:
        """Tell where a rectangle has data: (rows, cols) bool; None everywhere."""

    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Closing:
    """What every reader has by default: 8 bits, data everywhere, and leaving it as a context closes the file."""

    dtype: np.dtype = np.dtype(np.uint8)

    def known(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray | None:
        """Tell where a rectangle has data: everywhere."""
        return None

    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
