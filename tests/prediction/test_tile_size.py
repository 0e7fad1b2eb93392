"""Proves that predicted memory is what torch holds, and that the tile chosen fits and wins."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch

from tests.prediction.parts import build, make_tiles
from tests.prediction.test_exact import _Small
from unet_dist.errors import ConfigError
from unet_dist.options import PredictOptions
from unet_dist.prediction.tile_size import choose_tile_size, free_bytes, predict_bytes
from unet_dist.prediction.values import Recipe
from unet_dist.tiling.geometry import smallest_tile_size


def choose(model: Any, *shapes: tuple[int, int], memory_bytes: int, window_batch: int = 2) -> int:
    return choose_tile_size(
        model,
        shapes,
        plan=make_tiles(model, Recipe()).plan,
        smallest=smallest_tile_size(model.window_sizes, model.locality),
        window_batch=window_batch,
        recipe=Recipe(),
        memory_bytes=memory_bytes,
    )


def test_predicted_bytes_are_those_of_the_network() -> None:
    """By hand: the most at once is where the decoder's last block runs, or the encoder's first."""
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1)).to("meta")
    model.in_channels, model.ignore_index = 1, None  # type: ignore[assignment]
    plane = 10 * 10 * 4
    # Within the sequence its input is still held by the caller: 1 + 8 + 8 planes at the ReLU.
    assert predict_bytes(model, 10, 1, Recipe()) == 17 * plane
    assert predict_bytes(model, 10, 3, Recipe()) == 3 * 17 * plane
    gc.collect()


def test_the_tile_fits_the_memory_and_wins_in_time() -> None:
    model = build(dtype=torch.float32)
    shadow = build(dtype=torch.float32).to("meta")
    sides = []
    for mib in (1, 3, 10, 1000):
        side = choose(model, (600, 900), memory_bytes=mib * 2**20)
        assert model.window_sizes.is_valid(side)
        assert predict_bytes(shadow, side, 2, Recipe()) <= mib * 2**20
        sides.append(side)
    assert sides == sorted(sides)
    assert sides[0] < sides[-1]
    assert choose(model, (600, 900), memory_bytes=2**40) <= 1000, "no larger than the image needs"


def test_too_little_memory_names_what_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"memory: got 0\.00 GiB, expected 0\.\d+ GiB for 2 of the smallest windows"):
        choose(build(), (100, 100), memory_bytes=1000)


def test_the_probe_has_the_last_word() -> None:
    model = build(dtype=torch.float32)
    wished = choose(model, (600, 900), memory_bytes=2**30)
    model.register_forward_pre_hook(_Small(2 * 150 * 150))
    assert wished > 150 >= choose(model, (600, 900), memory_bytes=2**30)


def test_free_memory_is_shared_by_the_processes_of_a_host() -> None:
    one, four = (free_bytes(torch.device("cpu"), count) for count in (1, 4))
    assert 2**20 < four < one < 2**50


def test_memory_is_said_with_a_unit() -> None:
    assert PredictOptions(tile_size="auto", memory="1.5GiB").memory_bytes() == 3 * 2**29
    assert PredictOptions(tile_size="auto", memory="900 MB").memory_bytes() == 900_000_000
    with pytest.raises(ConfigError, match="memory: got much, expected a number and a unit"):
        PredictOptions(tile_size="auto", memory="much")
    with pytest.raises(ConfigError, match="memory: got 1GiB, expected --tile_size auto with it"):
        PredictOptions(memory="1GiB")


def test_values_have_a_range_of_two_numbers() -> None:
    assert PredictOptions(value_range="0,4095").value_limits() == (0.0, 4095.0)
    assert PredictOptions(value_range="-1 1").value_limits() == (-1.0, 1.0)
    for text in ("4095", "5,1", "a,b"):
        with pytest.raises(ConfigError, match="value_range"):
            PredictOptions(value_range=text)
