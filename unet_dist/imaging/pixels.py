"""What the images of a network are: the type of their pixels, the bands, and the limits they are clipped to.

Owns this description, which travels with a network in its config.json, and what stands where an image has no data.
Plain images of 8 bits have the default, which adds nothing to that file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unet_dist.errors import DataError, RefusedError
from unet_dist.imaging.image import ImageReader
from unet_dist.imaging.readers import FilledReader
from unet_dist.imaging.values import PIXEL_TYPES
from unet_dist.wording import shorten


@dataclass(frozen=True)
class Pixels:
    """What the images of a network are.

    Attributes:
        dtype: of the pixels, one of PIXEL_TYPES.
        limits: (low, high) of each channel: values beyond count as these; None clips nothing.
        nodata: the value that stands for no data, in place of what each file says.
        bands: numbers of the bands of a file, from 1, or their names, in the order of the channels; None takes all.
    """

    dtype: str = "uint8"
    limits: tuple[tuple[float, float], ...] | None = None
    nodata: float | None = None
    bands: tuple[int | str, ...] | None = None

    def record(self) -> dict[str, Any]:
        """The same as JSON, without defaults."""
        return {key: value for key, value in vars(self).items() if value != getattr(EIGHT_BIT, key)}

    @classmethod
    def of(cls, record: Mapping[str, Any], channels: int) -> Pixels:
        """What a record says of images of so many channels.

        Raises:
            ValueError, TypeError: it is none, or of other channels.
        """
        said = {**vars(EIGHT_BIT), **record}
        dtype, limits, nodata, bands = (said.pop(key) for key in ("dtype", "limits", "nodata", "bands"))
        each = None if limits is None else tuple((float(low), float(high)) for low, high in limits)
        named = None if bands is None else tuple(bands)
        is_sound = (
            not said
            and dtype in PIXEL_TYPES
            and (each is None or all(-math.inf < low <= high < math.inf for low, high in each))
            and (nodata is None or type(nodata) in (int, float))
            and (named is None or all(type(band) is str or (type(band) is int and band >= 1) for band in named))
            and all(listed is None or len(listed) == channels for listed in (each, named))
        )
        if not is_sound:
            raise ValueError(f"pixels: got {shorten(str(record))} for {channels} channels")
        return cls(dtype, each, nodata, named)

    def require(self, reader: ImageReader, name: str) -> None:
        """Refuse an image of another type. Raises: RefusedError."""
        if reader.dtype == self.dtype:
            return
        if self.dtype == "uint8":
            raise RefusedError(
                f"{name} holds {reader.dtype} values, and the network was trained on uint8",
                "Say which values are black and white with value_range (12-bit data: 0,4095); they are mapped linearly to 0 "
                "and 255.",
            )
        raise RefusedError(
            f"{name} holds {reader.dtype} values, and the network was trained on {self.dtype}",
            "Give images of that type, in the same units.",
        )


EIGHT_BIT = Pixels()


def fill_of(zero: Sequence[float], dtype: np.dtype) -> np.ndarray:
    """What stands where an image has no data: (C,) values that become 0 when they are normalised, as near as the type has them.

    Args:
        zero: of each channel what becomes 0.
    """
    values = np.asarray(zero, dtype=np.float64)
    if dtype.kind != "f":
        values = np.clip(np.rint(values), np.iinfo(dtype).min, np.iinfo(dtype).max)
    return values.astype(dtype)


def filled(reader: ImageReader, zero: Sequence[float]) -> ImageReader:
    """Give an image as a network sees it: with `fill_of` where it has no data. Closing it leaves the image open."""
    if isinstance(reader, FilledReader) or not reader.placement.has_nodata:
        return reader
    return FilledReader(reader, fill_of(zero, reader.dtype))


def require_channels(got: int, expected: int, name: str) -> None:
    """Refuse an image of other channels than a network takes. Raises: DataError."""
    if got != expected:
        raise DataError(
            f"{name}: got {got} channel{'s' * (got != 1)}, expected {expected} as the network was trained on. Convert the image, "
            "or use a network trained on such images."
        )
