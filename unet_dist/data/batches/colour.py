"""Light and colour of training windows, as batched arithmetic on whole numbers.

Owns what is drawn for a sample, and its application to uint8 batches on any device. A pixel's new value depends on its old one and
on the sample alone, in whole numbers: so tiles of one crop see one transform, no crop need be held for it, and a CPU, a GPU, one
process and several make the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unet_dist.data.batches.sampler import colour_generator

# A street in sun and shade, by eye: about what the recipe "street" has. p as there.
_PROBABILITY = 0.8
_BRIGHTNESS, _CONTRAST, _GAMMA, _SATURATION = (-32.0, 32.0), (0.7, 1.3), (0.7, 1.4), (0.5, 1.5)
# Of red, green and blue in what the eye calls bright (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)
_ONE = 2**12  # of the fixed point: 255 * 3 * 4096 * 1.5 fits into 32 bits by far
_TABLE = 256


def draw_colours(seed: int, positions: Sequence[int]) -> Tensor:
    """Draw what happens to samples: (n, 257) int32, a table of new values and the saturation in units of 1 / 4096.

    Args:
        positions: of the samples in the run.
    """
    rows = np.empty((len(positions), _TABLE + 1), dtype=np.int32)
    for row, position in zip(rows, positions, strict=True):
        random = colour_generator(seed, position)
        is_changed = random.random() < _PROBABILITY
        offset, contrast, gamma, saturation = (
            random.uniform(*span) for span in (_BRIGHTNESS, _CONTRAST, _GAMMA, _SATURATION)
        )
        values = np.arange(_TABLE) / (_TABLE - 1)
        lit = (values**gamma - 0.5) * contrast * 255 + 127.5 + offset
        row[:_TABLE] = np.clip(np.rint(lit), 0, 255) if is_changed else np.arange(_TABLE)
        row[_TABLE] = round(saturation * _ONE) if is_changed else _ONE
    return torch.from_numpy(rows)


def recolour(windows: Tensor, colours: Tensor) -> Tensor:
    """Give windows (n, h, w, C) uint8 the light and, where they have three channels, the saturation that was drawn.

    Args:
        colours: as draw_colours gives them, on the same device.
    """
    shape = windows.shape
    values = colours[:, :_TABLE].gather(1, windows.reshape(len(windows), -1).long()).view(shape)
    if shape[-1] == 3:
        luma = sum(round(part * _ONE) * values[..., channel] for channel, part in enumerate(_LUMA))
        grey = torch.as_tensor(luma).div(_ONE, rounding_mode="floor")[..., None]
        saturation = colours[:, _TABLE].view(-1, 1, 1, 1)
        values = grey + ((values - grey) * saturation).div(_ONE, rounding_mode="floor")
    return values.clamp(0, 255).to(torch.uint8)
