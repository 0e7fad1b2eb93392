"""Proves that models are found by name and that a wrong name or option is answered with the right one."""

from __future__ import annotations

import pytest

from unet_dist.config.models import MODELS
from unet_dist.errors import ConfigError
from unet_dist.models.registry import build_model, own_models
from unet_dist.models.unet import UNet


def test_builds_by_name() -> None:
    model = build_model("unet", in_channels=1, num_classes=2, base_channels=2, depth=1)
    assert type(model) is UNet
    assert (model.in_channels, model.num_classes, model.base_channels, model.depth) == (1, 2, 2, 1)
    assert [kind.model_type for kind in own_models()] == list(MODELS.own)


def test_suggests_the_model_that_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"got 'u-net', expected one that exists, .*Did you mean \"unet\"\?"):
        build_model("u-net")


def test_suggests_the_option_that_was_meant() -> None:
    with pytest.raises(
        ConfigError, match=r'Got the option "base_chanels" for model "unet"\. Did you mean "base_channels"'
    ):
        build_model("unet", base_chanels=8)
