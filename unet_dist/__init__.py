"""Distributed training of U-Nets for semantic segmentation: exact by tiles, the same at any number of processes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unet_dist.assembly.evaluating import evaluate
    from unet_dist.assembly.file_prediction import predict_files
    from unet_dist.assembly.predicting import predict
    from unet_dist.assembly.run import Run
    from unet_dist.assembly.train import train
    from unet_dist.config.sections import Config
    from unet_dist.models.ensemble import load_model
    from unet_dist.models.unet import UNet
    from unet_dist.prediction.image import predict_image
    from unet_dist.training.parts import Callback

__version__ = "0.2.0"
"""The release; setup.cfg, the command line and a run's files read it here."""

__all__ = [
    "Callback",
    "Config",
    "Run",
    "UNet",
    "evaluate",
    "load_model",
    "predict",
    "predict_files",
    "predict_image",
    "train",
]

_HOMES = {
    "Callback": "unet_dist.training.parts",
    "Config": "unet_dist.config.sections",
    "Run": "unet_dist.assembly.run",
    "UNet": "unet_dist.models.unet",
    "evaluate": "unet_dist.assembly.evaluating",
    "load_model": "unet_dist.models.ensemble",
    "predict": "unet_dist.assembly.predicting",
    "predict_files": "unet_dist.assembly.file_prediction",
    "predict_image": "unet_dist.prediction.image",
    "train": "unet_dist.assembly.train",
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used: `import unet_dist` itself costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unet_dist' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
