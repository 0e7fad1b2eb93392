"""Light and colour of training windows, as batched arithmetic on whole numbers.

Owns the random draw for a sample, and its application to uint8 batches on any device. A pixel's new value depends on its old one
and on the sample alone, in whole numbers: so tiles of one crop see one transform, no crop need be held for it, and a CPU, a GPU,
one process and several make the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Colours:
    """What happens to the light and colour of a batch's windows.

    Attributes:
        rows: (n, 256 T + 1) int32, T = 1 or C tables of new values, of all channels alike or of each, and the saturation in units
            of 1 / 4096. They are one tensor, which is one copy to a GPU.
        turned: which windows turn their hue, as the host knows them: nothing need be asked of the device.
        turns: (len(turned), 3, 3) int32, what each new channel takes of the three, in units of 1 / 4096.
    """

    rows: Tensor
    turned: list[int]
    turns: Tensor

    def moved(self, move: Callable[[Tensor], Tensor]) -> Colours:
        """The same of other tensors."""
        return Colours(move(self.rows), self.turned, move(self.turns) if self.turned else self.turns)

    @classmethod
    def of(cls, tables: Sequence[np.ndarray], saturations: Sequence[float], hues_deg: Sequence[float]) -> Colours:
        """Put together what happens to each window.

        Args:
            tables: of each (1 or C, 256) whole numbers of 0 to 255.
            saturations: 1 leaves colours as they are, 0 makes them grey.
            hues_deg: angles by which colours turn about grey.
        """
        bands = max(map(len, tables))
        rows = np.empty((len(tables), bands * _TABLE + 1), dtype=np.int32)
        for row, table, saturation in zip(rows, tables, saturations, strict=True):
            row[:-1] = np.broadcast_to(table, (bands, _TABLE)).reshape(-1)
            row[-1] = round(saturation * _ONE)
        turned = [number for number, hue in enumerate(hues_deg) if hue]
        turns = np.array([_turn(hues_deg[number]) for number in turned], dtype=np.int32).reshape(-1, 3, 3)
        return cls(torch.from_numpy(rows), turned, torch.from_numpy(turns))


def draw_colours(seed: int, positions: Sequence[int]) -> Colours:
    """Draw what happens to samples.

    Args:
        positions: of the samples in the run.
    """
    tables, saturations = [], []
    for position in positions:
        random = colour_generator(seed, position)
        is_changed = random.random() < _PROBABILITY
        offset, contrast, gamma, saturation = (
            random.uniform(*span) for span in (_BRIGHTNESS, _CONTRAST, _GAMMA, _SATURATION)
        )
        values = np.arange(_TABLE) / (_TABLE - 1)
        lit = (values**gamma - 0.5) * contrast * 255 + 127.5 + offset
        tables.append((np.clip(np.rint(lit), 0, 255) if is_changed else np.arange(_TABLE))[None])
        saturations.append(saturation if is_changed else 1.0)
    return Colours.of(tables, saturations, [0.0] * len(tables))


def recolour(windows: Tensor, colours: Colours) -> Tensor:
    """Give windows (n, h, w, C) uint8 the light and, where they have three channels, the saturation and hue that were drawn.

    Args:
        colours: on the same device.
    """
    shape, rows = windows.shape, colours.rows
    index = windows.reshape(len(windows), -1).long()
    if rows.shape[1] > _TABLE + 1:  # each channel looks into a table of its own
        index = (index.view(shape) + torch.arange(shape[-1], device=index.device) * _TABLE).flatten(1)
    values = rows.gather(1, index).view(shape)
    if shape[-1] == 3:
        luma = sum(round(part * _ONE) * values[..., channel] for channel, part in enumerate(_LUMA))
        grey = torch.as_tensor(luma).div(_ONE, rounding_mode="floor")[..., None]
        saturation = rows[:, -1].view(-1, 1, 1, 1)
        values = grey + ((values - grey) * saturation).div(_ONE, rounding_mode="floor")
        if colours.turned:
            at = on_device(colours.turned, windows.device)
            few, turns = values.index_select(0, at)[..., None, :], colours.turns[:, None, None]
            parts = [few[..., channel] * turns[..., channel] for channel in range(3)]  # (m, h, w, 3) each
            moved = (parts[0] + parts[1] + parts[2] + _ONE // 2).div(_ONE, rounding_mode="floor")
            values = values.index_copy(0, at, moved)
    return values.clamp(0, 255).to(torch.uint8)


def on_device(numbers: list[int], device: torch.device) -> Tensor:
    """Which windows, as an index; a list would be copied by a transfer that waits for the device."""
    return torch.tensor(numbers).to(device, non_blocking=True)


def _turn(degrees: float) -> np.ndarray:
    """The matrix that turns colours about grey and keeps their luma, in units of 1 / 4096.

    Source: the YIQ space of the NTSC, whose Y is the luma of ITU-R BT.601 and whose I and Q are turned.
    """
    to_yiq = np.array([_LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    turned: np.ndarray = np.rint(np.linalg.inv(to_yiq) @ turn @ to_yiq * _ONE)
    return turned
