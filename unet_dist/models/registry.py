"""Models by name: build a new one, load a trained one.

A new architecture of ours is a file with a line PARTS, and passes the kit of unet_dist.testing; one of somebody else's is named by
its import path.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from unet_dist.config.models import MODELS
from unet_dist.errors import CheckpointError, ConfigError, suggest
from unet_dist.models.contract import TrainableNetwork
from unet_dist.models.encoders.registry import ENCODERS
from unet_dist.models.onnx_model import SUFFIX, OnnxModel
from unet_dist.models.pretrained import PretrainedModel, find_model_folder, read_config
from unet_dist.models.weights import CONFIG_FILE
from unet_dist.models.wrap import Wrapped
from unet_dist.registry import Registry, is_there, parse_word
from unet_dist.storage.files import permitted


def find_model(name: str) -> tuple[type[PretrainedModel], str]:
    """Find the class and the variant that NAME or NAME:VARIANT stands for; the variant is empty where none is named.

    Of somebody else's, by entry point or import path, the class is Wrapped and the variant all of the word.

    Raises:
        ConfigError: no such model.
    """
    model_type, _, variant = name.partition(":")
    if model_type == "unet" and variant:  # unet:ENCODER
        model_type = "encoder_unet"
    if MODELS.is_own(model_type):
        return cast(type[PretrainedModel], MODELS.load(model_type)), variant
    if difflib.get_close_matches(model_type, MODELS.own, n=1) and not is_there(model_type.partition(".")[0]):
        MODELS.find(model_type)  # a misspelt name of ours, with its variant, looks like an import path
    return Wrapped, MODELS.spell(name)


def package_of(name: str) -> str | None:
    """The package that a user trusts by naming its network or its encoder; None where both are ours."""
    kind, word = find_model(name)
    registry: Registry[Any] | None = {Wrapped.model_type: MODELS, "encoder_unet": ENCODERS}.get(kind.model_type)
    if registry is None or not word:
        return None
    part = parse_word("model", word).name
    return None if registry.is_own(part) else registry.find(part).partition(".")[0].partition(":")[0]


def own_models() -> list[type[PretrainedModel]]:
    """The architectures of this package."""
    return [find_model(name)[0] for name in MODELS.own]


def build_model(name: str, **options: Any) -> TrainableNetwork:
    """Build a model with fresh weights from torch's generator.

    Args:
        name: of MODELS, or with a variant of it: segformer:b2; or an import path with arguments: my_package.nets:make(width=8).
        options: arguments of its constructor; what a variant fixes goes before them.

    Raises:
        ConfigError: no such model or variant, or no such option of it.
        CheckpointError: a published variant that cannot be had.
        ExtraError: the library that it takes is not installed.
    """
    cls, variant = find_model(name)
    valid = [*cls.option_names(), *({"network"} if cls is Wrapped else ())]
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


@permitted(CheckpointError)
def load_model(
    path_or_hub_id: str | Path, *, device: str | torch.device = "cpu", trust: Sequence[str] = ()
) -> TrainableNetwork | OnnxModel:
    """Load a model from a folder, the hub or an exported ONNX file, in evaluation mode, in the precision of its file.

    Args:
        trust: packages whose code a folder may name: without it nothing of somebody else's is imported.

    Raises:
        CheckpointError: no such model, a damaged file, weights of another model, or a type that is not known here.
        ExtraError: an ONNX file, and onnxruntime is not installed.
    """
    if Path(path_or_hub_id).suffix == SUFFIX and Path(path_or_hub_id).is_file():
        return OnnxModel.from_pretrained(path_or_hub_id).eval()
    folder = find_model_folder(path_or_hub_id)
    name = read_config(folder)["model_type"]
    if name != Wrapped.model_type and not MODELS.is_own(name):
        raise CheckpointError(
            f'{folder / CONFIG_FILE} is of model_type "{name}", which is not known here. {suggest(name, MODELS.own)} '
            "Load it with the version of unet_dist that wrote it."
        )
    kind = Wrapped if name == Wrapped.model_type else find_model(name)[0]
    model: Any = kind.from_pretrained(folder, map_location=device, trust=trust)
    return cast(TrainableNetwork, model)
