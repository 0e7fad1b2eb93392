"""The files of a cache that hold pixels, one sample behind the other, and their content.

Owns their layout: the place of a sample is known before the first is written, so that threads write at once. `cache.py` maps them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import xxhash

from unet_dist.data.decoded.decode import DecodedPair, Header
from unet_dist.data.decoded.moments import num_bins
from unet_dist.errors import DataError
from unet_dist.wording import size

IMAGES, LABELS, KNOWN, HISTOGRAMS = "images.bin", "labels.bin", "known.bin", "histograms.bin"
_RESERVE_BYTES = 64 * 2**20  # left free on the file system beside the cache


class PixelWriter:
    """Writes images, labels, where there are data, and histograms.

    Args:
        folder: of the cache in the making.
        headers: of all samples, in order; of one type and number of channels.
        windowed: positions of those that stay in their files.
        label_dtype: of the labels.

    Raises:
        DataError: the disk is too full.
    """

    def __init__(
        self, folder: Path, headers: Sequence[Header], windowed: Collection[int], label_dtype: np.dtype
    ) -> None:
        self.headers = headers
        first = headers[0]
        self.dtype = np.dtype(first.dtype)
        channels = first.shape[2]
        pixels = [0 if i in windowed else head.shape[0] * head.shape[1] for i, head in enumerate(headers)]
        sizes = np.array(pixels, dtype=np.int64)
        self.label_offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self.image_offsets = self.label_offsets * channels
        self._histogram_bytes = channels * num_bins(self.dtype) * 4
        has_nodata = any(header.has_nodata for header in headers)
        self._label_bytes = label_dtype.itemsize
        per_px = channels * self.dtype.itemsize + self._label_bytes + has_nodata
        _check_space(folder, int(sizes.sum()) * per_px + len(headers) * self._histogram_bytes)
        names = [IMAGES, LABELS, HISTOGRAMS, *([KNOWN] if has_nodata else [])]
        self._files = {name: os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666) for name in names}
        self._known_path = folder / KNOWN
        self.checks = {name: np.zeros(len(headers), dtype=np.uint64) for name in self._files if name != HISTOGRAMS}
        """Of each file, the `quick_digest` of what it holds of each sample, 0 of those that stay in their files."""

    def write(self, number: int, decoded: DecodedPair) -> None:
        """Write a sample at its place; safe from several threads."""
        at = int(self.label_offsets[number])
        self._write(IMAGES, number, decoded.image, int(self.image_offsets[number]) * self.dtype.itemsize)
        self._write(LABELS, number, decoded.label, at * self._label_bytes)
        if KNOWN in self._files:
            known = np.ones(decoded.label.shape, np.uint8) if decoded.known is None else decoded.known.view(np.uint8)
            self._write(KNOWN, number, known, at)

    def write_histogram(self, number: int, decoded: DecodedPair) -> None:
        """Write the counts of a sample's values: (C, bins) float32, whose error in a percentile is below 1e-6."""
        _write_at(
            self._files[HISTOGRAMS], np.ascontiguousarray(decoded.histogram, np.float32), number * self._histogram_bytes
        )

    def _write(self, name: str, number: int, pixels: np.ndarray, offset: int) -> None:
        pixels = np.ascontiguousarray(pixels)
        self.checks[name][number] = quick_digest(pixels)
        _write_at(self._files[name], pixels, offset)

    def close(self, *, keeps_known: bool) -> None:
        """End. Args: keeps_known: whether a pixel has no data; else no file says so."""
        for handle in self._files.values():
            os.fsync(handle)
            os.close(handle)
        if not keeps_known:
            self._known_path.unlink(missing_ok=True)


def check_key(name: str) -> str:
    """Name the column of the table of samples that holds the quick digests of a file."""
    return f"{name.removesuffix('.bin')}_checks"


def quick_digest(pixels: np.ndarray) -> int:
    """64 bits that damage changes (XXH3), for which 1080 x 1920 pixels take 0.3 ms; made-up content may have the same."""
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(pixels).data.cast("B"))


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + _RESERVE_BYTES > free:
        raise DataError(
            f"{folder.parent}: the decoded cache needs {size(needed)} and {size(free)} are free. "
            "Free some, or set cache_path to another file system."
        )


def _write_at(handle: int, pixels: np.ndarray, offset: int) -> None:
    view = pixels.data.cast("B")
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written
