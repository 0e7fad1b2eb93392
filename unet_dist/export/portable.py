"""A network in a form that more runtimes read: filters that are constants, and sums of sides that hold for unknown ones.

Owns what an export changes in the graph and in no value. Must not know the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet_dist.models.step_weights import StepWeights
from unet_dist.models.unet import UNet
from unet_dist.tiling.geometry import WindowSizes

_LOST_PX = 4
"""Rows that two 3x3 convolutions without padding lose."""

_OF_ANY_SIDES = {"Cast", "Transpose", "Conv", "Relu", "MaxPool", "ConvTranspose", "Pad", "Slice", "Concat"}
_OF_ANY_SIDES |= {"BatchNormalization", "Min", "Max", "Clip", "Add", "Sub", "Mul", "Div"}


@contextmanager
def constant_filters(model: nn.Module) -> Iterator[None]:
    """Standardise the filters once, so that the graph has them as constants and does not compute them for every picture."""
    with torch.no_grad(), StepWeights(model, None).lent():
        lent = [
            (module, name, tensor.clone())
            for module in model.modules()
            for name, tensor in cast(dict[str, Tensor | None], module._parameters).items()
            if tensor is not None and not isinstance(tensor, nn.Parameter)
        ]
        for module, name, filters in lent:  # the exporter knows parameters only
            module._parameters[name] = nn.Parameter(filters, requires_grad=False)
        yield


@contextmanager
def sides_that_add_up(model: nn.Module) -> Iterator[None]:
    """Let the sides of maps add up where a runtime takes an unknown side as 0.

    OpenCV 4 checks a graph before it knows the sides: it takes 0 for them, subtracts what convolutions lose, doubles for transposed
    ones, and leaves a side below 1 as it is where the graph crops or pools. A map that is joined to a cropped one gets as many rows
    as are missing in that sum, and loses them at once: no value changes.
    """
    with ExitStack() as stack:
        if crops_by_constants(model):
            assert isinstance(model, UNet)
            for level, upsample in zip(reversed(range(model.depth)), model.upsample, strict=True):
                side = -_LOST_PX * (level + 1)  # of the skipped map
                below = -_LOST_PX * (level + (2 if level == model.depth - 1 else 3))
                hook = upsample.register_forward_hook(partial(_pad_and_crop, (side - 2 * below) // 2))
                stack.callback(hook.remove)
        yield


def crops_by_constants(model: nn.Module) -> bool:
    """Whether the graph of a network computes no sides: a U-Net of plain blocks that neither interpolates nor folds pixels nor
    couples them."""
    if not isinstance(model, UNet) or model.padding != "valid" or model.upsampling != "transposed":
        return False
    return model.norm != "group" and model.stem_stride == 1 and model.blocks == "plain"


def free_sides(graph: Any, sizes: WindowSizes) -> bool:
    """Let a graph of `crops_by_constants`, exported at fixed sides, take any number of pictures of any side; whether it may.

    It is the graph that an export at free sides writes, in a fifth of the time.
    """
    if not {node.op_type for node in graph.node} <= _OF_ANY_SIDES:
        return False
    (pixels,), (logits,) = graph.input, graph.output
    for value, axes, lost in ((pixels, (1, 2), 0), (logits, (2, 3), 2 * sizes.margin)):
        dims = value.type.tensor_type.shape.dim
        dims[0].dim_param = "N"
        for axis, name in zip(axes, "HW", strict=True):
            dims[axis].dim_param = f"{sizes.stride}*{name} {sizes.remainder - lost:+d}"
    del graph.value_info[:]  # sides of the maps between
    return True


def _pad_and_crop(border: int, _layer: nn.Module, _inputs: tuple[Tensor, ...], features: Tensor) -> Tensor:
    return F.pad(features, (border,) * 4)[:, :, border:-border, border:-border]
