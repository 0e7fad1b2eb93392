"""What an encoder must state, and the walk through its layers.

Owns the contract, and a base class for encoders of layers. An encoder computes without padding and couples neither samples nor all
pixels of a window, so that the network around it has a finite halo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from unet_dist.models.encoders.placement import Placed, Span


class Layer(Protocol):
    """A step of an encoder: a map to a map, and the indices of the one that indices of the other read."""

    def __call__(self, features: Placed) -> Placed:
        """Compute the map of this layer."""

    def needed(self, span: Span) -> Span:
        """The indices of the input that these of the output read."""


class Encoder(Protocol):
    """An `nn.Module` that encodes images into maps of strides 2, 4 ... 2^depth, without padding. Inherit from LayeredEncoder.

    Images with `pads` it continues by zeros so far that each map has its part of their side; one that does not is refused with
    padding same.

    What makes one takes in_channels and depth, and the arguments that stand in brackets behind its name. It draws its first weights
    from torch's generator.
    """

    @property
    def channels(self) -> Sequence[int]:
        """Of the maps of stride 2, 4, ...: one a depth that it can have, whatever depth it was made for."""

    @property
    def mean(self) -> float:
        """Of the images that its weights expect, in units of uint8, the same for every channel."""

    @property
    def std(self) -> float:
        """Deviation of the pixels, for the normalisation."""

    @property
    def source(self) -> str | None:
        """Whose published weights `load_published` copies; None where it has none, and begins new."""

    @property
    def licence(self) -> str | None:
        """Of these weights."""

    @property
    def __call__(self) -> Callable[..., list[Placed]]:
        """(images: Placed, *, checkpoints: bool) -> the maps, the finest first; checkpoints recomputes activations backward."""

    def needed(self, spans: Sequence[Span]) -> Span:
        """The indices of the image that those of the maps read, the spans by stride 2, 4, ..."""

    def load_published(self) -> str:
        """Copy the published weights; names them. Asked only where `source` names some."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As of nn.Module."""


class LayeredEncoder(nn.Module):
    """An encoder that is layers one behind the other: whoever inherits says which lead to each stride.

    Attributes: as the contract has them.
    """

    channels: Sequence[int]
    mean: float = 127.5
    std: float = 127.5
    licence: str | None = None
    source: str | None = None

    def parts(self) -> Sequence[Sequence[Layer]]:
        """The layers that lead to each stride, in order of computation. Each is an `nn.Module` that this one holds."""
        raise NotImplementedError

    def load_published(self) -> str:
        """Copy the published weights; names them.

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
