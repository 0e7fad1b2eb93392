"""Dropout whose mask is a function of where a value is, not of when it was computed.

torch's dropout draws from a generator, so the mask of a pixel depends on the tiles, ranks and micro-batches that a
batch was cut into, and on every draw before. Here each value is hashed with its sample's key and its absolute position:
a window and the tiles of it, one process and eight, a resumed run and an uninterrupted one drop the same values.

Source of the hash: lowbias32 of Chris Wellons, "Prospecting for Hash Functions" (2018),
https://nullprogram.com/blog/2018/07/31/, found by search for the least avalanche bias among two-round hashes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_MASK32 = 0xFFFFFFFF
_SALT = 0x9E3779B9  # 2^32 / golden ratio: lowbias32 maps 0 to 0, so the chain does not start at a key of 0


def lowbias32(values: Tensor) -> Tensor:
    """Hash 32-bit values held in int64, (any shape) -> same shape, both in [0, 2^32).

    uint32 has no multiplication in torch. Here each product stays below 2^63 in size, so that nothing overflows: the
    second factor is 0x846CA68B - 2^32, which is the same modulo 2^32.
    """
    values = values ^ (values >> 16)
    values = (values * 0x7FEB352D) & _MASK32
    values = values ^ (values >> 15)
    values = (values * (0x846CA68B - (1 << 32))) & _MASK32
    return values ^ (values >> 16)


def hash_places(keys: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Hash values by where they are: a pure function of (key, channel, absolute row, absolute column).

    Args:
        keys: (N, 3) int64: the sample's key, the row and the column of the map's first value in the sample's own grid
            (negative ones too).
        shape: (C, h, w) of the map.

    Returns:
        (N, C, h, w) int64, 32 bits each.
    """
    channels, height, width = shape
    sample, first_row, first_column = keys.unbind(1)  # (N,) each
    device = keys.device
    state = lowbias32((sample & _MASK32) ^ _SALT)
    state = lowbias32(state ^ ((sample >> 32) & _MASK32)).view(-1, 1, 1, 1)
    state = lowbias32(state ^ torch.arange(channels, device=device).view(1, -1, 1, 1))
    rows = (first_row[:, None] + torch.arange(height, device=device)).view(-1, 1, height, 1)
    state = lowbias32(state ^ (rows & _MASK32))
    columns = (first_column[:, None] + torch.arange(width, device=device)).view(-1, 1, 1, width)
    return lowbias32(state ^ (columns & _MASK32))  # (N, C, h, w): the only round over the whole map


def keep_mask(keys: Tensor, shape: tuple[int, int, int], *, p: float) -> Tensor:
    """Decide which values stay, (N, C, h, w) bool.

    Args:
        keys, shape: as in hash_places.
        p: the share dropped, in [0, 1).
    """
    return hash_places(keys, shape) >= round(p * 2**32)


class PositionalDropout(nn.Module):
    """Drop values with probability `p` in training and scale the rest by 1 / (1 - p).

    With keys the mask is a function of position; without, it is torch's ordinary dropout.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, features: Tensor, keys: Tensor | None = None) -> Tensor:
        """Drop from features (N, C, h, w); keys (N, 3) int64 as in `keep_mask`.

        Raises:
            ValueError: keys are not (N, 3) int64.
        """
        if not self.training or self.p == 0:
            return features
        if keys is None:
            return F.dropout(features, self.p, training=True)
        if keys.shape != (features.shape[0], 3) or keys.dtype != torch.int64:
            raise ValueError(
                f"dropout_keys are {tuple(keys.shape)} {keys.dtype}; expected ({features.shape[0]}, 3) torch.int64: "
                "one (sample key, row, column) for each image. Pass None for torch's own dropout."
            )
        _, channels, height, width = features.shape
        keep = keep_mask(keys.to(features.device), (channels, height, width), p=self.p)
        return features * (keep.to(features.dtype) * (1 / (1 - self.p)))

    def extra_repr(self) -> str:
        """Show the settings in the network's printed form."""
        return f"p={self.p}"
