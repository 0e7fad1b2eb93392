"""Models by name: build a new one, load a trained one.

Owns the list of model types. A new architecture is one line in it, and passes the shared promises of
tests/models/promises.py.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, cast

import torch

from unet_dist.errors import CheckpointError, ConfigError, suggest
from unet_dist.models.contract import TrainableNetwork
from unet_dist.models.encoder_unet import EncoderUNet
from unet_dist.models.onnx_model import SUFFIX, OnnxModel
from unet_dist.models.pretrained import CONFIG_FILE, PretrainedModel, find_model_folder, read_config
from unet_dist.models.segformer import SegFormer
from unet_dist.models.smp import SegmentationModel
from unet_dist.models.unet import UNet

MODELS: dict[str, type[PretrainedModel]] = {
    model.model_type: model for model in (UNet, EncoderUNet, SegFormer, SegmentationModel)
}


def find_model(name: str) -> tuple[type[PretrainedModel], str]:
    """Find the class and the variant that NAME or NAME:VARIANT stands for; the variant is empty where none is named.

    Raises:
        ConfigError: no such model.
    """
    model_type, _, variant = name.partition(":")
    if model_type not in MODELS:
        raise ConfigError(f'Got model "{model_type}". Expected one that exists. {suggest(model_type, MODELS)}')
    if model_type == UNet.model_type and variant:  # unet:ENCODER
        return EncoderUNet, variant
    return MODELS[model_type], variant


def build_model(name: str, **options: Any) -> TrainableNetwork:
    """Build a model with fresh weights from torch's generator.

    Args:
        name: a key of MODELS, or with a variant of it: segformer:b2.
        options: arguments of its constructor; what a variant fixes goes before them.

    Raises:
        ConfigError: no such model or variant, or no such option of it.
        CheckpointError: a published variant that cannot be had.
        ExtraError: the library that it takes is not installed.
    """
    cls, variant = find_model(name)
    valid = [option for option in inspect.signature(cls.__init__).parameters if option != "self"]
    for option in options:
        if option not in valid:
            raise ConfigError(f'Got the option "{option}" for model "{name}". {suggest(option, valid)}')
    fixed = cls.variant_options(variant) if variant else {}
    for key in ("mean", "std"):
        if len(fixed.get(key, [])) == 1:  # the same for every channel
            fixed[key] = fixed[key] * options.get("in_channels", 3)
    if len(fixed.get("mean", [])) != options.get("in_channels", 3):  # of colour weights, for images that are none
        fixed = {name: value for name, value in fixed.items() if name not in ("mean", "std")}
    model: Any = cls(**{**options, **fixed})  # an nn.Module, which the mixin cannot say
    return cast(TrainableNetwork, model)


def load_model(path_or_hub_id: str | Path, *, device: str | torch.device = "cpu") -> TrainableNetwork | OnnxModel:
    """Load a model from a folder, the hub or an exported ONNX file, in evaluation mode, in the precision of its file.

    Raises:
        CheckpointError: no such model, a damaged file, weights of another model, or a type that is not known here.
        ExtraError: an ONNX file, and onnxruntime is not installed.
    """
    if Path(path_or_hub_id).suffix == SUFFIX and Path(path_or_hub_id).is_file():
        return OnnxModel.from_pretrained(path_or_hub_id).eval()
    folder = find_model_folder(path_or_hub_id)
    name = read_config(folder)["model_type"]
    if name not in MODELS:
        raise CheckpointError(
            f'{folder / CONFIG_FILE} is of model_type "{name}", which is not known here. {suggest(name, MODELS)} '
            "Load it with the version of unet_dist that wrote it."
        )
    model: Any = MODELS[name].from_pretrained(folder, map_location=device)
    return cast(TrainableNetwork, model)
