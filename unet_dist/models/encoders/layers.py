"""The convolution of a published encoder, its batch normalisation frozen.

Owns the layer. A frozen normalisation is a scale and a shift of the filters: it couples neither samples nor pixels, so that tiles,
gradients by tile and world sizes stay exact.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet_dist.models.encoders.placement import Placed, Span


class FrozenNormConv2d(nn.Module):
    """Convolve, scale and shift by fixed statistics with a learnt gain and bias, and rectify to 0..6.

    As an original with TensorFlow's "same" padding computes it where it pads nothing: with a stride s, output i of a kernel of k
    reads from s * i - (k - s) // 2 on, as maps of even sides are padded (s is 1 or less than k).

    Args:
        groups: of channels that see each other; in_channels for a depthwise convolution.
        is_rectified: whether ReLU6 follows.
    """

    EPSILON = 1e-3  # of the normalisation of TensorFlow's EfficientNets

    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        is_rectified: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.groups, self.is_rectified = kernel_size, stride, groups, is_rectified
        self.before = (kernel_size - stride) // 2
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size))
        self.gain = nn.Parameter(torch.ones(out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("mean", torch.zeros(out_channels))
        self.register_buffer("variance", torch.ones(out_channels))
        # Keeps the variance of what goes through, without published weights: He et al. 2015, where ReLU halves it.
        fan_in = self.weight[0].numel()
        nn.init.normal_(self.weight, 0, math.sqrt((2 if is_rectified else 1) / fan_in))

    def forward(self, features: Placed) -> Placed:
        """Convolve features and keep where they lie."""
        if features.pads:
            values, start = self._padded(features.values), 0
        else:
            values, start = self._read(features)
        scale = self.gain * torch.rsqrt(self.variance + self.EPSILON)
        weight = self.weight * scale[:, None, None, None]
        # Padding that is the same on both sides is the convolution's own affair, which copies nothing.
        border = self.before if features.pads and self.stride == 1 else 0
        bias = self.bias - self.mean * scale
        convolve = partial(F.conv2d, stride=self.stride, padding=border, groups=self.groups)
        # Channel by channel a CPU's backward pass is slow in 16 bits: with a stride seven to nine times as slow as in float32
        # (tests/measure/depthwise.py).
        if self.groups > 1 and values.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                result = convolve(values.to(weight.dtype), weight, bias)
        else:
            result = convolve(values, weight, bias)
        return Placed(F.relu6(result, inplace=True) if self.is_rectified else result, start, features.pads)

    def _padded(self, values: Tensor) -> Tensor:
        """Append the zeros of TensorFlow's "same" padding where they differ from side to side."""
        if self.stride == 1:
            return values
        before, after = self.before, self.kernel_size - self.stride - self.before
        return F.pad(values, (before, after, before, after))

    def _read(self, features: Placed) -> tuple[Tensor, int]:
        """Crop to what the outputs read that lie wholly inside, and say which of them is the first."""
        start = -((-features.start - self.before) // self.stride)  # the first output that reads nothing before the map
        unread = self.stride * start - self.before - features.start
        height, width = (side - unread for side in features.values.shape[2:])
        return features.cut(features.start + unread, height, width), start

    def needed(self, span: Span) -> Span:
        """The indices of the input that those of the output read."""
        first, last = (self.stride * index - self.before for index in (span.start, span.stop - 1))
        return Span(first, last + self.kernel_size)
