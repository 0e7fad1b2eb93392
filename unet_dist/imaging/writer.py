"""Pictures of a segmentation: the label map, and the label map over its image.

Owns how labels become files. A file is whole or not there.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from unet_dist.imaging.palette import colour_table
from unet_dist.imaging.png import write_png
from unet_dist.imaging.stretch import as_picture

_BAND_ROWS = 64
"""Of an overlay, mixed at once: as floats, the whole would take ten times the picture."""

_LEAST_REGION_PX, _LEAST_REGION_SHARE = 16, 5e-5
"""Of a picture: what an overlay outlines. assumption, by the eye: 104 px of 1080x1920."""
_REGIONS_PIXELS = 500_000
"""Regions of a larger picture are found in every n-th row and column: those of 1080x1920 then take a ninth of the time."""


def write_label_map(path: str | os.PathLike, labels: np.ndarray, palette: np.ndarray) -> None:
    """Write class ids as a PNG: 8 bits with a palette, whose colours are for looking, or 16 bits of grey.

    Args:
        labels: (H, W) uint8 or uint16.
        palette: (num_classes, 3) uint8; ids beyond it are black.

    Raises:
        DataError: the file cannot be written; nothing is then left under its name.
    """
    assert labels.ndim == 2, f"labels {labels.shape}"
    write_png(Path(path), labels, colour_table(palette)[:256] if labels.dtype == np.uint8 else None)


def write_grey(path: str | os.PathLike, values: np.ndarray) -> None:
    """Write (H, W) uint8 as an 8-bit grey PNG.

    Raises:
        DataError: the file cannot be written; nothing is then left under its name.
    """
    assert values.ndim == 2, f"values {values.shape}"
    write_png(Path(path), values)


def write_picture(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write (H, W, C) as a grey or RGB PNG, as `as_picture` shows it.

    Raises:
        DataError: the file cannot be written; nothing is then left under its name.
    """
    shown = as_picture(image)
    write_png(Path(path), shown if shown.shape[2] == 3 else shown[:, :, 0])


def write_overlay(
    path: str | os.PathLike,
    image: np.ndarray,
    labels: np.ndarray,
    palette: np.ndarray,
    *,
    opacity: float = 0.5,
    background: int | None = None,
) -> None:
    """Write the image tinted by class, with the borders between regions of some size in full colour, as a PNG.

    Args:
        image: (H, W, C), shown as `as_picture` does.
        labels: (H, W) uint8 or uint16; an id without a colour leaves the image as it is. Of overlapping classes (K, H, W) of
            0 and 1: where there are several, their colours are mixed.
        palette: (num_classes, 3) uint8.
        opacity: of the tint, 0 to 1.
        background: the class that is left as it is; none of overlapping classes.

    Raises:
        DataError: the file cannot be written; nothing is then left under its name.
    """
    assert image.shape[:2] == labels.shape[-2:], f"image {image.shape}, labels {labels.shape}"
    if labels.ndim == 3:
        write_png(Path(path), _mix_planes(image, labels, palette, opacity))
    else:
        write_png(Path(path), _mix(image, labels, palette, opacity, background))


def _mix(
    image: np.ndarray, labels: np.ndarray, palette: np.ndarray, opacity: float, background: int | None
) -> np.ndarray:
    """Mix image and colours: (H, W, 3) uint8."""
    base = as_picture(image)
    colours = colour_table(palette).astype(np.float32)
    borders = _borders(labels, _large_regions(labels), background)
    painted = np.arange(len(colours)) < len(palette)
    if background is not None:
        painted[background] = False
    mixed = np.empty((*labels.shape, 3), dtype=np.uint8)
    for start in range(0, len(labels), _BAND_ROWS):
        band = slice(start, start + _BAND_ROWS)
        weight = np.where(borders[band], np.float32(1), np.float32(opacity)) * painted[labels[band]]
        tint = np.take(colours, labels[band], axis=0)
        tint -= base[band]
        tint *= weight[:, :, None]
        tint += base[band]
        mixed[band] = np.rint(tint, out=tint)
    return mixed


