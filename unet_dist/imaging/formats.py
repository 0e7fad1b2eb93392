"""The image formats: one file and one line each.

Owns the order in which they are asked: by what they are told apart, a picture last, as Pillow looks for itself.
"""

from __future__ import annotations

from pathlib import Path

from unet_dist.imaging.encoded import Encoded
from unet_dist.imaging.image import Format
from unet_dist.imaging.npy import NPY
from unet_dist.imaging.picture import PICTURE
from unet_dist.imaging.slide import SLIDE
from unet_dist.imaging.tiff import TIFF
from unet_dist.imaging.zarr_store import ZARR, is_zarr

FORMATS = (ZARR, SLIDE, TIFF, NPY, PICTURE)

IMAGE_SUFFIXES = tuple(suffix for kind in FORMATS for suffix in kind.suffixes)
"""Ends of file names, in lower case, by which a folder is searched for images."""


def format_of(encoded: Encoded) -> Format:
    """Find the format of an image by its first bytes, its name where these say nothing.

    Raises:
        RefusedError: there is no such file, or it may not be read.
    """
    return next(kind for kind in FORMATS if kind.recognises(encoded))


def looks_like_image(path: Path) -> bool:
    """Tell by its name whether a file is an image, and by what lies in it whether a folder is one (Zarr)."""
    if path.name.startswith("."):
        return False
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return path.suffix == ".zarr" if path.is_dir() else path.suffix != ".zarr"
    return path.is_dir() and is_zarr(path)
