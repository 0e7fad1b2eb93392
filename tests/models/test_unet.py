"""Proves that the U-Net is the paper's, layer by layer, and what its options change."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.models.promises import ModelPromises
from unet_dist.errors import ConfigError
from unet_dist.models import cropping
from unet_dist.models.unet import UNet

# Ronneberger et al. 2015, figure 1: (channels, side) after each 3x3 convolution, up-convolution and the last 1x1 one.
FIGURE_1 = {
    "encoder.0.conv1": (64, 570),
    "encoder.0.conv2": (64, 568),
    "encoder.1.conv1": (128, 282),
    "encoder.1.conv2": (128, 280),
    "encoder.2.conv1": (256, 138),
    "encoder.2.conv2": (256, 136),
    "encoder.3.conv1": (512, 66),
    "encoder.3.conv2": (512, 64),
    "bottleneck.conv1": (1024, 30),
    "bottleneck.conv2": (1024, 28),
    "upsample.0": (512, 56),
    "decoder.0.conv1": (512, 54),
    "decoder.0.conv2": (512, 52),
    "upsample.1": (256, 104),
    "decoder.1.conv1": (256, 102),
    "decoder.1.conv2": (256, 100),
    "upsample.2": (128, 200),
    "decoder.2.conv1": (128, 198),
    "decoder.2.conv2": (128, 196),
    "upsample.3": (64, 392),
    "decoder.3.conv1": (64, 390),
    "decoder.3.conv2": (64, 388),
    "classifier": (2, 388),
}
# What enters each level: after the poolings on the way down, after copy, crop and concatenation on the way up.
FIGURE_1_INPUTS = {
    "encoder.0": (1, 572),
    "encoder.1": (64, 284),
    "encoder.2": (128, 140),
    "encoder.3": (256, 68),
    "bottleneck": (512, 32),
    "decoder.0": (1024, 56),
    "decoder.1": (512, 104),
    "decoder.2": (256, 200),
    "decoder.3": (128, 392),
}


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("in_channels", "num_classes", "expected"), [(1, 2, 31_030_658), (3, 35, 31_033_955)])
def test_has_the_papers_parameters(in_channels: int, num_classes: int, expected: int) -> None:
    with torch.device("meta"):
        assert num_parameters(UNet(in_channels, num_classes)) == expected


def test_is_figure_1_layer_by_layer() -> None:
    with torch.device("meta"):
        model = UNet(1, 2)
        image = torch.zeros(1, 1, 572, 572)
    shapes: dict[str, tuple[int, int]] = {}
    inputs: dict[str, tuple[int, int]] = {}

    def record(name: str, into: dict[str, tuple[int, int]], tensor: torch.Tensor) -> None:
        assert tensor.shape[2] == tensor.shape[3]
        into[name] = (tensor.shape[1], tensor.shape[2])

    for name, module in model.named_modules():
        if name in FIGURE_1:
            module.register_forward_hook(lambda _, __, output, name=name: record(name, shapes, output))
        if name in FIGURE_1_INPUTS:
            module.register_forward_pre_hook(lambda _, args, name=name: record(name, inputs, args[0]))
    model(image)
    assert shapes == FIGURE_1
    assert list(shapes) == list(FIGURE_1), "the order of computation"
    assert inputs == FIGURE_1_INPUTS


def test_skips_are_cropped_at_the_centre_and_come_first() -> None:
    model = UNet(1, 1, base_channels=1, depth=1).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        # Pass the image through the encoder's first block unchanged, and nothing through the bottleneck.
        model.encoder[0].conv1.weight[0, 0, 1, 1] = 1
        model.encoder[0].conv2.weight[0, 0, 1, 1] = 1
    image = torch.rand(1, 1, 18, 20, dtype=torch.float64)
    seen: list[torch.Tensor] = []
    model.decoder[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(image)
    # 18 -> 14 after two convolutions; up from the bottleneck come 6, so 2 + 4 pixels go a side.
    assert torch.equal(seen[0][:, :1], image[:, :, 6:-6, 6:-6])
    assert seen[0][:, 1:].abs().max() == 0


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_the_crops_gradient_is_that_of_a_slice_in_the_format_of_what_it_meets(
    memory_format: torch.memory_format,
) -> None:
    features = torch.randn(2, 3, 12, 14, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
    weights = torch.randn(2, 3, 8, 6, dtype=torch.float64).contiguous(memory_format=memory_format)
    gradients = []
    for cut in (cropping.crop, cropping._slice):
        part = cut(features, 2, 4, 8, 6)
        assert part.data_ptr() == features[:, :, 2:, 4:].data_ptr(), "a view"
        gradients += torch.autograd.grad((part * weights).sum(), features)
    assert torch.equal(*gradients)
    assert gradients[0].is_contiguous(memory_format=memory_format)


def test_interpolated_maps_stay_in_the_type_of_mixed_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU autocast interpolates in float32; the concatenation would then be of float32, and the plan 6 % too low."""
    interpolate, seen = F.interpolate, []

    def in_float32(features: torch.Tensor, **keys: Any) -> torch.Tensor:
        return interpolate(features.float(), **keys)

    monkeypatch.setattr(F, "interpolate", in_float32)
    model = UNet(3, 4, base_channels=2, depth=1, upsampling="bilinear").bfloat16()
    model.decoder[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    model(torch.randn(1, 3, 20, 20).bfloat16())
    assert seen == [torch.bfloat16]


def test_starts_with_the_papers_initialisation() -> None:
    torch.manual_seed(0)
    model = UNet(3, 35, base_channels=32, depth=3)
    convolutions = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    }
    assert len(convolutions) == 2 * (3 + 1 + 3) + 3 + 1
    for name, module in convolutions.items():
        # The paper: 3x3 convolution, 64 channels before it: N = 9 * 64 = 576. An up-convolution of stride 2 sums over
        # the channels only.
        fan_in = module.in_channels * (9 if "conv1" in name or "conv2" in name else 1)
        weight = module.weight.detach()
        # The estimate of a deviation from n values errs by 1 / sqrt(2 n); five of those.
        tolerance = 5 / math.sqrt(2 * weight.numel())
        assert weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=tolerance), name
        assert module.bias is not None
        assert module.bias.abs().max() == 0, name


