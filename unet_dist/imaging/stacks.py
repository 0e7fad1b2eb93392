"""The images of a file that holds several of one shape: slices, times, positions.

Owns how they are chosen: by number (stack.tif#3), or all that lie at places of an axis (`select`). What a format makes
of its axes is the format's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from unet_dist.errors import DataError
from unet_dist.imaging.encoded import page_path, split_page
from unet_dist.imaging.tiff_stack import tiff_axes
from unet_dist.imaging.zarr_store import is_zarr, zarr_axes

Select = Mapping[str, tuple[int, int]]
"""By the name of an axis in lower case the first and the last place to take, counted from 1."""

ALL: Select = {}


def stack_axes(path: Path) -> tuple[tuple[str, int], ...]:
    """Name the axes that count images and their lengths, the slowest first; none of a file of one image, or that cannot be read."""
    return zarr_axes(path) if is_zarr(path) else tiff_axes(path)


def images_in(path: Path, select: Select = ALL) -> list[Path]:
    """Name the images that a file holds and that are selected: the file itself, or one path for each image of a stack.

    A file of one image lies at place 1 of every axis that it lacks: the mask of the only time, say.

    Raises:
        DataError: a stack has no such axis, or no such place on it.
    """
    axes = stack_axes(path) if split_page(path)[1] is None else ()
    if not axes:
        return [path]
    sides = dict(axes)
    for name, (_, last) in select.items():
        if last > sides.get(name, 1):
            found = ", ".join(f"{axis} {side}" for axis, side in axes)
            raise DataError(f"{path}: it holds images along {found}, and select asks for {name} {last}. Choose others.")
    places = [slice(*_span(select.get(name, (1, side)))) for name, side in axes]
    numbers = np.arange(1, int(np.prod([side for _, side in axes])) + 1).reshape([side for _, side in axes])
    return [page_path(path, int(number)) for number in numbers[tuple(places)].ravel()]


def _span(span: tuple[int, int]) -> tuple[int, int]:
    return span[0] - 1, span[1]
