"""A network: any nn.Module from images (N, C, H, W) to logits (N, K, H, W)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Small(nn.Module):
    """Two levels, without batch statistics: unet_dist finds its halo by measuring, and predicts by exact tiles."""

    def __init__(self, in_channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(in_channels, width, 3, padding=1)
        self.coarse = nn.Conv2d(width, width, 3, padding=1)
        self.classifier = nn.Conv2d(2 * width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = F.relu(self.fine(images))
        coarse = F.relu(self.coarse(F.max_pool2d(fine, 2)))
        return self.classifier(torch.cat([fine, F.interpolate(coarse, scale_factor=2.0)], dim=1))


def make(in_channels: int, num_classes: int, width: int = 8) -> nn.Module:
    """What `--model leaf_parts.nets:make(width=4)` calls; the channels and classes are those of the data."""
    return Small(in_channels, num_classes, width)
