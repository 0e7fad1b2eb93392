"""What attributes of a Zarr array say about its values: the CF conventions, as xarray and GDAL write them.

Owns which of them are read. Knows neither axes nor chunks.
Source: CF Conventions 1.11, sections 2.5.1 (missing data), 3.5 (flags) and 8.1 (packed data).
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unet_dist.errors import RefusedError
from unet_dist.imaging.values import Limits, Scaling, beyond, nodata_of, scaling_of
from unet_dist.wording import listed


@dataclass(frozen=True)
class Conventions:
    """What an array's values stand for: their scale, the stored value that is no data, the limits of those that are, and whether
    their bits are flags."""

    scaling: Scaling | None
    nodata: float | None
    valid: Limits | None
    has_flags: bool


def conventions_of(array: Any, channels: int, name: str) -> Conventions:
    """Read the attributes of an array.

    `scale_factor` and `add_offset` scale; `_FillValue` and `missing_value` are no data, and so is what lies beyond `valid_range`,
    `valid_min` and `valid_max`. In version 2 xarray writes `_FillValue` as the array's own fill value. There 0 says nothing, as
    zarr gives it to every array; nor does a fill value elsewhere, which is only what chunks hold that were never written.

    Raises:
        RefusedError: a scale that is no number, two values for no data, limits that are none, or a sign that the type contradicts.
    """
    attributes, dtype = dict(array.attrs), np.dtype(array.dtype)
    factors, offsets = (_numbers(attributes, key) for key in ("scale_factor", "add_offset"))
    unsigned = str(attributes.get("_Unsigned", "")).lower()
    if (unsigned == "true" and dtype.kind == "i") or (unsigned == "false" and dtype.kind == "u"):
        raise RefusedError(f"{name} says _Unsigned: {unsigned} of {dtype}", "Write it in the type that is meant.")
    stated = _numbers(attributes, "_FillValue")
    if not stated and array.metadata.zarr_format == 2 and "_ARRAY_DIMENSIONS" in attributes:
        stated = [] if array.fill_value in (None, 0) else [array.fill_value]
    stated += _numbers(attributes, "missing_value")
    known = {number for number in (nodata_of(_plain(text, dtype), dtype) for text in stated) if number is not None}
    if len(known) > 1:
        known = {number for number in known if not np.isnan(number)}  # which is no data anyhow
    if len(known) > 1:
        values = " and ".join(f"{number:g}" for number in sorted(known))
        raise RefusedError(
            f"{name} calls {values} no data (_FillValue, missing_value)",
            "Expected one value for no data: write it anew.",
        )
    scaling = scaling_of(factors, offsets, channels, name)
    # Where flag_masks says which bits of a value are which flag, a value is no id. flag_values alone lists ids, as they are stored.
    has_flags = bool(_numbers(attributes, "flag_masks"))
    return Conventions(scaling, next(iter(known), None), _limits(attributes, dtype, scaling, name), has_flags)


def flag_names(attributes: Mapping[str, Any]) -> dict[int, str]:
    """Give the names that flag_meanings has for the ids in flag_values; none where these are bits, or the two do not match."""
    ids, names = _numbers(attributes, "flag_values"), str(attributes.get("flag_meanings", "")).split()
    are_ids = all(type(number) is int for number in ids) and len(set(ids)) == len(ids) == len(names)
    return dict(zip(map(int, map(str, ids)), names, strict=True)) if are_ids and "flag_masks" not in attributes else {}


def _limits(attributes: dict[str, Any], dtype: np.dtype, scaling: Scaling | None, name: str) -> Limits | None:
    """Read the smallest and the largest value that is valid, of packed data as they are packed.

    Raises:
        RefusedError: they are no two numbers, stated twice, or of another type than what they bound.
    """
    both = _numbers(attributes, "valid_range")
    ends = [_numbers(attributes, key) for key in ("valid_min", "valid_max")]
    if not both and not any(ends):
        return None
    stated: list[Any] = both or [end[0] if end else far for end, far in zip(ends, (-np.inf, np.inf), strict=True)]
    are_two = len(stated) == 2 and all(type(value) in (int, float) for value in stated)
    if not are_two or not stated[0] <= stated[1] or (both and any(ends)):
        raise RefusedError(
            f"{name} states valid_range, valid_min or valid_max as {listed(map(str, stated), 4)}",
            "Expected two numbers, the smaller first, in one of the two ways: mend the attributes.",
        )
    if (
        scaling is not None
        and dtype.kind != "f"
        and any(not float(value).is_integer() for value in stated if abs(value) < np.inf)
    ):
        raise RefusedError(
            f"{name} scales its {dtype}, and states valid_range, valid_min or valid_max as {listed(map(str, stated), 4)}",
            "Expected limits of the stored values, whole numbers (CF 2.5.1): mend the attributes.",
        )
    return float(stated[0]), float(stated[1])


def within(
    valid: Limits, nodata: float | None, read: Callable[[np.ndarray], np.ndarray], name: str
) -> Callable[[np.ndarray], np.ndarray]:
    """Have a mask's values checked before they are read as ids: those beyond its limits may be classes, or none.

    The way that this gives raises RefusedError where one is.
    """

    def checked(values: np.ndarray) -> np.ndarray:
        outside = beyond(values, valid) & ((values != nodata) if nodata is not None else True)
        if outside.any():
            raise RefusedError(
                f"{name} is a mask with {values[outside][0]:g}, beyond its valid_range of {valid[0]:g} to {valid[1]:g}",
                "Correct valid_range (valid_min, valid_max), or the ids.",
            )
        return read(values)

    return checked


def _numbers(attributes: Mapping[str, Any], key: str) -> list[object]:
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
