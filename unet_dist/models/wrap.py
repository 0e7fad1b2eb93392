"""A network of somebody else's under the contract of this package: `wrap(module)`, or `--model my_package.nets:make`.

Owns the adapter and its folder: weights in safetensors, and in config.json the import path of what makes the network, with its
measurements. Reading such a folder imports nothing unless the user trusts the package.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from unet_dist.config.models import MODELS
from unet_dist.errors import CheckpointError, ConfigError
from unet_dist.models.arguments import Description, check_images, keep_description
from unet_dist.models.contract import TrainableNetwork
from unet_dist.models.measuring import Measured, measure
from unet_dist.models.pretrained import PretrainedModel
from unet_dist.registry import parse_word, require_trusted, takes
from unet_dist.tiling.geometry import Locality, WindowSizes

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Wrapped(nn.Module, PretrainedModel, pipeline_tag="image-segmentation"):
    """Segment images by somebody else's network: (N, in_channels, H, W) -> logits (N, num_classes, H - 2 margin, W - 2 margin).

    What the network states itself (window_sizes, locality, locality_obstacle, couples_batch) is taken, anything else measured.

    Args:
        in_channels: of the image.
        num_classes: logits per pixel.
        source: the import path or the name of what makes the network, with its arguments; None for one that is given.
        network: the network itself; by default made by `source`.
        measured: its measurements; by default it is measured now.
        description: mean, std, class_names, ignore_index.

    Raises:
        ConfigError: the network cannot be made, or takes and gives something else than images and logits.
    """

    model_type: ClassVar[str] = "wrapped"
    config_keys: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 35,
        *,
        source: str | None = None,
        network: nn.Module | None = None,
        measured: Mapping[str, Any] | None = None,
        **description: Unpack[Description],
    ) -> None:
        super().__init__()
        keep_description(self, in_channels, num_classes, **description)
        self.source = source
        if network is None and source is None:
            raise ConfigError(
                "model: got no network. Expected the import path of what makes it, or the network itself."
            )
        # The names in it are the keys of model.safetensors.
        self.network = network if network is not None else _make(cast(str, source), in_channels, num_classes)
        if measured is not None:
            found = Measured.read(dict(measured))
        elif network is None:
            found = _measure_made(cast(str, source), in_channels, num_classes)
        else:
            twin = copy.deepcopy(network).cpu()
            found = _aside(lambda: _look_at(twin, in_channels, num_classes))
        self.measured = found.record()
        self._takes_keys = takes(self.network.forward, "dropout_keys")
        self.is_convolutional = any(isinstance(layer, nn.Conv2d) for layer in self.network.modules())  # type: ignore[misc]

    @property
    def window_sizes(self) -> WindowSizes:
        """The sides it takes."""
        return Measured.read(self.measured).sizes

    @property
    def locality(self) -> Locality | None:
        """Halo and stride where they are proven."""
        return Measured.read(self.measured).locality

    @property
    def locality_obstacle(self) -> str | None:
        """Why there is no halo."""
        return Measured.read(self.measured).obstacle

    @property
    def couples_batch(self) -> str | None:
        """What couples the samples of a batch in training."""
        return Measured.read(self.measured).couples_batch

    def forward(self, images: Tensor, dropout_keys: Tensor | None = None) -> Tensor:
        """Compute logits; dropout_keys go to a network that takes them.

        Raises:
            DataError: not a batch of images with `in_channels` channels.
            SizeError: a side that the network does not take.
        """
        check_images(self, images)
        logits: Tensor = self.network(images, dropout_keys=dropout_keys) if self._takes_keys else self.network(images)
        return logits

    @classmethod
    def variant_options(cls, variant: str) -> dict[str, Any]:
        """The import path is the variant."""
        return {"source": variant}

    @classmethod
    def option_names(cls) -> list[str]:
        """The options of the config, without the wrapped network itself."""
        return [name for name in super().option_names() if name != "network"]

    @classmethod
    def require_trust(cls, config: Mapping[str, Any], trust: Sequence[str], file: Path) -> None:
        """Refuse to import what a folder names unless the user trusts it."""
        if config.get("network") is not None:
            return
        source = config.get("source")
        if source is None:
            raise CheckpointError(
                f"{file} is of a network that was given as an object, and does not say what makes it. Make it, and "
                "load its weights by Wrapped.from_pretrained(folder, network=...) of unet_dist.models.wrap."
            )
        if not isinstance(source, str):
            raise CheckpointError(f"{file}: got source {source!r}, expected an import path.")
        require_trusted(MODELS.find(parse_word("source", source).name), trust, str(file))


def wrap(
    module: nn.Module,
    *,
    in_channels: int,
    num_classes: int,
    source: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Wrapped:
    """Put any `nn.Module` from images (N, C, H, W) to logits (N, K, h, w) under the contract of this package.

    Args:
        source: the import path of what makes it, with its arguments; kept in its folder, so that it can be loaded.

    >>> wrap(torch.nn.Conv2d(3, 2, 3), in_channels=3, num_classes=2).locality
    Locality(halo=1, stride=1)

    Raises:
        ConfigError: it takes or gives something else.
    """
    return Wrapped(in_channels, num_classes, network=module, source=source, class_names=class_names)


def _make(source: str, in_channels: int, num_classes: int) -> nn.Module:
    network = MODELS.build(source, {"in_channels": in_channels, "num_classes": num_classes})
    if not isinstance(network, nn.Module):
        raise ConfigError(f"model: {source} gave a {type(network).__name__}, expected an nn.Module. Change model.")
    return network


def _stated(network: nn.Module) -> Measured | None:
    """What a network says of itself; None where it does not say all."""
    names = ("window_sizes", "locality", "locality_obstacle", "couples_batch")
    if not all(hasattr(network, name) for name in names):
        return None
    said = cast(TrainableNetwork, network)
    return Measured(said.window_sizes, said.locality, said.locality_obstacle, said.couples_batch)


@lru_cache(maxsize=16)
def _measure_made(source: str, in_channels: int, num_classes: int) -> Measured:
    """Measure another network of the same source: once per process, whatever is made of it."""
    return _aside(lambda: _look_at(_make(source, in_channels, num_classes), in_channels, num_classes))


def _look_at(network: nn.Module, in_channels: int, num_classes: int) -> Measured:
    """A network's own statements, else measurements of it, which use it up."""
    return _stated(network) or measure(network, in_channels, num_classes)


def _aside(work: Callable[[], Measured]) -> Measured:
    """Do it with real numbers on the CPU, and leave torch's generator as it is.

    A thread has none of the modes that this one may be in: another default device, or tensors without memory.
    """
    with torch.random.fork_rng(devices=[]), ThreadPoolExecutor(1) as thread:
        torch.manual_seed(0)
        return thread.submit(work).result()
