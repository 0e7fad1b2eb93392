"""What GDAL writes into a TIFF beside the standard: no data, names of bands, and what their values stand for.

Owns these tags. Knows nothing of pixels.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np

from unet_dist.errors import RefusedError
from unet_dist.imaging.image import Opening
from unet_dist.imaging.imagej import calibration_of
from unet_dist.imaging.values import Scaling, nodata_of, scaling_by_band

_GDAL_METADATA, _GDAL_NODATA = 42112, 42113
_PALETTE = 3


def nodata_tag(file: Any, opening: Opening) -> float | None:
    """Give the stored value that stands for no data: what the user says, or else the file (GDAL_NODATA)."""
    page = file.series[0].keyframe
    if opening.nodata is not None:
        return nodata_of(opening.nodata, np.dtype(page.dtype))
    return nodata_of(page.tags.valueof(_GDAL_NODATA, default=""), np.dtype(page.dtype))


def _gdal_items(file: Any, role: str) -> dict[int, str]:
    """Read what GDAL's metadata say of each band: its number, from 0, -> the text. None where they cannot be read."""
    page = file.series[0].keyframe
    try:
        items = ElementTree.fromstring(str(page.tags.valueof(_GDAL_METADATA, default="")).strip(" \0")).iter("Item")
        return {int(item.get("sample", "0")): item.text for item in items if item.get("role") == role and item.text}
    except (ElementTree.ParseError, ValueError):
        return {}


def band_names_tag(file: Any) -> tuple[str, ...]:
    """Read the names of bands from GDAL's metadata; none where one is missing."""
    names = _gdal_items(file, "description")
    count = int(file.series[0].keyframe.samplesperpixel)
    return tuple(names[i] for i in range(count)) if set(names) == set(range(count)) else ()


def scaling_tag(file: Any, samples: int, opening: Opening, name: str) -> Scaling | None:
    """Read what GDAL's metadata, in the file or beside, or ImageJ's calibration say the values of each band stand for.

    Raises:
        RefusedError: no numbers, two quantities, or a palette.
    """
    factors, offsets = (
        {**_gdal_items(file, role), **beside} for role, beside in zip(("scale", "offset"), opening.scales, strict=True)
    )
    scaling, calibration = scaling_by_band(factors, offsets, samples, name), calibration_of(file, samples, name)
    if scaling is not None and calibration is not None:
        raise RefusedError(
            f"{name} states GDAL's scale and ImageJ's calibration, two quantities",
            "Take out the one that is not meant.",
        )
    scaling = scaling or calibration
    if scaling is not None and file.series[0].keyframe.photometric == _PALETTE:
        raise RefusedError(f"{name} scales the indices of a palette", "Write the values that are meant.")
    return scaling
