"""Max pooling of batches of any size.

Owns the cut of a batch that has too many values for CUDA's kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

INDEX_LIMIT = 2**31
"""Torch's kernel for channels-last maps counts values in 32 bits (aten/src/ATen/native/cuda/DilatedMaxPool2d.cu): 64 crops of
732 px, 64 channels wide, are more."""


def halve(features: Tensor, limit: int = INDEX_LIMIT) -> Tensor:
    """Pool (N, C, h, w) to (N, C, h / 2, w / 2), in parts of fewer than `limit` values where one sample is."""
    if features.numel() < limit:
        return F.max_pool2d(features, 2)
    at_once = max(1, (limit - 1) // features[0].numel())
    return torch.cat([F.max_pool2d(part, 2) for part in features.split(at_once)])
