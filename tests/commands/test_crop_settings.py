"""Proves that settings of crops, tiles and split samples are judged before any data is read, each refusal a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from unet_dist.assembly.given import Given
from unet_dist.assembly.network import build_skeleton
from unet_dist.assembly.sizes import resolve_tile_size, settle_crops
from unet_dist.assembly.training import lay_out
from unet_dist.config.sections import Config
from unet_dist.errors import ConfigError, LocalityError, SizeError
from unet_dist.terminal import Teller


def planned(**keys: Any) -> Any:
    """The planner of a config, and the side of its windows."""
    config = Config.from_flat({"base_channels": 1, **keys})
    skeleton = build_skeleton(config)
    crops = settle_crops(config, skeleton, 1, Teller(speaks=False))
    return crops.planner, crops.side


def test_a_crop_larger_than_the_tile_is_cut() -> None:
    planner, side = planned(input_size=2108, tile_size=572)
    assert (planner.tile_size, side) == (572, 2108)
    assert planner.plan((1924, 1924)).grid == (5, 5)


def test_without_tile_size_crops_are_undivided() -> None:
    planner, _ = planned(input_size=1100)
    assert len(planner.plan((916, 916))) == 1
    planner, side = planned(input_size="full")
    assert side is None
    assert planner.plan((1080, 1920)).window_shape == (1276, 2108)


def test_a_tile_larger_than_the_crop_serves_the_validation_only() -> None:
    """So batch norm, which tiles in training would break, is no obstacle."""
    planner, _ = planned(input_size=572, tile_size=1100, norm="batch")
    assert len(planner.plan((388, 388))) == 1


def test_context_px_says_what_of_a_window_counts() -> None:
    """Of an encoder with a halo of 49 px: the whole crop, all but 20 px per side, or the exact part, which is the default."""
    keys = {"model": "encoder_unet", "depth": 3, "padding": "same", "input_size": 160}
    for context_px, halo in ((0, 0), (20, 20), (None, 56)):
        planner, side = planned(**keys, context_px=context_px)
        assert (planner.halo, side) == (halo, 160)
        assert planner.plan((160 - 2 * halo,) * 2).window_shape == (160, 160)
        assert planner.smallest_side == 2 * halo + 8


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({}, "context_px: got 10, expected 92 or more: .* Set --padding same"),
        ({"padding": "same", "tile_size": 320}, "context_px: got 10 together with tiles, .*halo of 96 px"),
        ({"padding": "same", "input_size": 32}, "input_size: got 32, expected 48 or more"),
    ],
)
def test_context_that_cannot_be_is_refused(keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SizeError, match=f"^{sentence}"):
        planned(**{"input_size": 640, **keys}, context_px=10)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"norm": "batch", "input_size": 1100, "tile_size": 572}, "tile_size 572 below input_size 1100, .*BatchNorm2d"),
        ({"norm": "group", "input_size": 1100, "tile_size": 572}, "tile_size 572 below input_size 1100, .*GroupNorm"),
        ({"norm": "group", "input_size": "full", "tile_size": 572}, "tile_size 572 below input_size full, .*GroupNorm"),
        ({"norm": "batch", "split_sample": True}, "split_sample true, .*BatchNorm2d"),
        ({"norm": "batch", "input_size": "full"}, "input_size full, .*BatchNorm2d"),
    ],
)
def test_what_couples_pixels_or_samples_is_refused(keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LocalityError, match=f"^Got {sentence}.*Set --norm weight or none, or take the setting back"):
        planned(**keys)


@pytest.mark.parametrize(
    ("keys", "setting"),
    [
        ({"input_size": 1100, "tile_size": 572}, "tile_size"),
        ({"input_size": "full", "tile_size": 572}, "tile_size"),
        ({"split_sample": True}, "split_sample"),
    ],
)
def test_a_loss_that_sees_an_image_as_a_whole_is_refused(keys: dict[str, Any], setting: str) -> None:
    config = Config.from_flat({"base_channels": 1, "loss": "cross_entropy+lovasz", **keys})
    sentence = rf"^loss: got lovasz, .* together with {setting}\. .* set --loss cross_entropy\+dice, which is exact by tiles\.$"
    with pytest.raises(ConfigError, match=sentence):
        lay_out(config, Given(), 1, Teller(speaks=False))
    lay_out(config.replace(loss="cross_entropy+dice"), Given(), 1, Teller(speaks=False))


def test_a_tile_size_is_strict() -> None:
    with pytest.raises(SizeError, match=r"^Got tile_size = 570\. .* Set tile_size to 556 or 572\.$"):
        planned(input_size=1100, tile_size=570)
    with pytest.raises(SizeError, match=r"^tile_size: got 188, expected 204 or more .* Set --tile_size 204\.$"):
        planned(input_size=1100, tile_size=188)


@pytest.mark.parametrize(
    ("keys", "side"),
    [
        ({"input_size": "full"}, 572),
        ({"input_size": 252}, 572),  # 572 computes a third of the pixels that 252 does
        ({"input_size": 1100}, 1100),
        ({"input_size": 2108, "tile_size": 556}, 556),
        ({"input_size": 250, "norm": "group"}, 252),
        ({"input_size": "full", "norm": "group"}, 572),
    ],
)
def test_window_of_a_validation_and_a_prediction(keys: dict[str, Any], side: int) -> None:
    config = Config.from_flat({"base_channels": 1, **keys})
    skeleton = build_skeleton(config)
    assert resolve_tile_size(None, skeleton, config) == side
    assert resolve_tile_size(204, skeleton, config) == 204
    assert resolve_tile_size(None, skeleton, None) == 572
