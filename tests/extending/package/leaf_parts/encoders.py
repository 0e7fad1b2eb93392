"""An encoder: what `--model unet:leaf_parts.encoders:Plain` puts the decoder of the U-Net on."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn import functional as F

from unet_dist.contracts import Layer, LayeredEncoder, Placed, Span


class Convolution(nn.Module):
    """A convolution without padding and a ReLU. At stride 2 output i reads inputs 2 i to 2 i + kernel_size - 1."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel_size, stride)
        self.stride, self.reach = stride, kernel_size

    def forward(self, features: Placed) -> Placed:
        """The map, and where it begins: at the first output that reads nothing before the input."""
        start = -(-features.start // self.stride)  # rounded up
        unread = self.stride * start - features.start
        height, width = (side - unread for side in features.values.shape[2:])
        values = features.cut(features.start + unread, height, width)
        return Placed(F.relu(self.convolution(values)), start)

    def needed(self, span: Span) -> Span:
        """The inputs that those outputs read."""
        return Span(self.stride * span.start, self.stride * (span.stop - 1) + self.reach)


class Plain(LayeredEncoder):
    """For each halving a convolution of stride 2 and one of stride 1, twice as wide each time."""

    def __init__(self, in_channels: int, depth: int, width: int = 8) -> None:
        super().__init__()
        self.channels = tuple(width * 2**level for level in range(5))
        widths = [in_channels, *self.channels]
        self.halvings = nn.ModuleList(
            Convolution(widths[level], widths[level + 1], kernel_size=2, stride=2) for level in range(depth)
        )
        self.blocks = nn.ModuleList(
            Convolution(channels, channels, kernel_size=3) for channels in self.channels[:depth]
        )

    def parts(self) -> Sequence[Sequence[Layer]]:
        """The layers that lead to each stride."""
        return [[halving, block] for halving, block in zip(self.halvings, self.blocks, strict=True)]  # type: ignore[list-item]
