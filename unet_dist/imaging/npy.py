"""Arrays of numpy (.npy), mapped into memory: of plain numbers only, never pickles."""

from __future__ import annotations

import numpy as np

from unet_dist.imaging.encoded import Encoded, parsing
from unet_dist.imaging.image import ImageFormat, Opening
from unet_dist.imaging.pyramid import choose_level
from unet_dist.imaging.readers import ArrayReader
from unet_dist.imaging.values import nodata_of
from unet_dist.storage.mapped import watched


def open_npy(encoded: Encoded, opening: Opening) -> ArrayReader:
    """Map an array of shape (H, W) or (H, W, C).

    Raises:
        RefusedError: damaged, truncated, of another shape, or no numbers.
    """
    _ = encoded.head  # refuses what is no file
    with parsing(encoded.name, kind="array"):
        source = encoded.path or encoded.open()
        array = watched(np.load(source, mmap_mode=None if encoded.path is None else "r", allow_pickle=False))
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


NPY = ImageFormat(".npy", (".npy",), _is_npy, open_npy, True)