class TestUNetKeepsItsPromises(ModelPromises):
    model_type = "unet"
    option_sets: ClassVar = [
        {"base_channels": 4, "depth": 2},
        {"base_channels": 4, "depth": 1, "norm": "weight"},
        {"base_channels": 4, "depth": 1, "norm": "batch", "padding": "same"},
        {"base_channels": 4, "depth": 1, "norm": "group", "upsampling": "bilinear"},
        {"base_channels": 4, "depth": 1, "norm": "weight", "upsampling": "bilinear", "padding": "same"},
        {"base_channels": 4, "depth": 1, "norm": "batch", "checkpoint_activations": True},
        {"base_channels": 4, "depth": 1, "stem_stride": 2},
        {"base_channels": 4, "depth": 1, "bottleneck_dilations": [1, 2], "norm": "weight"},
        {"base_channels": 4, "depth": 2, "blocks": "residual"},
        {"base_channels": 4, "depth": 1, "blocks": "residual", "norm": "weight", "padding": "same"},
        {"base_channels": 4, "depth": 1, "stem_stride": 4, "padding": "same", "upsampling": "bilinear"},
        {"base_channels": 4, "depth": 1, "stem_stride": 2, "head": "bilinear"},
        {"base_channels": 4, "depth": 2, "stem_stride": 4, "head": "bilinear", "padding": "same"},
    ]
    compiled_sets: ClassVar = [
        {"base_channels": 2, "depth": 1, "norm": "weight"},
        {"base_channels": 2, "depth": 1, "norm": "batch", "checkpoint_activations": True},
        {"base_channels": 2, "depth": 1, "stem_stride": 2},
    ]


