"""Pairs that are read by windows from their own files, and never copied: TIFF too large to be decoded whole, and Zarr.

Owns which pairs these are, the one pass over all of their pixels that checks them, and the few files that stay open. Memory: a
few decoded blocks, whatever the size of the images.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dist.data.decoded.decode import (
    DecodedPair,
    Header,
    ImageRules,
    Rules,
    count_as,
    look_at_mask,
    open_image_of,
    open_mask_of,
)
from unet_dist.data.decoded.labels import ignored_in
from unet_dist.data.decoded.moments import ChannelSums
from unet_dist.data.sources.fingerprint import PixelDigest, parts_of
from unet_dist.data.sources.pairs import RawPair
from unet_dist.errors import RefusedError
from unet_dist.imaging.encoded import Encoded, split_page
from unet_dist.imaging.formats import format_of
from unet_dist.imaging.image import DEFAULT_MAX_PIXELS, ImageReader, Placement
from unet_dist.imaging.views import Part

if TYPE_CHECKING:
    from typing_extensions import Self

_OPEN_PAIRS = 4
_BLOCK_BYTES = 64 * 2**20
"""Decoded blocks kept of an open image, and of its mask: derived, 572 rows of a striped RGB image 39,000 px wide."""


def needs_windows(pair: RawPair, max_pixels: int, image_rules: ImageRules) -> bool:
    """Say whether a pair is read from its files: one is Zarr and both are read by windows, or the image is and exceeds max_pixels.

    Raises:
        RefusedError: the image cannot be opened.
    """
    image, mask = pair.image, pair.mask
    if not (isinstance(image, Path) and isinstance(mask, Path)):
        return False
    is_zarr, by_windows = (
        split_page(image)[0].is_dir() or split_page(mask)[0].is_dir(),
        [
            format_of(Encoded(path, f"{kind} {path.name}")).by_windows
            for kind, path in (("image", image), ("mask", mask))
        ],
    )
    if is_zarr and all(by_windows):
        return True
    if not by_windows[0]:
        return False
    with open_image_of(pair, DEFAULT_MAX_PIXELS, image_rules) as reader:
        return reader.shape[0] * reader.shape[1] > max_pixels


def read_windowed_header(pair: RawPair, rules: Rules, image_rules: ImageRules) -> Header:
    """Read size, channels and type of a pair from the headers alone.

    Raises:
        RefusedError: image and mask differ in size, or either cannot be used.
    """
    _require_windows(pair)
    with _open_image(pair, image_rules) as image:
        return look_at_mask(pair, rules, DEFAULT_MAX_PIXELS, Header.of(image))


def scan_pair(pair: RawPair, rules: Rules, image_rules: ImageRules) -> DecodedPair:
    """Check every pixel of a pair, sum up the statistics and digest the pixels; gives no pixels.

    Raises:
        RefusedError: a block is damaged, or the mask holds an id or colour without a meaning.
    """
    nothing = np.empty(0, dtype=np.uint8)
    with _opened(pair, rules, image_rules) as (image, mask):
        height, width, channels = image.shape
        sums, has_gaps = ChannelSums(channels, image.dtype), False
        class_counts = count_as(rules, np.empty(0, mask.dtype))
        image_digest, label_digest = PixelDigest(image.shape, image.dtype), PixelDigest(image.shape[:2], mask.dtype)
        for part in parts_of(height, width):
            pixels, labels, known = image.read(*part), mask.read(*part), image.known(*part)
            labels = without_unknown(labels, known)
            has_gaps = has_gaps or (known is not None and not known.all())
            sums.add(pixels, known)
            class_counts += count_as(rules, labels)
            image_digest.add(pixels)
            label_digest.add(labels)
    return DecodedPair(
        image=nothing,
        label=nothing,
        known=None,
        has_gaps=has_gaps,
        moments=sums.record(),
        histogram=sums.histogram,
        class_counts=class_counts,
        image_digest=image_digest.digest(),
        label_digest=label_digest.digest(),
    )


class WindowedFiles:
    """The files of pairs that are read by windows, of which a few are open at a time. Safe for threads, and after a fork.

    Args:
        root: folder that the paths are below.
        paths: of the image and the mask, by the number of the pair.
        rules: of the masks.
        image_rules: how the images are read.
        parts: the rectangles that the pairs are, by number, where they are not all of their files.
        channels: 3 where grey images are read as colour.
    """

    def __init__(
        self,
        root: Path,
        paths: Mapping[int, tuple[str, str]],
        rules: Rules,
        image_rules: ImageRules,
        *,
        parts: Mapping[int, Part] | None = None,
        channels: int | None = None,
    ) -> None:
        self._root, self._paths, self._rules, self._image_rules = root, paths, rules, image_rules
        self._parts, self._channels = parts or {}, channels
        self._open: OrderedDict[tuple[int, str], ImageReader] = OrderedDict()  # least recently used first
        self._lock, self._process = threading.Lock(), os.getpid()
        weakref.finalize(self, _close_all, self._open)

    def read(self, number: int, kind: str, rectangle: tuple[int, int, int, int]) -> np.ndarray:
        """Read rows and columns of the image or the mask of a pair: (rows, cols, channels).

        Raises:
            DataError: the file is gone, or has been damaged since it was checked.
        """
        with self._alone():
            pixels = self._reader(number, kind).read(*rectangle)
            if kind == "mask":
                pixels = without_unknown(pixels, self._reader(number, "image").known(*rectangle))
            return pixels

    def known(self, number: int, rectangle: tuple[int, int, int, int]) -> np.ndarray | None:
        """Tell where rows and columns of the image of a pair have data: (rows, cols) bool; None everywhere."""
        with self._alone():
            return self._reader(number, "image").known(*rectangle)

    def _alone(self) -> threading.Lock:
        """One at a time, so that no file is closed while it is read."""
        if self._process != os.getpid():  # a worker: the parent's lock may be held by a thread that is not here
            self._lock, self._process = threading.Lock(), os.getpid()
        return self._lock

    def _reader(self, number: int, kind: str) -> ImageReader:
        key = number, kind
        if key not in self._open:
            image, mask = self._paths[number]
            pair = RawPair(
                str(number),
                self._root / image,
                self._root / mask,
                image,
                mask,
                self._parts.get(number),
                self._channels,
            )
            self._open[key] = _open_image(pair, self._image_rules) if kind == "image" else _open_mask(pair, self._rules)
            while len(self._open) > 2 * _OPEN_PAIRS:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(key)
        return self._open[key]


@dataclass(frozen=True)
class WindowedImage:
    """The image of a pair, for whoever reads windows. Closing it leaves the file open for the next window."""

    files: WindowedFiles
    number: int
    shape: tuple[int, int, int]
    dtype: np.dtype
    placement: Placement = field(default_factory=Placement)

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        """Read a rectangle inside the image: (rows, cols, channels)."""
        return self.files.read(self.number, "image", (row_start, row_stop, col_start, col_stop))

    def known(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray | None:
        """Tell where a rectangle has data: (rows, cols) bool; None everywhere."""
        if not self.placement.has_nodata:
            return None
        return self.files.known(self.number, (row_start, row_stop, col_start, col_stop))

    def close(self) -> None:
        """Let go of nothing: the file is the split's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


