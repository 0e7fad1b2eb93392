"""The blocks that a U-Net is made of: convolutions of a level, the bottleneck's centre, up-sampling.

Must not know how they are put together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from unet_dist.models.cropping import crop_border
from unet_dist.models.normalisation import RELU_GAIN, ScaledStdConv2d, ScaledStdConvTranspose2d, activation_norm


class DoubleConv(nn.Module):
    """Convolve 3x3 and rectify, twice; the normalisation, if any, stands between."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: str, padding: str) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, norm=norm, padding=padding)
        self.norm1 = activation_norm(norm, out_channels)
        self.conv2 = conv3x3(out_channels, out_channels, norm=norm, padding=padding)
        self.norm2 = activation_norm(norm, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) features -> features of this block."""
        # In place is safe: no backward of a convolution or a norm reads its own output.
        features = F.relu(self.norm1(self.conv1(features)), inplace=True)
        return F.relu(self.norm2(self.conv2(features)), inplace=True)


class ResidualConv(DoubleConv):
    """The two convolutions of a DoubleConv, with the features that come in added before the last ReLU.

    A 1x1 convolution gives them as many channels; without padding they lose the border that the convolutions lose, so the halo
    stays. The sum is divided by sqrt(2), which keeps the variance of the start.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv 1512.03385, figure 2; projections everywhere.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: str, padding: str) -> None:
        super().__init__(in_channels, out_channels, norm=norm, padding=padding)
        self.border = 2 if padding == "valid" else 0
        if norm == "weight":
            self.shortcut: nn.Module = ScaledStdConv2d(in_channels, out_channels, 1, output_gain=1.0)
        else:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) features -> features of this block."""
        shortcut = self.shortcut(crop_border(features, self.border))
        features = F.relu(self.norm1(self.conv1(features)), inplace=True)
        return F.relu((self.norm2(self.conv2(features)) + shortcut) * math.sqrt(0.5), inplace=True)


class DilatedCentre(nn.Module):
    """Convolve 3x3 at several rates, one after the other, and add what each gives to what came in.

    A rate r reads r pixels further on each side, for the work of a rate of 1. The sum is divided by the root of its number of
    terms, which keeps the variance of the start.

    Source: Zhou, Zhang and Wu 2018, "D-LinkNet", CVPR workshops, figure 3, its centre with rates 1, 2, 4.
    """

    def __init__(self, channels: int, rates: Sequence[int], *, norm: str, padding: str) -> None:
        super().__init__()
        self.borders = [rate if padding == "valid" else 0 for rate in rates]
        self.convs = nn.ModuleList(
            conv3x3(channels, channels, norm=norm, padding=padding, dilation=rate) for rate in rates
        )
        self.norms = nn.ModuleList(activation_norm(norm, channels) for _ in rates)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) features -> features of this block."""
        total = features
        for conv, norm, border in zip(self.convs, self.norms, self.borders, strict=True):
            features = F.relu(norm(conv(features)))
            total = crop_border(total, border) + features
        return total * (1 + len(self.borders)) ** -0.5


BLOCKS: dict[str, type[DoubleConv]] = {"plain": DoubleConv, "residual": ResidualConv}


class Upsample(nn.Module):
    """Double the side and halve the channels: a 2x2 transposed convolution, or a 1x1 convolution and bilinear."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: str, upsampling: str) -> None:
        super().__init__()
        self.is_bilinear = upsampling == "bilinear"
        self.conv: nn.Module
        # No ReLU follows, so a standardised filter needs no gain.
        if self.is_bilinear and norm == "weight":
            self.conv = ScaledStdConv2d(in_channels, out_channels, 1, output_gain=1.0)
        elif self.is_bilinear:
            self.conv = nn.Conv2d(in_channels, out_channels, 1)
        elif norm == "weight":
            self.conv = ScaledStdConvTranspose2d(in_channels, out_channels, 2, output_gain=1.0)
        else:
            self.conv = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) features -> features of this block."""
        features = self.conv(features)
        if self.is_bilinear:
            # After the convolution, at a quarter of its cost: the two commute, as bilinear weights sum to one.
            features = widen(features, 2)
        return features


def widen(features: Tensor, factor: int) -> Tensor:
    """Interpolate (N, C, H, W) to a multiple of the sides, bilinearly, in the type that comes in.

    On a GPU mixed precision interpolates in float32, and what comes out would make all that it is concatenated with float32. The
    convolution that follows rounds it to the same values.
    """
    wider = F.interpolate(features, scale_factor=float(factor), mode="bilinear", align_corners=False)
    return wider if wider.dtype == features.dtype else wider.to(features.dtype)


def conv3x3(in_channels: int, out_channels: int, *, norm: str, padding: str, dilation: int = 1) -> nn.Module:
    """A convolution of a block; with padding it keeps the side at any rate."""
    border = dilation if padding == "same" else 0
    if norm == "weight":
        return ScaledStdConv2d(in_channels, out_channels, 3, padding=border, dilation=dilation, output_gain=RELU_GAIN)
    # Batch and group norm bring their own offset.
    return nn.Conv2d(in_channels, out_channels, 3, padding=border, dilation=dilation, bias=norm == "none")
