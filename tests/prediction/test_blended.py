"""Proves that blended tiles are one weighted mean over the whole image, whichever tile a pixel is computed in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.prediction.parts import build, draw, make_tiles
from tests.prediction.test_exact import compute
from unet_dist.errors import ConfigError, SizeError
from unet_dist.imaging.reader import ArrayReader, read_window
from unet_dist.prediction.values import Recipe
from unet_dist.tiling.windows import normalise

PROBABILITIES = Recipe(probabilities="float16")


def blend_whole(model: Any, image: np.ndarray, side: int, step: int, *, flip: bool) -> np.ndarray:
    """Blend windows over the whole image at once, by the book."""
    margin = model.window_sizes.margin
    height, width = image.shape[:2]
    total, weights = np.zeros((model.num_classes, height, width)), np.zeros((height, width))
    at = np.arange(2 * step) - (2 * step - 1) / 2
    line = np.exp(-0.5 * (at / (2 * step / 8)) ** 2)
    for row in range(-step, height, step):
        for col in range(-step, width, step):
            window = read_window(ArrayReader(image), row - margin, col - margin, side, side)
            with torch.inference_mode():
                shares = forward(model, window)
                if flip:
                    shares = (shares + forward(model, window[:, ::-1].copy())[..., ::-1]) / 2
            rows, cols = (
                np.arange(max(origin, 0), min(origin + 2 * step, size))
                for origin, size in ((row, height), (col, width))
            )
            weight = line[rows - row][:, None] * line[cols - col]
            total[:, rows[:, None], cols] += shares[:, (rows - row)[:, None], cols - col] * weight
            weights[rows[:, None], cols] += weight
    return total / weights


def forward(model: Any, window: np.ndarray) -> np.ndarray:
    pixels = torch.from_numpy(np.ascontiguousarray(window))[None]
    return model(normalise(pixels, model.mean, model.std, torch.float64))[0].softmax(0).numpy()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("options", "side", "step"), [({"padding": "same"}, 32, 16), ({}, 60, 8)], ids=["same", "valid"]
)
def test_tiles_equal_the_blend_of_the_whole_image(options: dict[str, Any], side: int, step: int, flip: bool) -> None:
    model, image = build(norm="group", **options), draw(37, 70)
    recipe = Recipe(probabilities="float16", flip=flip)
    tiles = make_tiles(model, recipe, blend=True)
    assert len(tiles.plan((37, 70), side)) > 1
    expected = blend_whole(model, image, side, step, flip=flip)
    rasters = compute(model, image, recipe, side, tiles=tiles)
    np.testing.assert_allclose(rasters["probabilities"], expected, rtol=1e-3, atol=1e-7)
    np.testing.assert_array_equal(rasters["labels"], expected.argmax(axis=0))


def test_an_image_smaller_than_a_window() -> None:
    model, image = build(norm="group"), draw(5, 3)
    assert compute(model, image, PROBABILITIES, 60, tiles=make_tiles(model, PROBABILITIES, blend=True))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="skip_background"):
        make_tiles(build(norm="group"), Recipe(skip_background=True), blend=True)
    with pytest.raises(SizeError, match="tile_size"):
        make_tiles(build(norm="group"), Recipe(), blend=True).plan((50, 50), 61)
