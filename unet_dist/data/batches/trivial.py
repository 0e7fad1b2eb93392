"""One random change of light or colour for each sample, of random strength.

Owns the list of operations and what each draws. All are tables of values, matrices of colours and kernels of five pixels, which
colour.py and texture.py apply on the device. What an operation needs of the image as a whole it takes from a grid of patches: so
tiles of one crop see one change.

Source: Müller and Hutter 2021, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", arXiv 2103.10158, section 3:
one operation of a list for each image, its strength drawn evenly. The list is that of torchvision's TrivialAugmentWide without its
changes of geometry, with hue and gamma of its ColorJitter and a blur. Those that have no strength there are blended with the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from unet_dist.data.batches.colour import Colours
from unet_dist.data.batches.sampler import operation_generator
from unet_dist.data.batches.texture import Textures, gaussian, kernels_of, sharpening
from unet_dist.imaging.image import ImageReader

_GRID, _PATCH_PX = 4, 16  # patches along each axis, 4,096 pixels in all
_FACTOR = 0.9  # brightness, contrast, saturation and sharpness go from 0.1 to 1.9 of the image's
_HUE_DEG = 36.0  # a tenth of a turn to either side
_GAMMA = 2.0
_BITS = 4  # that posterising takes away at most
_SIGMA_PX = (0.2, 1.2)
_VALUES = np.arange(256)


@dataclass(frozen=True)
class Operation:
    """What happens to one sample.

    Attributes:
        table: (1 or C, 256), the new value of each value, of all channels alike or of each.
        saturation: 1 leaves colours as they are, 0 makes them grey.
        hue_deg: angle by which colours turn about grey.
        kernel: weights of the middle, the nearest and the next pixels, in 64ths; None leaves the texture.
    """

    table: np.ndarray
    saturation: float = 1.0
    hue_deg: float = 0.0
    kernel: tuple[float, float, float] | None = None


Seen = Callable[[], np.ndarray]
"""Looks at the image: some of its pixels, (P, C) uint8."""


def draw_operations(seed: int, positions: Sequence[int], readers: Sequence[ImageReader]) -> tuple[Colours, Textures]:
    """Draw what happens to samples.

    Args:
        positions: of the samples in the run.
        readers: of their images.
    """
    drawn = [draw_operation(seed, position, reader) for position, reader in zip(positions, readers, strict=True)]
    colours = Colours.of(
        [one.table for one in drawn], [one.saturation for one in drawn], [one.hue_deg for one in drawn]
    )
    return colours, kernels_of([one.kernel for one in drawn])


def draw_operation(seed: int, position: int, reader: ImageReader) -> Operation:
    """Draw what happens to a sample: each operation as often, with a strength of -1 to 1."""
    random = operation_generator(seed, position)
    name = list(OPERATIONS)[int(random.integers(len(OPERATIONS)))]
    return OPERATIONS[name](float(random.uniform(-1, 1)), lambda: look_at(reader))


def look_at(reader: ImageReader) -> np.ndarray:
    """Read a grid of patches from corner to corner: (P, C)."""
    starts = [
        np.rint(np.linspace(0, max(size - _PATCH_PX, 0), _GRID)).astype(int).tolist() for size in reader.shape[:2]
    ]
    height, width, channels = reader.shape
    patches = [
        reader.read(row, min(row + _PATCH_PX, height), col, min(col + _PATCH_PX, width))
        for row in starts[0]
        for col in starts[1]
    ]
    return np.concatenate([patch.reshape(-1, channels) for patch in patches])


def _identity(_strength: float, _seen: Seen) -> Operation:
    return Operation(_VALUES[None])


def _brightness(strength: float, _seen: Seen) -> Operation:
    return _table(_VALUES * (1 + _FACTOR * strength))


def _contrast(strength: float, seen: Seen) -> Operation:
    mean = float(seen().mean())
    return _table(mean + (_VALUES - mean) * (1 + _FACTOR * strength))


def _saturation(strength: float, _seen: Seen) -> Operation:
    return Operation(_VALUES[None], saturation=1 + _FACTOR * strength)


def _hue(strength: float, _seen: Seen) -> Operation:
    return Operation(_VALUES[None], hue_deg=_HUE_DEG * strength)


def _gamma(strength: float, _seen: Seen) -> Operation:
    return _table(255 * (_VALUES / 255) ** _GAMMA**strength)


def _posterize(strength: float, _seen: Seen) -> Operation:
    step = 2 ** round(_BITS * abs(strength))
    return _table(_VALUES // step * step)


def _solarize(strength: float, _seen: Seen) -> Operation:
    return _table(np.where(256 * (1 - abs(strength)) > _VALUES, _VALUES, 255 - _VALUES))


def _autocontrast(strength: float, seen: Seen) -> Operation:
    pixels = seen()
    low, high = pixels.min(0).astype(float)[:, None], pixels.max(0).astype(float)[:, None]
    return _blended((_VALUES - low) * 255 / np.maximum(high - low, 1), strength)


def _equalize(strength: float, seen: Seen) -> Operation:
    shares = np.stack([np.bincount(channel, minlength=256).cumsum() for channel in seen().T]) / len(seen())
    first = np.array([row[row > 0][:1] for row in shares])
    # Of one value alone nothing can be spread.
    spread = np.where(first < 1, (shares - first) * 255 / np.maximum(1 - first, 1e-9), _VALUES)
    return _blended(spread, strength)


def _sharpness(strength: float, _seen: Seen) -> Operation:
    return Operation(_VALUES[None], kernel=sharpening(1 + _FACTOR * strength))


def _blur(strength: float, _seen: Seen) -> Operation:
    low, high = _SIGMA_PX
    return Operation(_VALUES[None], kernel=gaussian(low + (high - low) * abs(strength)))


def _blended(table: np.ndarray, strength: float) -> Operation:
    """So much of a table, the rest as it is."""
    return _table(_VALUES + abs(strength) * (np.clip(table, 0, 255) - _VALUES))


def _table(values: np.ndarray) -> Operation:
    return Operation(np.clip(np.rint(np.atleast_2d(values)), 0, 255))


OPERATIONS: dict[str, Callable[[float, Seen], Operation]] = {
    "identity": _identity,
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "hue": _hue,
    "gamma": _gamma,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "sharpness": _sharpness,
    "blur": _blur,
}
"""By name; the order is part of what a seed draws."""