@dataclass(frozen=True)
class WindowedLabel:
    """The labels of a pair, cut like an array: label[top:bottom, left:right] is (rows, cols)."""

    files: WindowedFiles
    number: int
    shape: tuple[int, int]
    dtype: np.dtype

    def __getitem__(self, part: tuple[slice, slice]) -> np.ndarray:
        (top, bottom, _), (left, right, _) = (cut.indices(side) for cut, side in zip(part, self.shape, strict=True))
        if top >= bottom or left >= right:
            return np.empty((max(bottom - top, 0), max(right - left, 0)), dtype=self.dtype)
        return self.files.read(self.number, "mask", (top, bottom, left, right))[..., 0]


def _close_all(readers: OrderedDict[Any, ImageReader]) -> None:
    while readers:
        readers.popitem()[1].close()


def without_unknown(labels: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    """Ignore labels (rows, cols, 1) where the image has no data."""
    return labels if known is None else np.where(known[:, :, None], labels, labels.dtype.type(ignored_in(labels.dtype)))


def _open_image(pair: RawPair, image_rules: ImageRules) -> ImageReader:
    return open_image_of(pair, DEFAULT_MAX_PIXELS, image_rules, cache_bytes=_BLOCK_BYTES)


def _open_mask(pair: RawPair, rules: Rules) -> ImageReader:
    return open_mask_of(pair, rules, DEFAULT_MAX_PIXELS, cache_bytes=_BLOCK_BYTES)


@contextmanager
def _opened(pair: RawPair, rules: Rules, image_rules: ImageRules) -> Iterator[tuple[ImageReader, ImageReader]]:
    _require_windows(pair)
    with _open_image(pair, image_rules) as image, _open_mask(pair, rules) as mask:
        yield image, mask


def _require_windows(pair: RawPair) -> None:
    """Refuse a pair of which one file is not read by windows. Raises: RefusedError."""
    for content, name in ((pair.image, f"image {pair.image_name}"), (pair.mask, f"mask {pair.mask_name}")):
        assert isinstance(content, Path), pair
        if not format_of(Encoded(content, name)).by_windows:
            raise RefusedError(
                f"{name} is neither TIFF, .npy nor Zarr, and its pair is too large to be decoded whole",
                "Write both as tiled TIFF or Zarr; or raise max_pixels where both are pictures.",
            )
