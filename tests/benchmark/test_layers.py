"""Proves that every operation of both passes is counted, once, for the layer that it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from unet_dist.benchmark.ceilings import Ceilings
from unet_dist.benchmark.layers import BETWEEN, OUTSIDE, time_layers
from unet_dist.losses.pixelwise import CrossEntropy
from unet_dist.models.unet import UNet
from unet_dist.planner.operations import OWN_COUNTS
from unet_dist.planner.simulation import SimulatedRun, training_flops
from unet_dist.tiling.gradient import WindowGradient

CPU = torch.device("cpu")
CEILINGS = Ceilings(flops_per_s=1e9, bytes_per_s=1e9)


class Block(nn.Module):
    """A convolution, a layer that does nothing, and a ReLU of the block's own, in place."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, bias=False)
        self.norm = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


class Network(nn.Module):
    """Two blocks with a pooling between them that is the network's own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Block(3, 4), Block(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.max_pool2d(self.first(x), 2))


def test_operations_and_bytes_of_each_layer() -> None:
    model, images = Network(), torch.randn(2, 3, 18, 18)
    layers = {
        layer.name: layer
        for layer in time_layers(model, lambda: model(images).sum().backward(), CPU, CEILINGS, passes=2)
    }
    assert set(layers) == {"first.conv", "first", "second.conv", "second", BETWEEN, OUTSIDE}
    forward = 2 * 2 * 3 * 9 * 4 * 16 * 16  # 2 images of 16x16 outputs
    assert layers["first.conv"].flops == 2 * forward  # the images need no gradient: only that of the weights
    assert layers["second.conv"].flops == 3 * 2 * 2 * 4 * 9 * 5 * 6 * 6
    assert [layers[name].flops for name in ("first", "second", BETWEEN, OUTSIDE)] == [0] * 4
    features, weight = 2 * 4 * 16 * 16 * 4, 4 * 3 * 9 * 4
    # Forward: images and weights in, features out. Backward: gradient, images and weights in, the weights' gradient out.
    # Putting that in its place may be a copy, by torch's release.
    moved = 2 * (images.nbytes + features) + 4 * weight
    assert moved <= layers["first.conv"].num_bytes <= moved + 2 * weight
    # ReLU in place reads and writes; its gradient reads two and writes one.
    assert layers["first"].num_bytes == 5 * features
    assert all(layer.seconds > 0 for layer in layers.values())
    assert layers["first.conv"].limit_s == pytest.approx(
        max(layers["first.conv"].flops, layers["first.conv"].num_bytes) / 1e9
    )


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_convolution_of_groups_takes_a_share_of_the_products(layer: Callable[..., nn.Module], groups: int) -> None:
    model, images = layer(6, 6, 3, groups=groups), torch.randn(2, 6, 9, 9, requires_grad=True)
    whole_model = layer(6, 6, 3)
    layers, whole = (
        time_layers(network, lambda network=network: network(images).sum().backward(), CPU, CEILINGS, passes=1)
        for network in (model, whole_model)
    )
    assert sum(part.flops for part in layers) * groups == sum(part.flops for part in whole)
    with FlopCounterMode(display=False, custom_mapping=OWN_COUNTS) as counter:
        model(images).sum().backward()
    assert counter.get_total_flops() == sum(part.flops for part in layers)


@pytest.mark.parametrize("checkpoint_activations", [False, True])
@pytest.mark.parametrize("norm", ["none", "weight"])
def test_layers_of_the_network_make_up_its_operations(norm: str, checkpoint_activations: bool) -> None:
    options = {"base_channels": 2, "depth": 2, "norm": norm, "checkpoint_activations": checkpoint_activations}
    torch.manual_seed(0)
    model = UNet(3, 5, **options)
    gradient = WindowGradient(model, model, CrossEntropy())
    windows = torch.zeros(1, 60, 60, 3, dtype=torch.uint8)
    labels = torch.zeros(1, *(side - 2 * model.window_sizes.margin for side in (60, 60)), dtype=torch.uint8)
    add = partial(gradient.add, windows, labels, torch.zeros(1, 3, dtype=torch.int64), scale=torch.ones(()))
    layers = time_layers(model, add, CPU, CEILINGS, passes=1)
    setting = SimulatedRun(build=partial(UNet, 3, 5), options=tuple(options.items()), device_type="cpu")
    assert sum(layer.flops for layer in layers) == training_flops(setting, (60, 60))
    with_products = {layer.name for layer in layers if layer.flops}
    convolutions = (nn.Conv2d, nn.ConvTranspose2d)
    assert with_products == {name for name, module in model.named_modules() if isinstance(module, convolutions)}


def test_watching_leaves_no_hooks_behind() -> None:
    model = Network()
    images = torch.randn(1, 3, 18, 18)
    time_layers(model, lambda: model(images).sum().backward(), CPU, CEILINGS, passes=1)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
