"""Proves that CutMix and ClassMix show what they say, in pixels and labels alike, however a crop is cut and shared out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.data.batches.test_borders import Cells
from tests.tiling.scenes import Scenes, build_model, build_shares, gradient_of
from unet_dist.assembly.training import _mixing_of
from unet_dist.config.sections import Config
from unet_dist.data.batches.borders import BorderWeights
from unet_dist.data.batches.mixing import Mixing
from unet_dist.data.batches.recipes import RECIPES
from unet_dist.data.batches.shares import RunShares
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.errors import ConfigError

SHAPES = [(70, 95), (31, 120), (64, 64), (150, 140)]
CPU = torch.device("cpu")
BOTH = Mixing(cutmix=0.4, classmix=0.5)
STEPS = range(1, 7)


def shares_of(tile_size: int | None, *, micro_batch_size: int = 2, kept_px: int = 10**9, **options: Any) -> RunShares:
    samples = options.pop("samples", None) or Scenes(SHAPES)
    cut: dict[str, Any] = {"input_size": 92, "tile_size": tile_size, "batch_size": 3, "kept_px": kept_px}
    return build_shares(build_model(), samples, micro_batch_size=micro_batch_size, **cut, **options)


def outputs_of(shares: RunShares, step: int) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """By position what the crops of a step show at their outputs, (h, w, C), and their labels, put together from tiles."""
    halo, side = shares.planner.halo, 92 - 2 * shares.planner.halo
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    plans = {draw.draw.position: draw for batch in shares.plan(step).batches for draw in batch}
    places = [place for batch in shares.plan(step).batches for place in batch]
    windows = [
        pair
        for batch in shares[step].batches
        for pair in zip(batch.on(CPU).windows.numpy(), batch.labels.numpy(), strict=True)
    ]
    assert len(plans) == 3
    for place, (window, labels) in zip(places, windows, strict=True):
        channels = window.shape[2]
        image, label = found.setdefault(
            place.draw.position, (np.zeros((side, side, channels), np.uint8), np.full((side, side), 77, np.uint8))
        )
        row, col, height, width = place.tile
        image[row : row + height, col : col + width] = window[halo : halo + height, halo : halo + width]
        label[row : row + height, col : col + width] = labels[:height, :width]
    return found


@pytest.mark.parametrize("recipe", [None, "colour", "street", "strong"])
def test_tiles_of_a_crop_show_one_mixture(recipe: str | None) -> None:
    options: dict[str, Any] = {"mixing": BOTH, "recipe": RECIPES.get(recipe or "")}
    whole, tiled = shares_of(None, **options), shares_of(60, **options)
    for step in STEPS:
        expected = outputs_of(whole, step)
        for position, (image, label) in outputs_of(tiled, step).items():
            np.testing.assert_array_equal(image, expected[position][0])
            np.testing.assert_array_equal(label, expected[position][1])


def test_pixels_and_labels_come_from_one_of_two_crops() -> None:
    mixed, alone = shares_of(None, mixing=BOTH), shares_of(None)
    num_seen = {"cutmix": 0, "classmix": 0, "alone": 0}
    for step in STEPS:
        crops, plain = outputs_of(mixed, step), outputs_of(alone, step)
        for position, (image, label) in crops.items():
            cover = BOTH.draw(7, position, len(SHAPES))
            if cover is None:
                np.testing.assert_array_equal(image, plain[position][0])
                num_seen["alone"] += 1
                continue
            halo = mixed.planner.halo
            window, other_label = alone.crops.read(cover.draw)
            other = window[halo:-halo, halo:-halo]
            if cover.box is not None:
                num_seen["cutmix"] += 1
                top, left, bottom, right = (round(part * len(label)) for part in cover.box)
                mask = np.zeros(label.shape, bool)
                mask[top:bottom, left:right] = True
            else:
                num_seen["classmix"] += 1
                assert cover.classes is not None
                mask = np.isin(other_label, np.flatnonzero(cover.classes))
                assert not mask[other_label == IGNORED].any()
            np.testing.assert_array_equal(image, np.where(mask[..., None], other, plain[position][0]))
            np.testing.assert_array_equal(label, np.where(mask, other_label, plain[position][1]))
    assert min(num_seen.values()) >= 1, num_seen


def test_the_shares_are_those_asked_for() -> None:
    covers = [Mixing(0.2, 0.3).draw(0, position, 5) for position in range(4000)]
    boxes = [cover.box for cover in covers if cover is not None and cover.box is not None]
    classes = [cover.classes for cover in covers if cover is not None and cover.classes is not None]
    assert len(boxes) / 4000 == pytest.approx(0.2, abs=0.03)
    assert len(classes) / 4000 == pytest.approx(0.3, abs=0.03)
    # A side s = sqrt(u) about a middle drawn evenly is s - s^2 / 4 long on average once it is cut at the borders.
    areas = [(bottom - top) * (right - left) for top, left, bottom, right in boxes]
    u = (np.arange(100_000) + 0.5) / 100_000
    assert np.mean(areas) == pytest.approx(np.mean(u * (1 - np.sqrt(u) / 4) ** 2), abs=0.02)
    assert np.mean([chosen[:IGNORED].mean() for chosen in classes]) == pytest.approx(0.5, abs=0.01)
    assert not any(chosen[IGNORED] for chosen in classes)
    assert {cover.draw.index for cover in covers if cover is not None} == set(range(5))


def test_a_share_that_is_not_held_counts_and_shows_the_same() -> None:
    options: dict[str, Any] = {"samples": Cells(SHAPES), "borders": BorderWeights(0), "mixing": BOTH}
    kept, large = shares_of(60, **options), shares_of(60, kept_px=0, **options)
    for step in STEPS:
        one, other = kept[step], large[step]
        assert torch.equal(one.counts.pixels, other.counts.pixels)
        assert one.counts.border == other.counts.border > 0
        for batch, again in zip(one.batches, other.batches, strict=True):
            assert torch.equal(batch.on(CPU).windows, again.on(CPU).windows)
            assert torch.equal(batch.labels, again.labels)
            assert batch.borders is not None
            assert again.borders is not None
            assert torch.equal(batch.borders, again.borders)


def test_gradients_do_not_depend_on_the_micro_batch() -> None:
    model = build_model()
    gradients = [gradient_of(model, shares_of(60, micro_batch_size=size, mixing=BOTH), step=2)[0] for size in (1, 2, 3)]
    for other in gradients[1:]:
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-9, atol=1e-12)


def test_sixteen_bits_are_pasted() -> None:
    samples = Scenes(SHAPES)
    shares = shares_of(60, samples=samples, mixing=BOTH)
    expected = [batch.on(CPU).windows for batch in shares[1].batches]
    samples.images = [image.astype(np.uint16) * 257 for image in samples.images]
    for batch, window in zip(shares[1].batches, expected, strict=True):
        wide = batch.on(CPU).windows
        assert wide.dtype == torch.uint16
        np.testing.assert_array_equal(wide.numpy(), window.numpy().astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"cutmix": 0.7, "classmix": 0.5}, "expected shares of 1 in all"),
        ({"classmix": 0.5, "input_size": "full"}, "classmix: got 0.5 together with input_size full"),
    ],
)
def test_what_cannot_be_mixed_is_refused(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        _mixing_of(Config.from_flat(given))
