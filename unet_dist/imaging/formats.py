"""The image formats: one file and one line each.

Owns the order in which they are asked: by their marks, a picture last of ours, then the formats of installed packages.
"""

from __future__ import annotations

from pathlib import Path

from unet_dist.imaging.encoded import Encoded
from unet_dist.imaging.envi import ENVI
from unet_dist.imaging.gdal_beside import files_of_gdal
from unet_dist.imaging.image import ImageFormat
from unet_dist.imaging.npy import NPY, NPZ
from unet_dist.imaging.other_formats import find_other_format, other_suffixes
from unet_dist.imaging.picture import PICTURE
from unet_dist.imaging.slide import SLIDE
from unet_dist.imaging.tiff import TIFF
from unet_dist.imaging.zarr_store import ZARR, is_zarr

FORMATS = (ZARR, SLIDE, TIFF, NPY, NPZ, ENVI, PICTURE)

_SUFFIXES = tuple(suffix for kind in FORMATS for suffix in kind.suffixes)


def image_suffixes() -> tuple[str, ...]:
    """Ends of file names, in lower case, by which a folder is searched for images: ours, then those of installed packages."""
    return (*_SUFFIXES, *other_suffixes())


def format_of(encoded: Encoded) -> ImageFormat:
    """Find the format of an image by its first bytes, its name where these say nothing.

    What nobody knows is taken for a picture, which refuses it.

    Raises:
        RefusedError: there is no such file, or it may not be read.
        ConfigError: none of ours, and a package that offers formats cannot be imported; names it and the line.
    """
    found = next((kind for kind in FORMATS if kind.recognises(encoded)), None)
    return found or find_other_format(encoded) or PICTURE


def files_beside(path: Path) -> list[Path]:
    """Name the other files that an image of ours is made of, by the end of its name, and GDAL's that change its values."""
    ours = [file for kind in FORMATS if path.suffix.lower() in kind.suffixes for file in kind.beside(path)]
    return [*ours, *files_of_gdal(path)]


def looks_like_image(path: Path) -> bool:
    """Tell by its name whether a file is an image, and by what lies in it whether a folder is one (Zarr)."""
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return path.suffix == ".zarr" or is_zarr(path)
    return path.suffix != ".zarr" and path.suffix.lower() in image_suffixes()
