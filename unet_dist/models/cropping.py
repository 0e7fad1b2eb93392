"""Crops of feature maps whose gradient keeps the memory format."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def crop(features: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """Crop (N, C, H, W) to (N, C, height, width): a view."""
    if torch.compiler.is_compiling():  # a compiler lays gradients out itself
        return _slice(features, top, left, height, width)
    view: Tensor = Crop.apply(features, top, left, height, width)
    return view


def crop_border(features: Tensor, border: int) -> Tensor:
    """Crop (N, C, H, W) by `border` on each side: a view. A compiled graph computes no sizes for it."""
    if border == 0:
        return features
    if torch.compiler.is_compiling():
        return features[:, :, border:-border, border:-border]
    height, width = features.shape[2:]
    return crop(features, border, border, height - 2 * border, width - 2 * border)


def _slice(features: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    return features[:, :, top : top + height, left : left + width]


class Crop(torch.autograd.Function):
    """A slice with a gradient that keeps the memory format.

    A slice's own is contiguous. Where batches are channels last, all that it meets on its way back, the gradient of pooling and the
    ReLU, would then be computed value by value (tests/measure/step_variants.py).
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
        """Cut a rectangle out of (N, C, H, W) features."""
        below, right = features.shape[2] - top - height, features.shape[3] - left - width
        assert min(top, left, below, right) >= 0, (tuple(features.shape), top, left, height, width)
        ctx.border = left, right, top, below
        return _slice(features, top, left, height, width)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Pad the gradient to the shape of the features."""
        return F.pad(gradient, ctx.border), None, None, None, None
