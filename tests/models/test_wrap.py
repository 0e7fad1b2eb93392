"""Proves that a plain nn.Module is measured right, is refused exactness where none is proven, and is kept as a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet_dist.errors import CheckpointError, ConfigError
from unet_dist.models.registry import build_model, find_model, load_model
from unet_dist.models.unet import UNet
from unet_dist.models.wrap import Wrapped, wrap
from unet_dist.tiling.geometry import Locality, WindowSizes

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, in_channels, num_classes, width):
        super().__init__()
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.last = nn.Conv2d(width, num_classes, 1)
    def forward(self, images):
        return self.last(self.first(images).relu())

def make(in_channels, num_classes, width=4):
    return Net(in_channels, num_classes, width)
"""


class Plain(nn.Module):
    """A network that says nothing of itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


class Made(nn.Module):
    """A network out of a function."""

    def __init__(self, work: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.work = work

    def forward(self, images: Tensor) -> Tensor:
        return self.work(self, images)


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "their_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_nets", raising=False)
    return "their_nets:make(width=3)"


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 1},
        {"depth": 2, "norm": "batch"},
        {"depth": 3, "padding": "same"},
        {"depth": 2, "padding": "same", "upsampling": "bilinear"},
        {"depth": 1, "stem_stride": 2},
        {"depth": 4},
    ],
    ids=str,
)
def test_what_is_measured_is_what_the_architecture_says(options: dict[str, Any]) -> None:
    """Locality by walking the architecture (models/receptive_field.py) and by measuring are two ways to one answer."""
    network = UNet(3, 4, base_channels=2, **options)
    wrapped = wrap(Plain(network), in_channels=3, num_classes=4)
    assert wrapped.window_sizes == network.window_sizes
    assert wrapped.locality == network.locality is not None
    assert (wrapped.couples_batch is None) == (network.couples_batch is None)


@pytest.mark.parametrize(
    ("network", "margin", "locality"),
    [
        (nn.Conv2d(3, 4, 3), 1, Locality(1, 1)),
        (nn.Conv2d(3, 4, 1), 0, Locality(0, 1)),
        (nn.Conv2d(3, 4, 3, dilation=5, padding=5), 0, Locality(5, 1)),
    ],
    ids=str,
)
def test_by_hand(network: nn.Module, margin: int, locality: Locality) -> None:
    wrapped = wrap(network, in_channels=3, num_classes=4)
    assert wrapped.window_sizes == WindowSizes(stride=1, remainder=0, minimum=2 * margin + 1, margin=margin)
    assert wrapped.locality == locality


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        (lambda net, x: net.conv(x) - net.conv(x).mean((2, 3), keepdim=True), "512 px away"),
        (lambda net, x: net.conv(x) + F.adaptive_max_pool2d(net.conv(x), 1), "512 px away"),
        (lambda net, x: net.conv(x) * torch.where(x.mean((1, 2, 3), keepdim=True) > 0, 1.0, 2.0), "512 px away|differ"),
        (lambda net, x: net.conv(x) + torch.linspace(0, 1, x.shape[2])[:, None], "differ from those on the whole image"),
        (lambda net, x: F.interpolate(net.conv(x)[:, :, ::2, ::2], size=x.shape[2:], mode="bilinear", align_corners=True),
         "differ from those on the whole image|512 px away"),
        (lambda net, x: net.conv(x) * 0, "512 px|differ"),
    ],
    ids=["mean", "maximum", "where", "coordinates", "aligned corners", "constant"],
)  # fmt: skip
def test_exactness_is_refused_where_it_is_not_proven(work: Any, sentence: str) -> None:
    wrapped = wrap(Made(work), in_channels=3, num_classes=4)
    assert wrapped.locality is None
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(wrapped.locality_obstacle)


def test_a_layer_that_starts_at_zero_hides_nothing() -> None:
    """A pooled branch times 0 leaves no trace in the values; it will, once it has learnt."""
    network = Made(
        lambda net, x: net.conv(x) + net.gain * F.interpolate(F.avg_pool2d(net.conv(x), 4), scale_factor=4.0)
    )
    network.gain = nn.Parameter(torch.zeros(1, 4, 1, 1))
    found = wrap(network, in_channels=3, num_classes=4)
    assert found.locality is not None
    assert found.locality.stride == 4
    assert torch.equal(network.gain, torch.zeros(1, 4, 1, 1)), "measured on a copy"


def test_what_couples_a_batch_is_named() -> None:
    named = wrap(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout2d(0.5)), in_channels=3, num_classes=4).couples_batch
    assert named is not None
    assert named.startswith("1 (Dropout2d): in training its mask is drawn anew")
    seen = wrap(Made(lambda net, x: net.conv(x) - net.conv(x).mean(0) * net.training), in_channels=3, num_classes=4)
    assert seen.couples_batch is not None
    assert "were seen to depend on the others of its batch" in seen.couples_batch


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        (lambda net, x: {"out": net.conv(x)}, r"Made gave a dict for images \(1, 3, 128, 128\), expected one tensor"),
        (lambda net, x: net.conv(x)[:, :2], r"gave \(1, 2, 128, 128\).*\(1, 4, height, width\)"),
        (lambda net, x: net.conv(x)[:, :, ::4, ::4], r"logits of 32x32 px for an image of 128x128.*Scale them up"),
        (lambda net, x: net.conv(x[:, :2]), r"took no square image of 128 to 256 px \(the last time: .*3 channels"),
    ],
    ids=["mapping", "classes", "stride", "channels"],
)
def test_what_is_no_segmentation_network_is_answered(work: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        wrap(Made(work), in_channels=3, num_classes=4)


def test_a_word_makes_it_and_leaves_the_generator_alone(theirs: str) -> None:
    assert find_model("their_nets:make( width = 3)") == (Wrapped, theirs)
    torch.manual_seed(0)
    expected = torch.nn.Conv2d(3, 3, 3, padding=1).weight
    torch.manual_seed(0)
    model = build_model(theirs, in_channels=3, num_classes=2)
    assert isinstance(model, Wrapped)
    assert torch.equal(model.network.get_submodule("first").weight, expected)
    with torch.device("meta"):
        skeleton = build_model(theirs, in_channels=1, num_classes=2)
    assert next(skeleton.parameters()).is_meta
    assert skeleton.locality == model.locality == Locality(1, 1)


def test_a_folder_imports_nothing_unless_its_package_is_trusted(theirs: str, tmp_path: Path) -> None:
    model = build_model(theirs, in_channels=3, num_classes=2, class_names=["a", "b"], mean=[1.0, 2.0, 3.0])
    model.save_pretrained(tmp_path / "folder")
    said = json.loads((tmp_path / "folder/config.json").read_text())
    assert (said["model_type"], said["source"]) == ("wrapped", theirs)
    del sys.modules["their_nets"]
    for load in (load_model, Wrapped.from_pretrained):
        with pytest.raises(CheckpointError, match=r"config\.json needs their_nets:make, .* --trust their_nets "):
            load(tmp_path / "folder")
        assert "their_nets" not in sys.modules
    loaded = load_model(tmp_path / "folder", trust=["their_nets"])
    assert loaded.config() == model.config()
    image = torch.rand(1, 3, 20, 20)
    assert torch.equal(loaded(image), model.eval()(image))


def test_a_network_given_as_an_object_is_loaded_into_one(tmp_path: Path) -> None:
    model = wrap(nn.Conv2d(3, 2, 3), in_channels=3, num_classes=2).eval()
    model.save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"given as an object.*Wrapped\.from_pretrained\(folder, network=\.\.\.\)"
    ):
        load_model(tmp_path)
    loaded = Wrapped.from_pretrained(tmp_path, network=nn.Conv2d(3, 2, 3))
    image = torch.rand(1, 3, 9, 9)
    assert torch.equal(loaded(image), model(image))
