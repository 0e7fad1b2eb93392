"""Planes of overlapping classes on the device: out of the packed numbers in which labels travel."""

from __future__ import annotations

import torch
from torch import Tensor

from unet_dist.data.decoded.labels import IGNORED


def unpack(labels: Tensor, num_classes: int) -> Tensor:
    """Give the planes of packed labels (..., H, W): (..., K, H, W) uint8 of 0, 1 and IGNORED."""
    assert labels.dtype in (torch.int16, torch.int32, torch.int64), labels.dtype
    # Class by class: the bits of all at once would be as wide as the packed numbers.
    codes = torch.stack([(labels >> 2 * k).bitwise_and_(3).to(torch.uint8) for k in range(num_classes)], dim=-3)
    return torch.where(codes > 1, IGNORED, codes)
