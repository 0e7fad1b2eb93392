"""Encoders by name: what the decoder of a U-Net may stand on. A new one is a file and a line here."""

from __future__ import annotations

from unet_dist.errors import ConfigError, suggest
from unet_dist.models.encoders.contract import Encoder
from unet_dist.registry import Registry

ENCODERS: Registry[type[Encoder]] = Registry(
    "model",
    "unet_dist.encoders",
    {"efficientnet_lite0": "unet_dist.models.encoders.efficientnet_lite:EfficientNetLite0"},
)


def find_encoder(name: str) -> type[Encoder]:
    """Find an encoder's class. A model folder may bring the name, so that only our own are imported.

    Raises:
        ConfigError: there is none of this name.
    """
    if not ENCODERS.is_own(name):
        raise ConfigError(
            f'Got encoder "{name}". Expected one that exists. {suggest(name, ENCODERS.own)} Change model.'
        )
    return ENCODERS.load(name)
