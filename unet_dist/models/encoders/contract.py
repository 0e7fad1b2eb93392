"""What an encoder must state, and the walk through its layers.

Owns the base class. An encoder computes without padding and couples neither samples nor all pixels of a window, so that the
network around it has a finite halo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from unet_dist.models.encoders.placement import Placed, Span


class Layer(Protocol):
    """A step of an encoder: a map to a map, and the indices of the one that indices of the other read."""

    def __call__(self, features: Placed) -> Placed: ...

    def needed(self, span: Span) -> Span: ...


class Encoder(nn.Module):
    """Encode images into maps of strides 2, 4 ... 2^depth.

    Attributes:
        channels: of the maps.
        mean, std: of the images that the published weights were trained on, in units of uint8, the same for every channel.
        licence, source: of these weights.
    """

    channels: ClassVar[tuple[int, ...]]
    mean: ClassVar[float]
    std: ClassVar[float]
    licence: ClassVar[str]
    source: ClassVar[str]

    def parts(self) -> Sequence[Sequence[Layer]]:
        """The layers that lead to each stride, in order of computation."""
        raise NotImplementedError

    def load_published(self) -> str:
        """Copy the published weights; says what was copied.

        Raises:
            ExtraError: the package that holds them is not installed.
            CheckpointError: they do not fit.
        """
        raise NotImplementedError

    def forward(self, images: Placed, *, checkpoints: bool = False) -> list[Placed]:
        """Compute the maps, the finest first.

        Args:
            checkpoints: recompute activations in the backward pass.
        """
        maps: list[Placed] = []
        for layers in self.parts():
            features = maps[-1] if maps else images
            for layer in layers:
                features = _run(layer, features, checkpoints=checkpoints)
            maps.append(features)
        return maps

    def needed(self, spans: Sequence[Span]) -> Span:
        """The indices of the image that those of the maps read, the spans by stride 2, 4, ..."""
        read = spans[-1]
        for layers, span in zip(reversed(self.parts()), reversed(spans), strict=True):
            read = read.joined(span)
            for layer in reversed(layers):
                read = layer.needed(read)
        return read


def _run(layer: Callable[[Placed], Placed], features: Placed, *, checkpoints: bool) -> Placed:
    if checkpoints and torch.is_grad_enabled():
        kept: Placed = checkpoint(layer, features, use_reentrant=False)
        return kept
    return layer(features)
