"""Arrays of numpy: .npy, mapped into memory, and .npz of one array. Of plain numbers only, never pickles."""

from __future__ import annotations

import math
import zipfile

import numpy as np

from unet_dist.errors import RefusedError
from unet_dist.imaging.encoded import Encoded, parsing
from unet_dist.imaging.image import ImageFormat, Opening
from unet_dist.imaging.limits import require_decodable
from unet_dist.imaging.pyramid import choose_level
from unet_dist.imaging.readers import ArrayReader
from unet_dist.imaging.values import nodata_of
from unet_dist.storage.mapped import watched
from unet_dist.wording import listed

_OBJECTS = ("Python objects in dtype", "Object arrays cannot be loaded")
"""numpy's words for an array without numbers."""
_ZIP = b"PK\3\4"


def open_npy(encoded: Encoded, opening: Opening) -> ArrayReader:
    """Map an array of shape (H, W) or (H, W, C).

    Raises:
        RefusedError: damaged, truncated, of another shape, or no numbers.
    """
    _ = encoded.head  # refuses all but files
    with parsing(encoded.name, kind="array"):
        source = encoded.path or encoded.open()
        try:
            array = watched(np.load(source, mmap_mode=None if encoded.path is None else "r", allow_pickle=False))
        except ValueError as error:
            if not any(words in str(error) for words in _OBJECTS):
                raise
            raise RefusedError(
                f"{encoded.name} holds Python objects, such as a dict of arrays",
                "Expected numbers: save the array that is meant as a file of its own, masks of Cellpose as PNG or TIFF.",
            ) from error
    return _reader(array, encoded, opening)


def open_npz(encoded: Encoded, opening: Opening) -> ArrayReader:
    """Decode the one array of an archive, as `open_npy` reads it.

    Raises:
        RefusedError: as `open_npy`; several arrays, or one of more than max_pixels.
    """
    _ = encoded.head
    with parsing(encoded.name, kind="archive of arrays"), encoded.open() as file, zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if len(names) != 1:
            found = listed((name.removesuffix(".npy") for name in names), 10) or "none"
            raise RefusedError(
                f"{encoded.name} holds {len(names)} arrays ({found})", "Expected one: write each as a file of its own."
            )
        with archive.open(names[0]) as member:
            is_first = np.lib.format.read_magic(member) == (1, 0)
            shape, _, dtype = (
                np.lib.format.read_array_header_1_0(member) if is_first else np.lib.format.read_array_header_2_0(member)
            )
        height, width, *deep = (*shape, 1, 1)
        bytes_per_px = 2 * math.prod(deep) * dtype.itemsize
        require_decodable(height, width, opening.max_pixels, encoded.name, bytes_per_px=bytes_per_px)
        with archive.open(names[0]) as member:
            array = np.lib.format.read_array(member, allow_pickle=False)
    return _reader(array, encoded, opening)


def _reader(array: np.ndarray, encoded: Encoded, opening: Opening) -> ArrayReader:
    reader = ArrayReader(
        array,
        value_range=opening.value_range,
        interpret=opening.interpret,
        keeps_channels=opening.keeps_channels,
        nodata=None if opening.nodata is None else nodata_of(opening.nodata, array.dtype),
        name=encoded.name,
    )
    choose_level([reader.shape[:2]], None, level=opening.level, mpp=opening.mpp, name=encoded.name)
    return reader


def _is_npy(encoded: Encoded) -> bool:
    return not encoded.is_folder and (encoded.suffix == ".npy" or encoded.head[:6] == b"\x93NUMPY")


def _is_npz(encoded: Encoded) -> bool:
    return not encoded.is_folder and encoded.suffix == ".npz" and encoded.head[:4] == _ZIP


NPY = ImageFormat(".npy", (".npy",), _is_npy, open_npy, True)
NPZ = ImageFormat(".npz", (".npz",), _is_npz, open_npz, False)
