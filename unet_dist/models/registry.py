"""Models by name: build a new one, load a trained one.

Owns the list of model types. A new architecture is one line in it, and passes the shared promises of
tests/models/promises.py.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unet_dist.errors import CheckpointError, ConfigError, suggest
from unet_dist.models.pretrained import CONFIG_FILE, PretrainedModel, find_model_folder, read_config
from unet_dist.models.unet import UNet

MODELS: dict[str, type[PretrainedModel]] = {model.model_type: model for model in (UNet,)}


def build_model(name: str, **options: Any) -> Any:
    """Build a model with fresh weights from torch's generator.

    Args:
        name: a key of MODELS.
        options: arguments of its constructor.

    Raises:
        ConfigError: no such model, or no such option of it.
    """
    if name not in MODELS:
        raise ConfigError(f'Got model "{name}". Expected one that exists. {suggest(name, MODELS)}')
    cls = MODELS[name]
    valid = [option for option in inspect.signature(cls.__init__).parameters if option != "self"]
    for option in options:
        if option not in valid:
            raise ConfigError(f'Got the option "{option}" for model "{name}". {suggest(option, valid)}')
    return cls(**options)


def load_model(path_or_hub_id: str | Path, *, device: str | torch.device = "cpu") -> Any:
    """Load a model from a folder or the hub, in evaluation mode, in the precision of its file.

    Raises:
        CheckpointError: no such model, a damaged file, weights of another model, or a type that is not known here.
    """
    folder = find_model_folder(path_or_hub_id)
    name = read_config(folder)["model_type"]
    if name not in MODELS:
        raise CheckpointError(
            f'{folder / CONFIG_FILE} is of model_type "{name}", which is not known here. {suggest(name, MODELS)} '
            "Load it with the version of unet_dist that wrote it."
        )
    model = MODELS[name].from_pretrained(folder, map_location=device)
    assert isinstance(model, nn.Module), type(model)
    return model