def test_a_stem_stride_is_the_network_on_blocks_of_pixels() -> None:
    """Folding by hand around the network of stride 1 gives the same: block (i, j) holds pixels (2 i + a, 2 j + b)."""
    torch.manual_seed(0)
    model = UNet(3, 5, base_channels=4, depth=1, stem_stride=2).double()
    inner = UNet(3 * 4, 5 * 4, base_channels=4, depth=1).double()
    inner.load_state_dict(model.state_dict())
    image = torch.randn(1, 3, 44, 40, dtype=torch.float64)
    blocks = image.reshape(1, 3, 22, 2, 20, 2).permute(0, 1, 3, 5, 2, 4).reshape(1, 12, 22, 20)
    logits = inner(blocks)  # (1, 20, 6, 4)
    expected = logits.reshape(1, 5, 2, 2, 6, 4).permute(0, 1, 4, 2, 5, 3).reshape(1, 5, 12, 8)
    assert torch.equal(model(image), expected)


@torch.no_grad()
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_bilinear_head_interpolates_the_logits_of_blocks(padding: str) -> None:
    """Between the centres of two blocks, at pixels 1.5 and 5.5, a logit moves by a quarter of their difference for each pixel."""
    torch.manual_seed(0)
    model = UNet(3, 5, base_channels=4, depth=1, stem_stride=4, head="bilinear", padding=padding).double()
    side = model.window_sizes.round_up(model.window_sizes.minimum + 16)
    logits, first = model(torch.randn(1, 3, side, side, dtype=torch.float64)), 2 - model.head_px * (padding == "valid")
    assert logits.shape[-1] == side - 2 * model.window_sizes.margin
    steps = logits.diff(dim=3)[..., first : first + 3]  # between the centres of two blocks
    assert torch.allclose(steps, steps[..., :1].expand_as(steps), rtol=1e-9, atol=1e-12)
    assert logits.std() > 0.1
    with pytest.raises(ConfigError, match=r"Got head = .bilinear.\. Expected shuffle"):
        UNet(head="bilinear")


@pytest.mark.parametrize("stem_stride", [2, 4])
def test_the_pixels_of_a_block_start_alike_and_learn_apart(stem_stride: int) -> None:
    model = UNet(3, 5, base_channels=4, depth=1, stem_stride=stem_stride).double()
    side = model.window_sizes.round_up(model.window_sizes.minimum + 4 * stem_stride)
    logits = model(torch.randn(1, 3, side, side, dtype=torch.float64))
    blocks = logits.unflatten(3, (-1, stem_stride)).unflatten(2, (-1, stem_stride))  # (1, 5, h / s, s, w / s, s)
    assert torch.equal(blocks, blocks[:, :, :, :1, :, :1].expand_as(blocks))
    assert logits.std() > 0.1
    assert not torch.equal(logits[:, 0], logits[:, 1]), "classes start apart"
    (logits * torch.randn_like(logits)).sum().backward()
    gradient = model.classifier.weight.grad.unflatten(0, (5, -1))
    assert not torch.equal(gradient[:, 0], gradient[:, 1])


def test_a_folder_from_before_the_stem_stride_is_of_stride_1(tmp_path: Path) -> None:
    model = UNet(1, 2, base_channels=1, depth=1).eval()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("stem_stride") == 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    image = torch.randn(1, 1, 20, 20)
    assert torch.equal(UNet.from_pretrained(tmp_path)(image), model(image))


