"""What attributes of a Zarr array say about its values: the CF conventions, as xarray and GDAL write them.

Owns which of them are read. Knows neither axes nor chunks.
Source: CF Conventions 1.11, sections 2.5.1 (missing data) and 8.1 (packed data).
"""

from __future__ import annotations

import base64
import struct
from typing import Any

import numpy as np

from unet_dist.errors import RefusedError
from unet_dist.imaging.values import Scaling, nodata_of, scaling_of


def conventions_of(array: Any, channels: int, name: str) -> tuple[Scaling | None, float | None]:
    """Read what an array's values stand for, and the stored value that is no data.

    `scale_factor` and `add_offset` scale; `_FillValue`, or else `missing_value`, is no data. In version 2 xarray writes
    `_FillValue` as the array's own fill value. There 0 says nothing, as zarr gives it to every array; nor does a fill value
    elsewhere, which is only what chunks hold that were never written.

    Raises:
        RefusedError: a scale that is no number, two values for no data, or a sign that the type contradicts.
    """
    attributes, dtype = dict(array.attrs), np.dtype(array.dtype)
    factors, offsets = (_numbers(attributes, key) for key in ("scale_factor", "add_offset"))
    unsigned = str(attributes.get("_Unsigned", "")).lower()
    if (unsigned == "true" and dtype.kind == "i") or (unsigned == "false" and dtype.kind == "u"):
        raise RefusedError(f"{name} says _Unsigned: {unsigned} of {dtype}", "Write it in the type that is meant.")
    key = "_FillValue" if "_FillValue" in attributes else "missing_value"
    stated = _numbers(attributes, key)
    if not stated and array.metadata.zarr_format == 2 and "_ARRAY_DIMENSIONS" in attributes:
        stated = [] if array.fill_value in (None, 0) else [array.fill_value]
    known = {number for number in (nodata_of(_plain(text, dtype), dtype) for text in stated) if number is not None}
    if len(known) > 1:
        raise RefusedError(f"{name} states more than one {key}", "Expected one value for no data: write it anew.")
    return scaling_of(factors, offsets, channels, name), next(iter(known), None)


def _numbers(attributes: dict[str, Any], key: str) -> list[object]:
    value = attributes.get(key)
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _plain(value: object, dtype: np.dtype) -> object:
    """Undo the base64 that xarray writes floats in, for version 3."""
    if dtype.kind != "f" or not isinstance(value, str):
        return value
    try:
        return struct.unpack("<d", base64.standard_b64decode(value))[0]
    except (ValueError, struct.error):
        return value
