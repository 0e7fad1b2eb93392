"""Proves what of the smp adapter is ours: names, refusals, dropout. The promises run where the library can be imported.

Beside a CPU build of torch its torchvision usually cannot. The small network that stands in for the library below has its
interface and nothing else, so the tests with it say nothing about the library's networks.
"""

from __future__ import annotations

import types
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from tests.models.promises import ModelPromises
from unet_dist.errors import CheckpointError, ConfigError, ExtraError
from unet_dist.models import smp
from unet_dist.models.registry import build_model


def reason_to_skip() -> str:
    """Why the library cannot be imported, empty where it can."""
    try:
        smp._library()
    except ExtraError as error:
        return str(error)
    return ""


MISSING = reason_to_skip()


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
class TestSmpKeepsItsPromises(ModelPromises):
    model_type = "smp"
    option_sets: ClassVar = [{"decoder": "Unet", "encoder": "resnet18"}, {"decoder": "FPN", "encoder": "resnet18"}]
    compiled_sets: ClassVar = option_sets[:1]


@pytest.mark.skipif(not MISSING, reason="the library is there")
def test_a_missing_library_is_a_sentence() -> None:
    with pytest.raises(
        ExtraError, match=r"model smp needs segmentation_models_pytorch, .*pip install 'unet_dist\[smp\]'"
    ):
        build_model("smp:Unet:resnet34")


class StandIn(nn.Module):
    """Takes what the library's networks take."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.drop = nn.Dropout2d(0.5)
        self.head = nn.Conv2d(4, classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.encoder(images)))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Put the stand-in in the library's place; the list of the requests to it."""
    calls: list[tuple[Any, ...]] = []

    def create_model(
        decoder: str, *, encoder_name: str, encoder_weights: Any, in_channels: int, classes: int
    ) -> StandIn:
        calls.append((decoder, encoder_name, encoder_weights, in_channels, classes))
        if encoder_weights == "none-such":
            raise KeyError("Wrong pretrained weights `none-such`")
        if encoder_weights == "unreachable":
            raise ConnectionError("no route")
        return StandIn(in_channels, classes)

    def get_preprocessing_params(encoder_name: str, pretrained: str) -> dict[str, Any]:
        space = "BGR" if encoder_name == "vgg" else "RGB"
        return {"input_space": space, "input_range": [0, 1], "mean": [0.5, 0.4, 0.2], "std": [0.2, 0.2, 0.4]}

    encoders = types.SimpleNamespace(
        get_encoder_names=lambda: ["resnet34", "vgg"], get_preprocessing_params=get_preprocessing_params
    )
    library = types.SimpleNamespace(
        create_model=create_model, encoders=encoders, MODEL_ARCHITECTURES_MAPPING={"unet": StandIn, "fpn": StandIn}
    )
    monkeypatch.setattr(smp, "_library", lambda: library)
    return calls


def test_a_name_says_decoder_encoder_and_weights(asked: list[tuple[Any, ...]]) -> None:
    model = build_model("smp:Unet:resnet34:imagenet", num_classes=5, mean=[1.0] * 3, std=[1.0] * 3)
    assert asked == [("Unet", "resnet34", None, 3, 5)], "the constructor never asks for weights: a folder has its own"
    assert model.mean == pytest.approx([127.5, 102, 51])
    assert model.std == pytest.approx([51, 51, 102])
    assert "imagenet weights of resnet34" in model.load_variant("Unet:resnet34:imagenet")
    assert asked[-1] == ("Unet", "resnet34", "imagenet", 3, 5)
    plain: Any = build_model("smp:fpn:tu-convnext_tiny", in_channels=1, num_classes=5, mean=[90.0], std=[40.0])
    assert (plain.mean, plain.decoder, plain.encoder) == ([90.0], "fpn", "tu-convnext_tiny")
    assert plain.load_variant("fpn:tu-convnext_tiny") is None


def test_dropout_of_the_library_is_off(asked: list[tuple[Any, ...]]) -> None:
    model = build_model("smp", num_classes=2)
    model.train()
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(images), model(images))
    assert model.locality is None
    assert model.locality_obstacle == "network (StandIn): how far its pixels see is not known here"


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("smp:Unet", ConfigError, r'got "smp:Unet", expected smp:DECODER:ENCODER'),
        ("smp:Unte:resnet34", ConfigError, r'the decoder "Unte"\. Did you mean "unet"'),
        ("smp:Unet:resnet43", ConfigError, r'the encoder "resnet43"\. Did you mean "resnet34"'),
        ("smp:Unet:vgg:imagenet", ConfigError, r"take BGR images, expected RGB"),
    ],
)
def test_unknown_names_are_answered(
    name: str, kind: type[Exception], message: str, asked: list[tuple[Any, ...]]
) -> None:
    with pytest.raises(kind, match=message):
        build_model(name)


def test_weights_that_cannot_be_had_are_a_sentence(asked: list[tuple[Any, ...]]) -> None:
    model = build_model("smp:Unet:resnet34")
    with pytest.raises(
        CheckpointError, match=r"unreachable weights of resnet34 cannot be had \(ConnectionError: no route\)"
    ):
        model.load_variant("Unet:resnet34:unreachable")
    with pytest.raises(ConfigError, match="cannot be built"):
        model.load_variant("Unet:resnet34:none-such")
