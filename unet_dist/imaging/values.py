"""From the values that a file stores to the pixels that everybody sees, and where there are none.

Owns which number types pixels have, the one way from others to them, and what counts as no data. Knows no file format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unet_dist.errors import DataError, RefusedError
from unet_dist.imaging.image import ValueRange

PIXEL_TYPES = ("uint8", "uint16", "int16", "float32")
"""What pixels are stored and read as. Others become the narrowest of these that holds them: int8 int16, wider ones float32."""

Limits = tuple[float, float]
"""The smallest and the largest value, as stored, that is a measurement."""

_LARGEST = np.finfo(np.float32).max
"""Writers that state nothing put it, or its negative, where there are no data: no measurement is just that."""
_EXACT = 2**24
"""Whole numbers up to this are exact in float32."""


def pixel_type(dtype: np.dtype, name: str) -> np.dtype:
    """Say as which of PIXEL_TYPES stored values are read.

    Raises:
        RefusedError: not a number type.
    """
    if dtype.kind not in "buif":
        raise RefusedError(f"{name} holds {dtype} values", "Expected real numbers: convert it first.")
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind != "f" and dtype.itemsize <= 2:
        return np.dtype(np.int16 if dtype.kind == "i" else f"uint{8 * dtype.itemsize}")
    return np.dtype(np.float32)


def nodata_of(text: object, dtype: np.dtype) -> float | None:
    """Read what a file says stands for no data; None where that is no value of its type."""
    try:
        value = float(str(text).strip(" \0"))
    except ValueError:
        return None
    if dtype.kind in "ui" and not (value.is_integer() and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max):
        return None
    return value


def known_pixels(values: np.ndarray, nodata: float | None, valid: Limits | None = None) -> np.ndarray:
    """Tell where there are data: (H, W, C) stored values -> (H, W) bool.

    Of whole numbers a pixel has none where every channel holds the value, as rasterio's dataset_mask has it: one dark channel is
    none. Of floats where any channel holds it, is not finite, or is at either end of float32: such a value is no measurement. Nor
    is one beyond the limits, in any channel.
    """
    if values.dtype.kind == "f":
        known = np.isfinite(values) & (np.abs(values) != _LARGEST)
        if nodata is not None and np.isfinite(nodata):
            known &= values != values.dtype.type(nodata)
        found: np.ndarray = known.all(axis=2)
    elif nodata is None:
        found = np.ones(values.shape[:2], dtype=bool)
    else:
        found = (values != nodata).any(axis=2)
    return found if valid is None else found & ~beyond(values, valid).any(axis=2)


def beyond(values: np.ndarray, valid: Limits) -> np.ndarray:
    """Mark the values that lie outside limits."""
    outside: np.ndarray = (values < valid[0]) | (values > valid[1])
    return outside


@dataclass(frozen=True)
class Scaling:
    """What turns stored values into the quantity that a file means: value * factor + offset, of each channel."""

    factors: tuple[float, ...]
    offsets: tuple[float, ...]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Scale (rows, cols, channels) to float32, rounded once."""
        scaled = np.empty(values.shape, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # where there are no data
            for channel, (factor, offset) in enumerate(zip(self.factors, self.offsets, strict=True)):
                scaled[..., channel] = values[..., channel].astype(np.float64) * factor + offset
        return scaled


def scaling_of(factors: Sequence[object], offsets: Sequence[object], channels: int, name: str) -> Scaling | None:
    """Read how a file says to scale its values: one number for all channels, or one for each; none is 1 or 0.

    Gives None where that changes nothing.

    Raises:
        RefusedError: another count, no finite number, or a factor of 0.
    """
    both = []
    for word, stated, usual in (("scale", factors, 1.0), ("offset", offsets, 0.0)):
        try:
            numbers = tuple(float(str(number)) for number in stated) or (usual,)
        except ValueError:
            numbers = ()
        if len(numbers) not in (1, channels) or not np.isfinite(numbers).all() or (word == "scale" and 0 in numbers):
            raise RefusedError(
                f"{name} states the {word} {', '.join(map(str, stated))[:80]} for its {channels} "
                f"channel{'s' * (channels != 1)}",
                "Expected a finite number for each: mend the file, or write the values that are meant.",
            )
        both.append(numbers * (channels // len(numbers)))
    scaling = Scaling(*both)
    return None if set(scaling.factors) == {1.0} and set(scaling.offsets) == {0.0} else scaling


def scaling_by_band(
    factors: Mapping[int, object], offsets: Mapping[int, object], channels: int, name: str
) -> Scaling | None:
    """Read a scale and an offset for each band that has one, as `scaling_of` does. Raises: RefusedError: no numbers."""
    bands = range(channels)
    return scaling_of([factors.get(i, 1) for i in bands], [offsets.get(i, 0) for i in bands], channels, name)


def require_ids_unscaled(scaling: Scaling | None, name: str) -> None:
    """Refuse a mask that a file says to scale. Raises: RefusedError: it does."""
    if scaling is not None:
        raise RefusedError(
            f"{name} is a mask, and states the scale {scaling.factors[0]:g} and the offset {scaling.offsets[0]:g}",
            "Expected ids as they are stored: write it without them.",
        )


@dataclass(frozen=True)
class Conversion:
    """From stored values (rows, cols, stored channels) to pixels (rows, cols, channels).

    Where some have no data, a plane follows: 1 where there are data, 0 where not.

    Attributes:
        dtype: of the pixels.
        channels: of the pixels.
        has_nodata: whether there may be such a plane.
        convert: does it.
    """

    dtype: np.dtype
    channels: int
    has_nodata: bool
    convert: Callable[[np.ndarray], np.ndarray]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Convert a part of an image."""
        return self.convert(values)


def make_conversion(
    dtype: np.dtype,
    samples: int,
    *,
    value_range: ValueRange | None,
    nodata: float | None,
    name: str,
    alpha: int | None = None,
    is_inverted: bool = False,
    bits: int | None = None,
    scaling: Scaling | None = None,
    valid: Limits | None = None,
    bad: Sequence[int] = (),
) -> Conversion:
    """Make the way from stored values to pixels.

    Args:
        dtype, samples: of the values, and how many a pixel has.
        value_range: the values that become 0 and 255; None keeps the values.
        nodata: the value that stands for no data.
        alpha: which sample is alpha: 0 is no data, and anything between that and opaque refused.
        is_inverted: whether the file's zero is white.
        bits: of a value, where its type has more: white and opaque are the largest of so many.
        scaling: what the values stand for, which value_range then means; nodata is a stored value.
        valid: stored values beyond it are no data, either.
        bad: numbers of bands, from 1, whose values say nothing of data.

    Raises:
        RefusedError: values that are no numbers, and inverted ones that have no upper end or are scaled.
        DataError: an empty or infinite range.
    """
    target = pixel_type(dtype if scaling is None else np.dtype(np.float32), name)
    if value_range is not None and not (np.isfinite(value_range).all() and value_range[0] < value_range[1]):
        raise DataError(f"value_range is {value_range}. Expected two finite numbers, the smaller first.")
    if is_inverted and value_range is None and (dtype.kind not in "bu" or dtype.itemsize > 2):
        raise RefusedError(
            f"{name} stores white as 0 in {dtype}", "Say the values of black and white: --value_range LOW,HIGH."
        )
    if scaling is not None and (is_inverted or dtype.kind not in "uif"):
        raise RefusedError(
            f"{name} scales {'inverted ' * is_inverted}values of {dtype}", "Write the values that are meant."
        )
    is_marked = nodata is not None or valid is not None or dtype.kind == "f"
    place = None if alpha is None else alpha % samples
    colours = scaling
    if scaling is not None and place is not None:  # alpha is not scaled
        colours = Scaling(*((*part[:place], *part[place + 1 :]) for part in (scaling.factors, scaling.offsets)))

    def convert(values: np.ndarray) -> np.ndarray:
        known = None
        if place is not None:
            values, known = split_alpha(values, place, name, bits)
        if is_marked:
            marked = known_pixels(
                np.delete(values, at, axis=2) if (at := [n - 1 for n in bad]) else values, nodata, valid
            )
            known = marked if known is None else known & marked
        if colours is not None:
            values = colours(values)
        pixels = _to_type(values, name, known) if value_range is None else to_uint8(values, value_range)
        if is_inverted:
            white = np.iinfo(pixels.dtype).max if bits is None or value_range is not None else 2**bits - 1
            pixels = pixels.dtype.type(white) - pixels
        if known is None or known.all():
            return pixels
        return np.concatenate([pixels, known[:, :, None].astype(pixels.dtype)], axis=2)

    pixels = np.dtype(np.uint8) if value_range is not None else target
    return Conversion(pixels, samples - (alpha is not None), is_marked or alpha is not None, convert)


def _to_type(values: np.ndarray, name: str, known: np.ndarray | None) -> np.ndarray:
    """Bring values to their type of PIXEL_TYPES; one bit is 0 or 255. Raises: RefusedError: float32 cannot hold them."""
    target = pixel_type(values.dtype, name)
    if values.dtype == target:
        return values if values.dtype.isnative else values.astype(target)
    if values.dtype.kind == "b":
        return values * np.uint8(255)
    if values.dtype.kind in "ui" and values.dtype.itemsize > 2 and values.size:
        largest = max(int(values.max()), -int(values.min()))
        if largest > _EXACT:
            raise RefusedError(
                f"{name} holds {values.dtype} values up to {largest:,}, which float32 cannot hold exactly",
                "Write it as uint16, int16 or float32; or say the range that counts: --value_range LOW,HIGH.",
            )
    with np.errstate(over="ignore"):
        pixels = values.astype(target)
    if values.dtype.kind == "f" and values.dtype.itemsize > 4:
        lost = np.isinf(pixels) & np.isfinite(values)
        if lost.any() and (known is None or (lost & known[:, :, None]).any()):
            raise RefusedError(
                f"{name} holds values beyond float32, such as {values[lost][0]:g}", "Write it as float32."
            )
    return pixels


def to_uint8(values: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """Map the stated range linearly to 0..255, rounded and clipped; NaN becomes 0. One bit counts as 0 or 255."""
    if values.dtype == np.bool_:
        values = values * np.uint8(255)
    low, high = value_range
    # float32 holds 16-bit integers exactly; wider types go through float64.
    scaled = values.astype(np.result_type(values.dtype, np.float32))
    with np.errstate(over="ignore"):  # beyond both ends alike
        scaled -= low
        scaled *= 255 / (high - low)
    if values.dtype.kind == "f":
        np.nan_to_num(scaled, copy=False, nan=0.0)
    return np.rint(np.clip(scaled, 0, 255, out=scaled), out=scaled).astype(np.uint8)


def split_alpha(values: np.ndarray, index: int, name: str, bits: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Split an alpha channel off: (H, W, C) -> (H, W, C - 1), and where it is opaque, (H, W) bool.

    Args:
        index: of the alpha channel.
        bits: of a value, where its type has more.

    Raises:
        RefusedError: a pixel is half transparent.
    """
    opaque = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else 1
    if bits is not None:
        opaque = 2 ** (bits - (values.dtype.kind == "i")) - 1
    alpha = values[:, :, index]
    colours = np.delete(values, index, axis=2) if index < values.shape[2] - 1 else values[:, :, :-1]
    num_half = int(((alpha > 0) & (alpha < opaque)).sum())
    if num_half:
        raise RefusedError(
            f"{name} has {num_half:,} half transparent pixels",
            "Expected pixels that are opaque, or transparent where there are no data: flatten it onto the background it is "
            "meant for.",
        )
    return colours, alpha >= opaque


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored values (H, W, C) as viewers show them, by the orientation of Exif and TIFF; as a view.

    Only 1 to 8 have a meaning; whatever else a file says is 1, as viewers take it.
    """
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    cols = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return values[rows, cols]


def upright_shape(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Give (height, width) of pixels stored as height x width."""
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)