@pytest.mark.parametrize("norm", ["none", "weight", "batch", "group"])
def test_checkpointed_activations_change_nothing_but_memory(norm: str) -> None:
    torch.manual_seed(0)
    plain = UNet(3, 5, base_channels=4, depth=2, norm=norm, dropout=0.5).double()
    frugal = UNet(3, 5, base_channels=4, depth=2, norm=norm, dropout=0.5, checkpoint_activations=True).double()
    frugal.load_state_dict(plain.state_dict())
    image = torch.randn(2, 3, 48, 44, dtype=torch.float64)
    saved: dict[str, int] = {}
    for name, model in (("plain", plain), ("frugal", frugal)):
        torch.manual_seed(1)  # for the dropout
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logits = model(image)
            saved[name] = sum(sizes.values())
            logits.square().mean().backward()
    for (name, first), second in zip(plain.named_parameters(), frugal.parameters(), strict=True):
        assert torch.equal(first.grad, second.grad), name
    # The second computation must not count into the running statistics of a batch norm again.
    for (name, first), second in zip(plain.named_buffers(), frugal.buffers(), strict=True):
        assert torch.equal(first, second), name
    assert all(layer.track_running_stats for layer in frugal.modules() if isinstance(layer, nn.BatchNorm2d))
    assert saved["frugal"] < 0.5 * saved["plain"], saved


def test_batch_norm_made_synchronous_is_still_named() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(UNet(1, 2, base_channels=2, depth=1, norm="batch"))
    assert model.couples_batch.startswith("encoder.0.norm1 (SyncBatchNorm): ")
    assert model.locality is not None


@pytest.mark.parametrize("base_channels", [1, 3, 12, 48])
def test_group_norm_takes_every_width(base_channels: int) -> None:
    model = UNet(1, 2, base_channels=base_channels, depth=1, norm="group")
    assert model.locality_obstacle == (
        "encoder.0.norm1 (GroupNorm): its mean and variance are taken over all pixels of the window"
    )
    for layer in model.modules():
        if isinstance(layer, nn.GroupNorm):
            assert layer.num_channels % layer.num_groups == 0


def test_keys_on_disk_stay() -> None:
    """A change here makes every model folder in the world unreadable: then format_version must change, too."""
    with torch.device("meta"):
        keys = set(UNet(3, 5, base_channels=1, depth=1, norm="weight").state_dict())
    convolutions = [
        f"{block}.{conv}" for block in ("encoder.0", "bottleneck", "decoder.0") for conv in ("conv1", "conv2")
    ]
    expected = {f"{name}.{kind}" for name in [*convolutions, "upsample.0.conv"] for kind in ("weight", "bias", "gain")}
    assert keys == expected | {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "wieght"}, 'norm = "wieght". Did you mean "weight"? Valid: batch, group, none, weight. Change norm.'),
        ({"padding": "full"}, 'padding = "full". Valid: same, valid.'),
        ({"blocks": "dense"}, 'blocks = "dense". Valid: plain, residual.'),
        ({"upsampling": "nearest"}, 'upsampling = "nearest". Valid: bilinear, transposed.'),
        ({"stem_stride": 3}, "stem_stride = 3. Expected a power of two, such as 1 or 2. Change stem_stride."),
        ({"stem_stride": 0}, "stem_stride = 0. Expected a whole number of at least 1."),
        ({"depth": 0}, "depth = 0. Expected a whole number of at least 1."),
        ({"base_channels": 1.5}, "base_channels = 1.5. Expected a whole number"),
        ({"dropout": 1.0}, "dropout = 1.0. Expected a probability, 0 <= p < 1."),
        ({"mean": [1.0]}, "mean = [1.0]. Expected 3 numbers, one per input channel."),
        ({"std": [1.0, 1.0, 0.0]}, "std = [1.0, 1.0, 0.0]. Expected deviations above 0."),
        (
            {"num_classes": 3, "class_names": ["sky", "car", "car"]},
            'Expected names that differ, and not 2 times "car".',
        ),
        ({"class_names": ["sky"]}, "class_names = ['sky']. Expected 35 names, one per class."),
    ],
)
def test_refuses_options_with_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        UNet(**options)
    assert message in str(caught.value)