def _mix_planes(image: np.ndarray, planes: np.ndarray, palette: np.ndarray, opacity: float) -> np.ndarray:
    """Mix image and the colours of overlapping classes, with the outline of each in its own: (H, W, 3) uint8."""
    base = as_picture(image)
    mixed = np.empty((*planes.shape[1:], 3), dtype=np.uint8)
    for start in range(0, len(mixed), _BAND_ROWS):
        band = slice(start, start + _BAND_ROWS)
        here = planes[:, band] == 1  # (K, rows, W)
        count = here.sum(axis=0)[:, :, None]
        tint = np.tensordot(here, palette.astype(np.float32), axes=(0, 0)) / np.maximum(count, 1)
        mixed[band] = np.rint(base[band] + (tint - base[band]) * (opacity * (count > 0)))
    for plane, colour in zip(planes, palette, strict=True):
        shown = (plane == 1).astype(np.uint8)
        mixed[_borders(shown, _large_regions(shown))] = colour
    return mixed


def _borders(labels: np.ndarray, kept: np.ndarray, background: int | None = None) -> np.ndarray:
    """Mark the pixels whose right or lower neighbour is of another class, both in the kept part: (H, W) bool.

    Of a background pixel the neighbour is marked in its place, so that an outline has its object's colour.
    """
    borders = np.zeros(labels.shape, dtype=bool)
    for axis in (0, 1):
        one, other = (slice(None, -1), slice(1, None)) if axis == 0 else (np.s_[:, :-1], np.s_[:, 1:])
        differ = (labels[one] != labels[other]) & kept[one] & kept[other]
        if background is None:
            borders[one] |= differ
        else:
            is_background = labels[one] == background
            borders[one] |= differ & ~is_background
            borders[other] |= differ & is_background
    return borders


def _large_regions(labels: np.ndarray) -> np.ndarray:
    """Mark the regions of one class that are large enough for an outline, which would be a net around speckle: (H, W) bool."""
    import cv2  # here: what writes label maps only starts without it

    step = math.ceil(math.sqrt(labels.size / _REGIONS_PIXELS))
    shown = labels[::step, ::step]
    runs, region = _regions(shown)
    areas = np.bincount(region, weights=np.bincount(runs.ravel()))
    is_large = areas >= max(_LEAST_REGION_PX, shown.size * _LEAST_REGION_SHARE)
    kept: np.ndarray = is_large[region][runs].astype(np.uint8)
    if step > 1:  # a region reaches up to a step beyond the pixels that were looked at
        kept = cv2.erode(kept, np.ones((3, 3), dtype=np.uint8))
    return cv2.resize(kept, labels.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)


def _regions(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the connected regions of one class (8 neighbours), of all classes at once.

    Class by class OpenCV took ten times as long for a picture with 35 of them.

    Returns:
        (H, W) int32, the run of equal pixels in a row that each pixel is of; for each run the number of its region.
    """
    begins = np.ones(labels.shape, dtype=bool)
    begins[:, 1:] = labels[:, 1:] != labels[:, :-1]
    runs = (np.cumsum(begins, dtype=np.int32) - 1).reshape(labels.shape)
    # Which runs touch, each pair about once: one above the other, from where either begins; or corner to corner.
    above, below = labels[:-1], labels[1:]
    straight = (above == below) & (begins[:-1] | begins[1:])
    corner = begins[:-1, 1:] & begins[1:, 1:]
    falling, rising = corner & (above[:, :-1] == below[:, 1:]), corner & (above[:, 1:] == below[:, :-1])
    one = np.concatenate([runs[:-1][straight], runs[:-1, :-1][falling], runs[:-1, 1:][rising]])
    other = np.concatenate([runs[1:][straight], runs[1:, 1:][falling], runs[1:, :-1][rising]])
    region = np.arange(
        runs[-1, -1] + 1, dtype=np.int32
    )  # a run belongs to the region of the first run that it is known to touch
    while len(one):
        pair = region[one], region[other]
        low, high = np.minimum(*pair), np.maximum(*pair)
        is_apart = low != high
        np.minimum.at(region, high[is_apart], low[is_apart])
        while ((first := region[region]) != region).any():
            region = first
        one, other = one[is_apart], other[is_apart]
    return runs, region
