"""Each operation does what its name says, at both ends of its strength; the draw is a function of (seed, sample) and the image."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiling.scenes import Scenes, build_model, build_shares, global_difference, gradient_of, relative_differences
from unet_dist.data.batches.colour import Colours, recolour
from unet_dist.data.batches.recipes import RECIPES
from unet_dist.data.batches.texture import blur, kernels_of
from unet_dist.data.batches.trivial import OPERATIONS, Operation, draw_operation, draw_operations, look_at
from unet_dist.imaging.reader import ArrayReader

SIDE = 40


@pytest.fixture
def image() -> np.ndarray:
    """Smooth, coloured and of low contrast: values of 60 to 180."""
    ramp = np.linspace(0, 1, SIDE)
    planes = [ramp[:, None] + 0 * ramp, ramp[None] * 0.5 + ramp[:, None] * 0.5, 1 - ramp[None] + 0 * ramp[:, None]]
    return np.rint(60 + 120 * np.stack(planes, axis=-1)).astype(np.uint8)


def applied(operation: Operation, image: np.ndarray) -> np.ndarray:
    """An image after an operation, as the device does it; the border is as wide as a blur reads."""
    windows = torch.from_numpy(image)[None]
    textures = kernels_of([operation.kernel])
    if not textures.margin:
        windows = windows[:, 2:-2, 2:-2]
    colours = Colours.of([operation.table], [operation.saturation], [operation.hue_deg])
    return recolour(blur(windows, textures), colours)[0].numpy().astype(int)


def changed(name: str, strength: float, image: np.ndarray) -> np.ndarray:
    return applied(OPERATIONS[name](strength, lambda: look_at(ArrayReader(image))), image)


@pytest.mark.parametrize("name", OPERATIONS)
def test_without_strength_nothing_changes_and_with_it_something_does(name: str, image: np.ndarray) -> None:
    inner = image[2:-2, 2:-2].astype(int)
    if name != "blur":  # its weakest is a blur of 0.2 px
        assert (changed(name, 0.0, image) == inner).all()
    noise = np.random.default_rng(0).integers(60, 181, image.shape, dtype=np.uint8)
    for strength in (-1.0, 1.0):
        assert (changed(name, strength, noise) != noise[2:-2, 2:-2]).any() == (name != "identity")


def test_light_and_contrast(image: np.ndarray) -> None:
    inner = image[2:-2, 2:-2].astype(int)
    assert np.abs(changed("brightness", -1.0, image) - 0.1 * inner).max() <= 0.5
    assert (changed("brightness", 1.0, image) == np.clip(np.rint(inner * 1.9), 0, 255)).all()
    seen = look_at(ArrayReader(image)).mean()
    assert changed("contrast", -1.0, image) == pytest.approx(seen + (inner - seen) * 0.1, abs=0.5)
    assert changed("gamma", 1.0, image) == pytest.approx(255 * (inner / 255) ** 2, abs=0.5)
    assert changed("gamma", -1.0, image) == pytest.approx(255 * (inner / 255) ** 0.5, abs=0.5)
    assert set(np.unique(changed("posterize", 1.0, image)) % 16) == {0}
    assert (changed("solarize", 1.0, image) == 255 - inner).all()
    half = changed("solarize", 0.5, image)
    assert (half == np.where(inner < 128, inner, 255 - inner)).all()


def test_histograms_are_spread_over_all_values_channel_by_channel(image: np.ndarray) -> None:
    image = image // np.array([1, 2, 3], dtype=np.uint8)
    for name in ("autocontrast", "equalize"):
        spread = changed(name, 1.0, image)
        assert spread.min((0, 1)).max() <= 15, name
        assert spread.max((0, 1)).min() >= 240, name
    flat = np.full_like(image, 90)
    for name in ("autocontrast", "equalize"):
        assert len(np.unique(changed(name, 1.0, flat))) == 1, "an image of one value stays one"
    # A quarter dark, the rest bright: three quarters of the pixels of an equalised image lie above a quarter of its values.
    skewed = image.copy()
    skewed[SIDE // 4 :] = np.clip(skewed[SIDE // 4 :] // 8 + 150, 0, 255)
    assert np.median(changed("equalize", 1.0, skewed)) == pytest.approx(127, abs=30)


def test_sharpness_goes_both_ways_and_stays_in_range() -> None:
    step = np.full((SIDE, SIDE, 3), 40, dtype=np.uint8)
    step[:, SIDE // 2 :] = 250
    row = {strength: changed("sharpness", strength, step)[5, :, 0] for strength in (-1.0, 1.0)}
    edge = SIDE // 2 - 2
    assert 40 < row[-1.0][edge - 1] < row[-1.0][edge] < 250
    assert row[1.0][edge - 1] < 40
    assert row[1.0][edge] == 255, "nothing wraps around"
    assert changed("sharpness", 1.0, step)[:, : edge - 2] == pytest.approx(40)
    blurred = changed("blur", 1.0, step)[5, :, 0]
    assert (np.diff(blurred) >= 0).all()


def test_all_operations_are_drawn_alike_by_seed_and_sample(image: np.ndarray) -> None:
    reader = ArrayReader(image)
    operations = {position: draw_operation(3, position, reader) for position in range(1200)}
    kinds = Counter(
        "texture" if one.kernel else "hue" if one.hue_deg else "saturation" if one.saturation != 1 else "table"
        for one in operations.values()
    )
    for kind, share in (("texture", 2), ("hue", 1), ("saturation", 1), ("table", 8)):
        assert kinds[kind] == pytest.approx(1200 * share / len(OPERATIONS), rel=0.3), kind
    colours, textures = draw_operations(3, [7, 5], [reader, reader])
    again = draw_operations(3, [5], [reader])[0]
    assert torch.equal(colours.rows[1, :256], again.rows[0, :256])
    assert textures.noisy == []
    assert not torch.equal(
        draw_operations(4, list(range(9)), [reader] * 9)[0].rows,
        draw_operations(3, list(range(9)), [reader] * 9)[0].rows,
    )


def test_an_image_is_looked_at_from_corner_to_corner_whatever_its_size() -> None:
    rows = np.arange(70, dtype=np.uint8)[:, None, None] + np.zeros((1, 90, 2), dtype=np.uint8)
    seen = look_at(ArrayReader(rows))
    assert seen.shape == (4096, 2)
    assert (seen.min(), seen.max()) == (0, 69)
    assert look_at(ArrayReader(rows[:5, :7])).shape == (16 * 35, 2)


def test_every_operation_is_exact_by_tiles() -> None:
    """Of 24 crops, which draw nearly all operations."""
    model = build_model()
    options: dict[str, Any] = {"input_size": 92, "batch_size": 24, "recipe": RECIPES["trivial"]}
    samples = Scenes([(70, 95), (31, 120), (64, 64)])
    whole, _ = gradient_of(model, build_shares(model, samples, tile_size=None, micro_batch_size=8, **options))
    tiled, _ = gradient_of(model, build_shares(model, samples, tile_size=60, micro_batch_size=5, **options))
    plain, _ = gradient_of(model, build_shares(model, samples, tile_size=None, **{**options, "recipe": None}))
    assert max(relative_differences(tiled, whole).values()) < 1e-10
    assert global_difference(plain, whole) > 1e-3
