"""Several networks as one: the mean of their probabilities, by exact tiles as each of them.

Owns what they must share, and how a window is cut for each. Whoever predicts sees a network, whose answer at a pixel is the
logarithm of the mean probability. One member is computed after the other: beside its own activations stands one sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unet_dist.errors import ConfigError
from unet_dist.models.answers import answers_of
from unet_dist.models.contract import Network, TrainableNetwork, as_module, pixels_of, zero_of
from unet_dist.models.onnx_model import OnnxModel
from unet_dist.models.registry import load_model as load_one
from unet_dist.tiling.geometry import Locality, WindowSizes


def load_model(
    path_or_hub_id: str | Path, *, device: str | torch.device = "cpu", trust: Sequence[str] = ()
) -> TrainableNetwork | OnnxModel | Ensemble:
    """Load a model in evaluation mode, in the precision of its files.

    >>> model = load_model("runs/mine")  # doctest: +SKIP

    Args:
        path_or_hub_id: a run's folder (its best/, else its last/), a model folder, a hub id or an exported ONNX file; or several
            joined by +, whose probabilities are averaged.
        trust: packages that a folder may import; nothing else of somebody else's is imported.

    Raises:
        CheckpointError: no such model, a damaged file, weights of another model, or a type that is not known here.
        ConfigError: the models of an ensemble do not go together.
        ExtraError: an ONNX file, and onnxruntime is not installed.
    """
    members = [load_one(word, device=device, trust=trust) for word in members_of(str(path_or_hub_id))]
    return members[0] if len(members) == 1 else Ensemble(members).eval()


def members_of(word: str) -> list[str]:
    """The runs that a word names: RUN, or RUN+RUN+RUN for an ensemble of them."""
    return [word] if Path(word).exists() else word.split("+")


class Ensemble(nn.Module):
    """Average networks: (N, in_channels, H, W) pixels -> log mean probabilities (N, num_classes, H - 2 * margin, W - 2 * margin).

    Args:
        members: two at least. Each may have its own sides, halo, mean and deviation.

    Raises:
        ConfigError: they have other channels or classes, or scale whole images to other sizes.
    """

    def __init__(self, members: Sequence[Network]) -> None:
        super().__init__()
        assert members
        first = members[0]
        for key in ("in_channels", "num_classes", "class_names", "ignore_index", "resize_to"):
            found = [getattr(member, key) for member in members]
            found = [list(value) if isinstance(value, list | tuple) else value for value in found]
            if any(value != found[0] for value in found):
                raise ConfigError(
                    f"Got an ensemble whose runs differ in {key}: {', '.join(map(str, found))}. Expected runs of one data set."
                )
        kinds = [replace(pixels_of(member), limits=None) for member in members]
        if any(kind != kinds[0] for kind in kinds):
            raise ConfigError(
                f"Got an ensemble of networks of different images: {', '.join(map(str, kinds))}. Expected runs of one data set."
            )
        self.pixels, self.zero = kinds[0], list(zero_of(first))
        each = [answers_of(member).thresholds for member in members]
        if any((thresholds is None) != (each[0] is None) for thresholds in each):
            raise ConfigError("Got an ensemble of runs with and without multi_label. Expected runs of one data set.")
        given = [thresholds for thresholds in each if thresholds is not None]
        self.thresholds = [sum(values) / len(values) for values in zip(*given, strict=True)] if given else None
        self.members = nn.ModuleList(as_module(member) for member in members)
        self.in_channels, self.num_classes = first.in_channels, first.num_classes
        self.class_names, self.ignore_index, self.resize_to = first.class_names, first.ignore_index, first.resize_to
        # Pixels come as they are; each member scales them by its own.
        self.mean, self.std = [0.0] * first.in_channels, [1.0] * first.in_channels
        self.window_sizes = _common_sizes([member.window_sizes for member in members])

    @property
    def locality(self) -> Locality | None:
        """Halo and stride; None where a member has none."""
        found = [member.locality for member in self._each()]
        if any(locality is None for locality in found):
            return None
        margin = self.window_sizes.margin
        halos = [
            margin - member.window_sizes.margin + locality.halo
            for member, locality in zip(self._each(), found, strict=True)
            if locality is not None
        ]
        strides = [locality.stride for locality in found if locality is not None]
        return Locality(max(halos), math.lcm(*strides))

    @property
    def locality_obstacle(self) -> str | None:
        """The layer of a member that couples all pixels of a window; None where there is a halo."""
        return next((member.locality_obstacle for member in self._each() if member.locality_obstacle), None)

    def config(self) -> None:
        """None: it is built from folders, and kept as none."""

    def forward(self, images: Tensor) -> Tensor:
        """Compute log mean probabilities."""
        margin = self.window_sizes.margin
        height, width = (side - 2 * margin for side in images.shape[2:])
        total: Any = 0
        for member in self._each():
            before = margin - member.window_sizes.margin
            windows = self._scaled(member, images)[:, :, before:, before:]
            sides = [_largest(member.window_sizes, side) for side in windows.shape[2:]]
            logits = member(windows[:, :, : sides[0], : sides[1]])[:, :, :height, :width]
            total = total + self._probabilities(logits)
        return self._logarithm(total)

    def scaled_logits(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Log mean probabilities (N, K, height, width) of whole images, scaled to a size."""
        each = (member.scaled_logits(self._scaled(member, images), size) for member in self._each())
        return self._logarithm(sum(map(self._probabilities, each)))

    def _each(self) -> Iterator[Any]:
        yield from self.members

    def _scaled(self, member: Network, images: Tensor) -> Tensor:
        shape = (1, -1, 1, 1)
        compute = torch.promote_types(images.dtype, torch.float32)
        mean, std = (
            torch.tensor(values, dtype=compute).to(images.device, non_blocking=True).view(shape)
            for values in (member.mean, member.std)
        )
        values = images.to(compute)
        if (limits := pixels_of(member).limits) is not None:
            ends = torch.tensor(limits, dtype=compute).to(images.device, non_blocking=True)  # (C, 2)
            values = torch.minimum(torch.maximum(values, ends[:, 0].view(shape)), ends[:, 1].view(shape))
        return ((values - mean) / std).to(images.dtype)

    def _probabilities(self, logits: Tensor) -> Tensor:
        return answers_of(self).probabilities(logits)

    def _logarithm(self, total: Any) -> Tensor:
        if self.thresholds is not None:  # what a sigmoid makes the mean probability again
            return torch.logit(total / len(self.members), eps=torch.finfo(total.dtype).eps)
        logarithm: Tensor = (total / len(self.members)).clamp(min=torch.finfo(total.dtype).tiny).log()
        return logarithm  # finite, as logits are


def _common_sizes(each: Sequence[WindowSizes]) -> WindowSizes:
    """Sides that hold a window of every network, at its own phase; where all are alike, theirs."""
    if all(sizes == each[0] for sizes in each):
        return each[0]
    # A member's output may have a remainder of its own: up to a stride more is left below and to the right of the common one.
    stride = math.lcm(*(sizes.stride for sizes in each))
    margin = max(sizes.margin + sizes.stride for sizes in each)
    minimum = max(sizes.minimum for sizes in each) + 2 * margin
    minimum = 2 * margin + -(-(minimum - 2 * margin) // stride) * stride
    return WindowSizes(stride=stride, remainder=minimum % stride, minimum=minimum, margin=margin)


def _largest(sizes: WindowSizes, side: int) -> int:
    largest = sizes.round_down(side)
    assert largest is not None, (sizes, side)
    return largest
