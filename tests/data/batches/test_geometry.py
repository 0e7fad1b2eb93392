"""Geometry on the device is a function of (seed, sample) alone: the same bytes however a run is cut, and it does what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.tiling.scenes import Scenes, build_model, build_shares, global_difference, gradient_of, relative_differences
from unet_dist.data.batches.crops import Crop
from unet_dist.data.batches.geometry import Geometry, Warp, draw_warp, look_up, read_labels, read_sources
from unet_dist.data.batches.recipes import RECIPES, Recipe
from unet_dist.data.batches.sampler import Draw
from unet_dist.data.batches.shares import RunShares
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.imaging.reader import ArrayReader, read_window

SHAPE = (36, 48)
ALL = Geometry(scale=(0.3, 2.0), rotation_deg=(-180.0, 180.0), displacement_px=8.0)
CPU = torch.device("cpu")


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)


def draw(number: int, geometry: Geometry = ALL, **options: Any) -> Warp:
    options = {"image_shape": SHAPE, "output_shape": (40, 30), "halo": 20, "mirrors": True, **options}
    return draw_warp(geometry, np.random.default_rng(number), **options)


def window_of(warp: Warp, image: np.ndarray, *rectangle: int, dtype: torch.dtype = torch.uint8) -> np.ndarray:
    pixels, sources = read_sources([ArrayReader(image)], [warp.places(*rectangle)])
    return look_up(pixels.to(dtype), sources)[0].numpy()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32])
def test_windows_are_the_mirrored_image_interpolated(image: np.ndarray, dtype: Any) -> None:
    """Against an interpolation written down anew, pixel by pixel, in float64; and a part of it is that part of the whole."""

    def value(row: np.ndarray, col: np.ndarray) -> np.ndarray:
        period = 2 * (np.array(SHAPE) - 1)
        phases = row % period[0], col % period[1]
        row, col = (np.minimum(phase, turn - phase) for phase, turn in zip(phases, period, strict=True))
        return image[row, col].astype(float)

    for number in range(60):
        warp = draw(number)
        places = warp.places(-20, -20, 80, 70)
        at = np.floor((places.rows @ places.cols) / 2**13) / 128
        row, col = np.floor(at).astype(int)
        down, right = (at - np.floor(at))[..., None]
        above = value(row, col) * (1 - right) + value(row, col + 1) * right
        below = value(row + 1, col) * (1 - right) + value(row + 1, col + 1) * right
        expected = above * (1 - down) + below * down
        whole = window_of(warp, image, -20, -20, 80, 70, dtype=dtype)
        if dtype != torch.float32:
            np.testing.assert_array_equal(whole, np.floor(expected + 0.5))
        else:
            np.testing.assert_allclose(whole, expected, rtol=1e-6)
        np.testing.assert_array_equal(window_of(warp, image, -5, 3, 31, 17, dtype=dtype), whole[15:46, 23:40])


def test_windows_of_16_bits_use_all_of_them(image: np.ndarray) -> None:
    """torch looks nothing up in uint16: beyond 32,767 its bits are those of negative numbers."""
    deep = image.astype(np.uint16) * 257
    for number in range(5):
        warp = draw(number)
        expected = window_of(warp, image, -20, -20, 80, 70, dtype=torch.float32).astype(np.float64) * 257
        window = window_of(warp, deep, -20, -20, 80, 70, dtype=torch.uint16)
        assert window.dtype == np.uint16
        assert expected.max() > 2**15
        assert np.abs(window - expected).max() <= 1


def test_without_a_change_a_window_is_what_a_prediction_reads(image: np.ndarray) -> None:
    for number in range(10):
        warp = draw(number, Geometry(), mirrors=number % 2 == 1, output_shape=(20, 30))
        row, col = (round(centre - middle) for centre, middle in zip(warp.centre, warp.middle, strict=True))
        assert 0 <= row <= 16
        assert 0 <= col <= 18
        window = window_of(warp, image, -20, -20, 60, 70)
        expected = read_window(ArrayReader(image), row - 20, col - 20, 60, 70)
        is_mirrored = warp.matrix[1, 1] < 0
        np.testing.assert_array_equal(window, expected[:, ::-1] if is_mirrored else expected)


def test_scale_is_about_the_middle_and_stays_inside_where_it_can(image: np.ndarray) -> None:
    shares = []
    for scale in (0.4, 1.0, 1.8):
        shown = np.zeros(SHAPE, dtype=bool)
        ignored = []
        for number in range(300):
            warp = draw(number, Geometry(scale=(scale, scale)), output_shape=(24, 24))
            places = warp.places(0, 0, 24, 24)
            ignored.append((read_labels(places, np.zeros(SHAPE, np.uint8)) == IGNORED).mean())
            inside = places.nearest().reshape(2, -1)
            inside = inside[:, ((inside >= 0) & (inside < np.array(SHAPE)[:, None])).all(0)]
            shown[tuple(inside)] = True
            assert np.hypot(*warp.matrix[:, 0]) == pytest.approx(1 / scale)
        shares.append(np.mean(ignored))
        assert shown.mean() > 0.95, "also the corners"
    assert shares[1] == shares[2] == 0
    assert shares[0] == pytest.approx(1 - 36 * 48 / 60**2, abs=0.03), "a crop as large as 60x60 px covers the image"


def test_labels_are_the_nearest_and_end_with_the_image(image: np.ndarray) -> None:
    labels = image[:, :, 0] % 7
    for number in range(30):
        places = draw(number).places(0, 0, 40, 30)
        nearest = np.rint((places.rows @ places.cols) / 2**20).astype(int)
        is_inside = ((nearest >= 0) & (nearest < np.array(SHAPE)[:, None, None])).all(0)
        got = read_labels(places, labels)
        assert ((got != IGNORED) == is_inside).mean() > 0.999, "halves are rounded otherwise"
        both = is_inside & (got != IGNORED)
        assert (got[both] == labels[nearest[0][both], nearest[1][both]]).mean() > 0.999
        assert got.dtype == np.uint8
    far = draw(0).places(10_000, 0, 4, 4)
    assert (read_labels(far, labels) == IGNORED).all()


def test_a_class_is_centred_as_near_as_the_border_lets_it(image: np.ndarray) -> None:
    for pixel in ((18, 24), (0, 47)):
        for number in range(20):
            warp = draw(number, Geometry(scale=(1.8, 1.8)), output_shape=(24, 24), pixel=pixel)
            seen = warp.places(0, 0, 24, 24).nearest().reshape(2, -1)
            assert (seen == np.array(pixel)[:, None]).all(0).any()


@pytest.mark.parametrize("name", RECIPES)
def test_no_byte_depends_on_the_cut(name: str) -> None:
    model, samples = build_model(), Scenes([(70, 95), (31, 120), (64, 64)])
    options: dict[str, Any] = {"input_size": 92, "batch_size": 4, "recipe": RECIPES[name], "tile_size": None}

    def windows(**cut: Any) -> dict[int, torch.Tensor]:
        share = build_shares(model, samples, **options, **cut)[3]
        batches = [(batch.pin_memory() if torch.cuda.is_available() else batch).on(CPU) for batch in share.batches]
        return {
            int(key[0]): torch.cat([window.flatten(), labels.flatten()])
            for batch in batches
            for window, labels, key in zip(batch.windows, batch.labels, batch.keys, strict=True)
        }

    whole = windows(micro_batch_size=4)
    assert len(whole) == 4
    halves = [windows(micro_batch_size=size, rank=rank, world_size=2) for rank, size in ((0, 1), (1, 1))]
    for other in (windows(micro_batch_size=3), {**halves[0], **halves[1]}):
        assert other.keys() == whole.keys()
        assert all(torch.equal(other[key], whole[key]) for key in whole)


@pytest.mark.parametrize("name", RECIPES)
def test_tiles_of_a_crop_see_one_transform(name: str) -> None:
    model = build_model()
    recipe = RECIPES[name]
    recipe = Recipe(
        recipe.geometry, recipe.recolours, blur_p=0.5 * bool(recipe.blur_p), noise_p=0.5 * bool(recipe.noise_p)
    )
    options: dict[str, Any] = {"input_size": 92, "batch_size": 3, "recipe": recipe}
    samples = Scenes([(70, 95), (31, 120), (64, 64)])
    whole, _ = gradient_of(model, build_shares(model, samples, tile_size=None, **options))
    tiled, _ = gradient_of(model, build_shares(model, samples, tile_size=60, micro_batch_size=2, **options))
    plain, _ = gradient_of(model, build_shares(model, samples, tile_size=None, **{**options, "recipe": None}))
    assert max(relative_differences(tiled, whole).values()) < 1e-10
    assert global_difference(plain, whole) > 1e-3


def test_a_crop_reads_no_more_than_its_image() -> None:
    """However small the scale: the mirror is made on the device."""
    samples = Scenes([(70, 95)])
    recipe = Recipe(Geometry(scale=(0.1, 0.1)))
    shares: RunShares = build_shares(
        build_model(), samples, input_size=92, batch_size=2, tile_size=None, micro_batch_size=2, recipe=recipe
    )
    (batch,) = shares[1].batches
    assert batch.windows.shape == (2 * 70 * 95, 3)
    assert batch.shape == (2, 92, 92)
    assert batch.on(CPU).windows.shape == (2, 92, 92, 3)
    crop: Crop = shares.crops.open(Draw(0, 0))
    assert crop.warp is not None
