"""What a network states about itself, so that everything else asks it and no special case asks which network it is.

Owns the two contracts: what predicts, and what trains. Must not know any one architecture. A network of your own is an
`nn.Module` with these attributes; `models.wrap.wrap` adds them to a plain one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from unet_dist.imaging.pixels import EIGHT_BIT, Pixels
from unet_dist.tiling.geometry import CoarseGrid, Locality, WindowSizes

if TYPE_CHECKING:
    from typing_extensions import Self


class Network(Protocol):
    """A network that predicts: an `nn.Module` from images (N, C, H, W) to logits (N, K, H - 2 margin, W - 2 margin)."""

    training: bool

    @property
    def in_channels(self) -> int:
        """C, channels of an image."""

    @property
    def num_classes(self) -> int:
        """K, logits per pixel."""

    @property
    def class_names(self) -> list[str] | None:
        """One per class; None where nobody named them."""

    @property
    def ignore_index(self) -> int | None:
        """The class that is no answer; None where all are."""

    @property
    def mean(self) -> Sequence[float]:
        """One per channel, in units of the pixels: images come as (pixel - mean) / std."""

    @property
    def std(self) -> Sequence[float]:
        """Deviation of the pixels, for the normalisation."""

    @property
    def pixels(self) -> Pixels:
        """What its images are: the type of their pixels, bands, limits. `pixels_of` asks networks that do not say."""

    @property
    def resize_to(self) -> Sequence[int] | None:
        """(height, width) that a whole image is scaled to before the network, and its logits back from; None: not."""

    @property
    def window_sizes(self) -> WindowSizes:
        """Which sides the network takes, and what it returns for them."""

    @property
    def locality(self) -> Locality | None:
        """Halo and stride in evaluation; None where no finite halo is proven."""

    @property
    def locality_obstacle(self) -> str | None:
        """Why there is no halo: the layer that couples all pixels of a window, and how. None where there is one."""

    @property
    def __call__(self) -> Callable[..., Any]:
        """images -> logits; of a network that trains (images, dropout_keys) -> logits, with (N, 3) int64 keys or None."""

    def scaled_logits(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits (N, K, height, width) of whole images: where the network computes them coarsely, by one interpolation, not two."""

    def config(self) -> dict[str, Any] | None:
        """What config.json says: the model type and the options as they are now; None where it cannot be built anew."""

    # Of every nn.Module; for more of it there is as_module.
    def parameters(self) -> Iterator[nn.Parameter]:
        """As of nn.Module."""

    def buffers(self) -> Iterator[Tensor]:
        """As of nn.Module."""

    def modules(self) -> Iterator[nn.Module]:
        """As of nn.Module."""

    def state_dict(self) -> dict[str, Any]:
        """As of nn.Module."""

    def eval(self) -> Self:
        """As of nn.Module."""

    def train(self, mode: bool = True) -> Self:
        """As of nn.Module."""

    def to(self, device: torch.device) -> Self:
        """As of nn.Module."""


def pixels_of(network: Network) -> Pixels:
    """What the images of a network are; 8 bits where it does not say."""
    return getattr(network, "pixels", EIGHT_BIT)


def coarse_grids_of(network: Network) -> Sequence[CoarseGrid]:
    """Of the coarse logits that a network gives in training behind the others; none by default."""
    return getattr(network, "coarse_grids", ())


def class_names_of(network: Network) -> list[str]:
    """The names of a network's classes; class_0, class_1 ... where nobody named them."""
    return list(network.class_names or [f"class_{index}" for index in range(network.num_classes)])


def zero_of(network: Network) -> Sequence[float]:
    """Of each channel the value that the network sees as 0, which stands where an image has no data."""
    return getattr(network, "zero", network.mean)  # a network that normalises inside has a mean of 0


def as_module(network: Network) -> nn.Module:
    """The same network, for what takes any `nn.Module`: a Protocol cannot inherit from a class."""
    assert isinstance(network, nn.Module), type(network)
    return network


class TrainableNetwork(Network, Protocol):
    """A network that trains, and is kept as a folder."""

    def config(self) -> dict[str, Any]:
        """The options that build this network again."""

    @property
    def model_type(self) -> str:
        """The name under which a folder says what it holds."""

    @property
    def config_keys(self) -> tuple[str, ...]:
        """Keys of a training config that are options of it; the others that describe a network have no effect on it."""

    @property
    def couples_batch(self) -> str | None:
        """The layer that couples the samples (and tiles) of a batch in training, and why; None where none does."""

    @property
    def is_convolutional(self) -> bool:
        """Whether convolutions are most of its work, by which the memory format of training is chosen."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> object:
        """As of nn.Module."""

    def load_variant(self, variant: str) -> str | None:
        """Copy the published weights of `--model NAME:VARIANT`; describes the copy, None where there are none."""

    def save_pretrained(self, save_directory: Path) -> None:
        """Write config.json and model.safetensors."""
