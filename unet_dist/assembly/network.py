"""From a config to its network: its options, its first weights, and its skeleton for the planner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache, partial
from typing import Any

import torch

from unet_dist.assembly.normalising import normalisation_of
from unet_dist.config.loss_terms import parse_loss
from unet_dist.config.sections import Config
from unet_dist.data.decoded.cache import Cache
from unet_dist.errors import ConfigError
from unet_dist.losses.mixture import build_loss
from unet_dist.models.answers import THRESHOLD, require_thresholds
from unet_dist.models.contract import TrainableNetwork, as_module
from unet_dist.models.pretrained import encoder_parameters
from unet_dist.models.registry import build_model, find_model, own_models
from unet_dist.models.supervision import Supervised
from unet_dist.planner.simulation import SimulatedRun
from unet_dist.terminal import Teller


def architecture(config: Config) -> dict[str, Any]:
    """The keys of a config that are options of its network.

    Raises:
        ConfigError: there is no such network, or a key is set that has no effect on it.
    """
    name, model = config.model.model, config.model
    cls = find_model(name)[0]
    keys = cls.config_keys
    for key in () if cls.has_encoder else ("encoder_learning_rate_factor", "encoder_frozen_steps"):
        default = next(f.default for f in fields(config.schedule) if f.name == key)
        if getattr(config.schedule, key) != default:
            raise ConfigError(
                f"{key}: got {getattr(config.schedule, key)!r}, which has no effect on the model {name}: it has no encoder with "
                f"weights of its own. Remove {key}, or set --model unet:efficientnet_lite0."
            )
    for key in sorted({key for other in own_models() for key in other.config_keys} - set(keys)):
        default = next(f.default for f in fields(model) if f.name == key)
        if getattr(model, key) != default:
            raise ConfigError(
                f"{key}: got {getattr(model, key)!r}, which has no effect on the model {name}: "
                f"{'it takes ' + ', '.join(keys) if keys else 'it takes no such key'}. Remove {key}."
            )
    return {key: getattr(model, key) for key in keys}


def supervise(model: TrainableNetwork, config: Config) -> None:
    """Put heads on the coarse levels of a network that is to be trained, as many as the config says.

    Raises:
        ConfigError: it has no such levels, or not so many; or a term of the loss is no sum over pixels.
    """
    levels, loss = config.schedule.deep_supervision, config.schedule.loss
    if levels and not isinstance(model, Supervised):
        raise ConfigError(
            f"deep_supervision: got {levels}, which has no effect on the model {config.model.model}: it has no decoder of this "
            "package. Remove deep_supervision, or set --model unet or unet:efficientnet_lite0."
        )
    for term in parse_loss(loss) if levels else ():
        if build_loss({term: 1.0}).sees_whole_images:
            refuse_levels(term, config)
    if isinstance(model, Supervised):
        model.supervise(levels)


def refuse_levels(loss: str, config: Config) -> None:
    """Refuse to supervise coarse levels by a loss that is no sum over pixels, of which a coarse one stands for several.

    Raises:
        ConfigError: names the loss.
    """
    if config.schedule.deep_supervision:
        raise ConfigError(
            f"deep_supervision: got {config.schedule.deep_supervision} with the loss {loss}, which is no sum over pixels. Remove "
            "deep_supervision, or set --loss cross_entropy+dice."
        )


def build_network(config: Config, cache: Cache) -> TrainableNetwork:
    """Build the network of a config for a data set, with first weights that depend on the seed alone.

    Raises:
        ConfigError: the data set has other channels than the config says.
    """
    wanted = config.model.in_channels
    if wanted is not None and wanted != cache.channels:
        raise ConfigError(
            f"in_channels: got {wanted}, expected {cache.channels} as the images of {cache.name} have. Remove in_channels, or "
            "convert the images."
        )
    mean, std, pixels = normalisation_of(config, cache)
    torch.manual_seed(config.schedule.seed)
    model: TrainableNetwork = build_model(
        config.model.model,
        in_channels=cache.channels,
        num_classes=cache.num_classes,
        **architecture(config),
        mean=mean,
        std=std,
        class_names=cache.class_names,
        ignore_index=cache.ignore_index,
    )
    own: dict[str, object] = {"pixels": pixels, "thresholds": thresholds_of(config, cache)}
    if pixels.dtype != "uint8" or config.data.normalisation != "mean_std":  # published weights have those of 8 bits
        own |= {"mean": mean, "std": std}
    for name, value in own.items():
        setattr(model, name, value)
    supervise(model, config)  # after the network, whose first weights stay those that the seed draws
    as_module(model).to(getattr(torch, config.run.dtype))
    if config.schedule.encoder_learning_rate_factor == 0:
        for parameter in encoder_parameters(as_module(model)):
            parameter.requires_grad_(False)
    return model


def thresholds_of(config: Config, cache: Cache) -> list[float] | None:
    """The probabilities from which overlapping classes are there; None where a pixel has one class.

    Raises:
        ConfigError: another number of them than of classes.
    """
    if not cache.multi_label:
        return None
    said = config.data.thresholds
    each = said if isinstance(said, list) else [THRESHOLD if said is None else said] * cache.num_classes
    return require_thresholds([float(one) for one in each], cache.num_classes)


def load_published(config: Config, model: TrainableNetwork, teller: Teller) -> None:
    """Copy the published weights into a new network that its config names as its variant; where it names none, nothing.

    Raises:
        CheckpointError: they cannot be had, or do not fit.
    """
    _, variant = find_model(config.model.model)
    told = model.load_variant(variant) if variant else None
    if told is not None:
        teller.say(told)


def build_skeleton(config: Config) -> TrainableNetwork:
    """The network without weights, before any data is read: for what follows from its architecture alone."""
    options = architecture(config)
    with torch.device("meta"):
        model: TrainableNetwork = build_model(config.model.model, **options)
    supervise(model, config)
    return model


def _build_supervised(model: str, levels: int, **options: Any) -> TrainableNetwork:
    """The network as it is trained."""
    network: TrainableNetwork = build_model(model, **options)
    if isinstance(network, Supervised):
        network.supervise(levels)
    return network


@lru_cache(maxsize=64)
def _builder(model: str, levels: int, channels: int, num_classes: int) -> Callable[..., TrainableNetwork]:
    """One object per network, so that a simulation of it is recognised and not repeated."""
    return partial(_build_supervised, model, levels, in_channels=channels, num_classes=num_classes)


def simulated(config: Config, *, channels: int, num_classes: int, device_type: str, precision: str) -> SimulatedRun:
    """The parts of a config that the planner takes: the network, its device, and its trained parameters.

    Args:
        precision: no, bf16 or fp16.
    """
    return SimulatedRun(
        build=_builder(config.model.model, config.schedule.deep_supervision, channels, num_classes),
        options=tuple(architecture(config).items()),
        device_type=device_type,
        precision=precision,
        dtype=getattr(torch, config.run.dtype),
        loss=config.schedule.loss,
        averages=config.schedule.ema_decay is not None,
        optimizer=config.schedule.optimizer,
        memory_format=config.run.memory_format,
        multi_label=config.data.multi_label,
    )
