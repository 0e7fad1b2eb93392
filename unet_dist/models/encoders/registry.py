"""Encoders by name: what the decoder of a U-Net may stand on. A new one of ours is a file with a line PARTS."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import cast

import torch
from torch import nn

from unet_dist.errors import ConfigError
from unet_dist.models.encoders.contract import Encoder
from unet_dist.registry import Registry, Word, is_import_path

MakeEncoder = Callable[..., object]
"""in_channels, depth -> an Encoder."""

ENCODERS: Registry[MakeEncoder] = Registry("model", "unet_dist.encoders", "unet_dist.models.encoders")
_STATED = ("channels", "mean", "std", "source", "licence", "needed", "load_published")


def build_encoder(encoder: str | MakeEncoder, in_channels: int, depth: int) -> Encoder:
    """Make an encoder, with weights from torch's generator.

    Args:
        encoder: its word, such as my_package.encoders:make(width=8), or what makes it.

    Raises:
        ConfigError: there is none of this name, it cannot be made, or it is no encoder.
    """
    given = {"in_channels": in_channels, "depth": depth}
    made = ENCODERS.build(encoder, given) if isinstance(encoder, str) else encoder(**given)
    lacks = [name for name in _STATED if not hasattr(made, name)]
    if not isinstance(made, nn.Module) or lacks:
        raise ConfigError(
            f"model: the encoder {word_of(encoder)} is a {type(made).__name__}{' without ' if lacks else ''}{', '.join(lacks)}. "
            "Expected an encoder as unet_dist.models.encoders.contract describes it: inherit from LayeredEncoder."
        )
    return cast(Encoder, made)


@lru_cache(maxsize=16)
def describe_encoder(encoder: str | MakeEncoder) -> Encoder:
    """An encoder without memory, for what it states: channels, mean, deviation, whose weights. Draws no random number.

    Raises:
        ConfigError: as build_encoder.
    """
    with torch.device("meta"):
        return build_encoder(encoder, 3, 1)


def word_of(encoder: str | MakeEncoder) -> str:
    """How a model folder names an encoder: by its word in the one way of spelling, or by where its maker stands.

    Raises:
        ConfigError: there is none of this name, or its maker stands in no module.
    """
    if isinstance(encoder, str):
        return ENCODERS.spell(encoder)
    maker, arguments = (encoder.func, encoder.keywords) if isinstance(encoder, partial) else (encoder, {})
    path = f"{getattr(maker, '__module__', '')}:{getattr(maker, '__qualname__', '')}"
    if not is_import_path(path):
        raise ConfigError(
            f"encoder: got {encoder!r}, which no import path names. Expected a class or a function at the top of a module, so that "
            "a folder of the network can say what makes it."
        )
    return str(Word(path, arguments))
