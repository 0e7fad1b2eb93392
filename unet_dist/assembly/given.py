"""What a caller of the library brings as objects, in place of what the config names.

Owns the contracts of these objects, what they are called in a run's folder, and the refusal of a key that an
object already decides.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from torch import nn

from unet_dist.assembly.network import thresholds_of
from unet_dist.assembly.normalising import normalisation_of
from unet_dist.assembly.sizes import CropSizes
from unet_dist.config.loss_terms import LOSS_KEYS
from unet_dist.config.sections import KEYS, SECTIONS, Config, ModelConfig
from unet_dist.data.batches.crops import SampleTransform
from unet_dist.data.decoded.cache import Cache
from unet_dist.data.sources.pairs import Source
from unet_dist.errors import ConfigError
from unet_dist.losses.contract import Loss
from unet_dist.metrics.registry import Metric
from unet_dist.models.contract import TrainableNetwork
from unet_dist.models.wrap import Wrapped, wrap
from unet_dist.training.parts import Callback

_DECIDES: dict[str, tuple[str, ...]] = {
    "model": tuple(f.name for f in dataclasses.fields(ModelConfig) if f.name not in ("in_channels", "num_classes")),
    "loss": tuple(dict.fromkeys(["loss", *(key for key in LOSS_KEYS if key != "border_class")])),
    "data": ("data_path", "revision", "image_column", "label_column", "synthetic_images", "synthetic_size"),
    "augmentation": ("augmentation",),
    "metrics": ("metrics",),
}
"""The keys that an object takes the place of: a value beside it would have no effect."""


@dataclass(frozen=True)
class Given:
    """Objects of a caller; None is what the config says.

    Attributes:
        model: a network of the contract in models/contract.py, or any other `nn.Module`, with the weights to start from.
        loss: of the contract in losses/contract.py.
        data: a path, a hub id or a source of pairs, of the contract in data/sources/pairs.py.
        augmentation: changes training crops.
        metrics: further numbers of each validation; none is those that the config names.
        callbacks: notified of steps and validations.
    """

    model: nn.Module | None = None
    loss: Loss | None = None
    data: str | os.PathLike[str] | Source | None = None
    augmentation: SampleTransform | None = None
    metrics: Sequence[Metric] = ()
    callbacks: Sequence[Callback] = ()

    @property
    def source(self) -> Source | None:
        """Where pairs come from, if not from a path."""
        return None if self.data is None or isinstance(self.data, str | os.PathLike) else self.data

    @property
    def network(self) -> TrainableNetwork | None:
        """The network, once it is one of the contract."""
        if self.model is None:
            return None
        assert not self.is_plain, type(self.model)
        return cast(TrainableNetwork, self.model)

    @property
    def is_plain(self) -> bool:
        """Whether the network is an `nn.Module` that does not state what the contract asks for."""
        stated = ("window_sizes", "locality", "couples_batch", "mean", "save_pretrained")
        return self.model is not None and not all(hasattr(self.model, name) for name in stated)

    def wrapped(self, cache: Cache) -> Given:
        """The same with a plain network under the contract: what it does not state is measured.

        Raises:
            ConfigError: it takes or gives something else than images and logits of this data set.
        """
        if self.model is None or not self.is_plain:
            return self
        return dataclasses.replace(
            self, model=wrap(self.model, in_channels=cache.channels, num_classes=cache.num_classes)
        )

    def settle(self, config: Config) -> Config:
        """The config with what the objects decide.

        Raises:
            ConfigError: a key that has no effect beside an object.
        """
        for name, keys in _DECIDES.items():
            if getattr(self, name) not in (None, ()):
                _refuse_beside(config, name, keys)
        if config.data.multi_label and (self.loss is not None or self.augmentation is not None):
            name = "loss" if self.loss is not None else "augmentation"
            raise ConfigError(
                f"{name}: got an object with multi_label true, expected a word of the config: yours takes one class per pixel. "
                "Change one of the two."
            )
        if self.data is None:
            return config
        source = self.source
        return config.replace(data_path=os.fspath(self.data) if source is None else source.name)  # type: ignore[arg-type]

    def named(self) -> dict[str, str]:
        """The objects that change the result, by key, as "module:class": a run that resumes with others is another run."""
        model = self.model.network if isinstance(self.model, Wrapped) else self.model
        objects = {"model": model, "loss": self.loss, "data": self.source, "augmentation": self.augmentation}
        kinds = {
            key: part if isinstance(part, type) else type(part) for key, part in objects.items() if part is not None
        }
        return {key: f"{kind.__module__}:{kind.__qualname__}" for key, kind in kinds.items()}

    def refuse_tiles(self, crops: CropSizes) -> None:
        """Refuse to cut crops into tiles for a loss object that sees an image as a whole.

        Raises:
            ConfigError: names the loss.
        """
        if self.loss is None or not self.loss.sees_whole_images:
            return
        if crops.planner.cuts(crops.side) or crops.cut.splits_samples:
            raise ConfigError(
                f"loss: got {type(self.loss).__name__}, which sees an image as a whole and is not a sum over tiles, together with "
                "tile_size or split_sample. Expected whole crops. Remove tile_size and split_sample."
            )


def describe_network(model: TrainableNetwork, cache: Cache, config: Config) -> None:
    """Write into a network that was brought what travels with it: class names, the ignored class, and mean and deviation.

    A network whose classes are named was trained before: it keeps the mean and the deviation that its weights expect.

    Raises:
        ConfigError: it is for other channels or classes than the data set has.
    """
    wanted, got = (cache.channels, cache.num_classes), (model.in_channels, model.num_classes)
    if got != wanted:
        raise ConfigError(
            f"model: got a {type(model).__name__} for {got[0]} channels and {got[1]} classes, expected {wanted[0]} channels and "
            f"{wanted[1]} classes as {cache.name} has. Build it with in_channels={wanted[0]}, num_classes={wanted[1]}."
        )
    described: dict[str, object] = {
        "class_names": list(cache.class_names),
        "ignore_index": cache.ignore_index,
        "thresholds": thresholds_of(config, cache),
    }
    if model.class_names is None:
        described |= normalisation_of(config, cache)._asdict()
    for name, value in described.items():
        setattr(model, name, value)


def _refuse_beside(config: Config, name: str, keys: Sequence[str]) -> None:
    values = config.flat()
    for key in keys:
        field = next(f for f in dataclasses.fields(SECTIONS[KEYS[key]]) if f.name == key)
        if values[key] != field.default:
            raise ConfigError(
                f"{key}: got {values[key]!r} together with {name}=..., an object that decides it. Remove one of the two."
            )
