"""Proves that predicted memory is what torch holds, and that the tile chosen fits and wins."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.prediction.parts import build, make_tiles
from tests.prediction.test_exact import _Small
from unet_dist import UNet
from unet_dist.config.options import PredictOptions
from unet_dist.errors import ConfigError
from unet_dist.machine.memory import free_bytes
from unet_dist.models.alignment import AlignedClasses, align_names
from unet_dist.planner.simulation import SimulatedRun, prediction_peak
from unet_dist.prediction.tile_size import choose_tile_size
from unet_dist.prediction.values import Recipe
from unet_dist.tiling.geometry import smallest_tile_size

PLAIN = Recipe()


def choose(
    model: Any, *shapes: tuple[int, int], memory_bytes: int, window_batch: int = 2, recipe: Recipe = PLAIN
) -> int:
    like = model if isinstance(model, UNet) else build()
    return choose_tile_size(
        model,
        shapes,
        plan=make_tiles(like, recipe).plan,
        smallest=smallest_tile_size(like.window_sizes, like.locality),
        window_batch=window_batch,
        recipe=recipe,
        memory_bytes=memory_bytes,
    )


def test_the_tile_fits_the_memory_and_wins_in_time() -> None:
    model = build(dtype=torch.float32)
    setting = SimulatedRun(UNet, tuple({"num_classes": 5, "base_channels": 2, "depth": 2}.items()), device_type="cpu")
    sides = []
    for mib in (1, 3, 10, 1000):
        side = choose(model, (600, 900), memory_bytes=mib * 2**20)
        assert model.window_sizes.is_valid(side)
        window = make_tiles(model, Recipe()).plan((600, 900), side).window_shape
        assert prediction_peak(setting, 2, window).total_bytes <= mib * 2**20
        sides.append(side)
    assert sides == sorted(sides)
    assert sides[0] < sides[-1]
    assert choose(model, (600, 900), memory_bytes=2**40) <= 1000, "no larger than the image needs"


def test_too_little_memory_names_what_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"memory: got 1\.0 KiB, expected \d+\.\d MiB for 2 of the smallest windows"):
        choose(build(), (100, 100), memory_bytes=1000)


def test_the_probe_has_the_last_word() -> None:
    model = build(dtype=torch.float32)
    wished = choose(model, (600, 900), memory_bytes=2**30)
    model.register_forward_pre_hook(_Small(2 * 150 * 150))
    assert wished > 150 >= choose(model, (600, 900), memory_bytes=2**30)


def test_of_close_predictions_the_fastest_on_the_device_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is the test's: a pixel of the tiles that the planner likes best takes twice as long as of the others."""
    model, plan = build(dtype=torch.float32), make_tiles(build(), Recipe()).plan
    shape = (3000, 4000)
    liked = choose(model, shape, memory_bytes=2**24)
    tried = []

    def run(self: Any, pixels: torch.Tensor, halo: int) -> float:
        del self, halo
        side = pixels.shape[1]
        tried.append(side)
        return pixels[..., 0].numel() * (2.0 if side == plan(shape, liked).window_shape[0] else 1.0)

    monkeypatch.setattr("unet_dist.prediction.tile_size._Trial._run", run)
    chosen = choose(model, shape, memory_bytes=2**24)
    assert plan(shape, chosen).window_shape[0] in set(tried)
    assert 1 < len(set(tried)) <= 3
    assert chosen != liked


def test_flip_and_probabilities_need_more_memory() -> None:
    model = build(dtype=torch.float32, num_classes=50)
    plain, flipped = (
        choose(model, (2000, 2000), memory_bytes=2**24, recipe=recipe)
        for recipe in (Recipe(), Recipe(probabilities="float16", flip=True))
    )
    assert flipped < plain


def test_a_network_of_unknown_memory_wants_a_number() -> None:
    network = build(dtype=torch.float32)
    aligned = AlignedClasses(network, align_names(["a", "b"], ["b", "a"]), ["b", "a"], None)
    with pytest.raises(ConfigError, match="tile_size: got auto, expected a number for AlignedClasses"):
        choose(aligned, (100, 100), memory_bytes=2**30)


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
