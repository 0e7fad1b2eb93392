"""The images of a TIFF that holds several of one shape, such as the slices of a microscope.

Owns how many there are and which pages are each. Axes but Y, X, S (samples) and C (channels) count images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from unet_dist.errors import DataError, RefusedError
from unet_dist.imaging.encoded import Encoded, parsing
from unet_dist.imaging.tiff_pages import count_pages

_SUFFIXES = (".tif", ".tiff")
_HEAD_BYTES = 4096
_TELLS = (b"ImageJ=", b'"shape"')
"""What writers put into the description of the one page that stands for several."""


@dataclass(frozen=True)
class StackImage:
    """One image of a series of TIFF pages, as `tifffile` describes a series: of axes YX, YXS, SYX or CYX."""

    keyframe: Any
    pages: list[Any]
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype
    dataoffset: int | None

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def num_images(series: Any) -> int:
    """Count the images of a series."""
    return len(_planes(series)[0])


def image_of(series: Any, number: int, name: str) -> StackImage:
    """Give one image of a series, counted from 0.

    Raises:
        RefusedError: its axes are none of an image, or pages are missing.
    """
    planes, tail = _planes(series)
    chosen = [int(plane) for plane in planes[number]]
    sides = tuple(series.shape[len(series.shape) - len(tail) :])
    axes, shape = (f"C{tail}", (len(chosen), *sides)) if "C" in series.axes else (tail, sides)
    if axes not in ("YX", "YXS", "SYX", "CYX"):
        raise RefusedError(f"{name} has the axes {series.axes}", "Expected height, width and channels: write it so.")
    is_one_piece = series.dataoffset is not None and chosen == list(range(chosen[0], chosen[0] + len(chosen)))
    plane_bytes = int(np.prod(sides, dtype=np.int64)) * np.dtype(series.dtype).itemsize
    offset = series.dataoffset + chosen[0] * plane_bytes if is_one_piece else None
    pages = list(series.pages)
    if len(pages) == planes.size:
        pages = [pages[plane] for plane in chosen]
    elif offset is None and planes.size > 1:
        raise RefusedError(f"{name} has {len(pages)} pages for {planes.size} planes", "Write a page for each plane.")
    return StackImage(series.keyframe, pages, axes, shape, np.dtype(series.dtype), offset)


def tiff_axes(path: Path) -> tuple[tuple[str, int], ...]:
    """Name the axes that count images, in lower case, and their lengths: none of whatever is no TIFF of several, or cannot be read.

    A TIFF of one page costs a look at its head.
    """
    if path.suffix.lower() not in _SUFFIXES or not path.is_file():
        return ()
    encoded = Encoded(path, str(path))
    try:
        if count_pages(encoded) < 2:
            with encoded.open() as file:
                head = file.read(_HEAD_BYTES)
            if not any(word in head for word in _TELLS):
                return ()
        with parsing(encoded.name, kind="TIFF"), tifffile.TiffFile(path) as stack:
            series = stack.series[0]
            lead = zip(_lead(series), series.shape, strict=False)
            axes = tuple((axis.lower(), int(side)) for axis, side in lead if axis != "C")
            return axes if num_images(series) > 1 else ()
    except (DataError, OSError):  # whoever reads the pixels says what is wrong with it
        return ()


def _lead(series: Any) -> str:
    """The axes before those of a plane."""
    axes: str = series.axes
    tail = next((end for end in ("YXS", "SYX", "YX") if axes.endswith(end)), axes)
    return axes[: len(axes) - len(tail)]


def _planes(series: Any) -> tuple[np.ndarray, str]:
    """Give the numbers of the planes of each image, (images, channels), and the axes of a plane."""
    axes: str = series.axes
    lead = _lead(series)
    tail = axes[len(lead) :]
    planes = np.arange(int(np.prod(series.shape[: len(lead)], dtype=np.int64))).reshape(series.shape[: len(lead)])
    if "C" in lead:
        planes = np.moveaxis(planes, lead.index("C"), -1)
        return planes.reshape(-1, planes.shape[-1]), tail
    return planes.reshape(-1, 1), tail
