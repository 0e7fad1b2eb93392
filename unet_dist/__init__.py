"""Distributed training of U-Nets for semantic segmentation: exact by tiles, the same at any number of processes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unet_dist.models.registry import load_model
    from unet_dist.models.unet import UNet
    from unet_dist.prediction.image import predict_image

__all__ = ["UNet", "load_model", "predict_image"]

_HOMES = {
    "UNet": "unet_dist.models.unet",
    "load_model": "unet_dist.models.registry",
    "predict_image": "unet_dist.prediction.image",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: `import unet_dist` itself costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unet_dist' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
