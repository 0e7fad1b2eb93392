"""Class ids as tensors: uint8, or uint16 where they need it, as they lie in the cache.

Owns what counts nowhere in them, and their way into arithmetic, of which torch knows little with uint16.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unet_dist.data.decoded.labels import IGNORED, ignored_in


def ignored_of(labels: Tensor) -> int:
    """Say what counts nowhere in labels: 255 or 65535, and -1 in packed planes."""
    return ignored_in(np.dtype(str(labels.dtype).removeprefix("torch.")))


def widened(ids: Tensor) -> Tensor:
    """Give class ids in a type that torch computes with on any device: uint8 as they are, uint16 as int32."""
    if ids.dtype != torch.uint16:
        return ids
    return ids.view(torch.int16).to(torch.int32).bitwise_and_(0xFFFF)


def narrowed(ids: Tensor, num_classes: int) -> Tensor:
    """Give int64 class ids in the type of labels of so many classes."""
    return ids.to(torch.uint8) if num_classes <= IGNORED else ids.to(torch.int16).view(torch.uint16)
