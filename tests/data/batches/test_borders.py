"""Proves the border weights against equation 2 computed by brute force, and that every crop and tile of an image sees one map."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from tests.tiling.scenes import Scenes, build_model, build_shares, gradient_of, relative_differences
from unet_dist.data.batches.augment import Augmentation
from unet_dist.data.batches.borders import BorderWeights, border_map
from unet_dist.data.batches.crops import CropReader
from unet_dist.data.batches.recipes import RECIPES
from unet_dist.data.batches.sampler import Draw
from unet_dist.data.decoded.labels import IGNORED


def cells(seed: int, shape: tuple[int, int] = (40, 37)) -> np.ndarray:
    """Blobs of classes 1 and 2 in a border of class 0, some ignored pixels."""
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.normal(size=(2, *shape)), (0, 2.5, 2.5))
    label = np.where(noise[0] > 0.03, 1 + (noise[1] > 0), 0).astype(np.uint8)
    label[random.random(shape) < 0.01] = IGNORED
    return label


def equation_2(label: np.ndarray, weight: float, sigma: float) -> np.ndarray:
    """w0 exp(-(d1 + d2)^2 / (2 sigma^2)) at each border pixel, from its distance to every pixel of every object."""
    objects = []
    for value in (1, 2):
        numbered, count = ndimage.label(label == value, structure=np.ones((3, 3)))
        objects += [np.argwhere(numbered == number) for number in range(1, count + 1)]
    result = np.zeros(label.shape)
    for place in np.argwhere(label == 0):
        d = sorted(np.sqrt(((pixels - place) ** 2).sum(1)).min() for pixels in objects)
        result[tuple(place)] = weight * np.exp(-((d[0] + d[1]) ** 2) / (2 * sigma**2))
    return result


@pytest.mark.parametrize(("weight", "sigma"), [(10.0, 5.0), (3.0, 1.5)])
def test_map_is_equation_2(weight: float, sigma: float) -> None:
    label = cells(0)
    expected = equation_2(label, weight, sigma)
    got = border_map(label, 0, weight=weight, sigma_px=sigma)
    np.testing.assert_allclose(1 + got, 1 + expected, rtol=2e-7)  # as a weight beyond that of the class, in float32
    assert expected.max() > 0.3 * weight
    assert (got[label != 0] == 0).all()


def test_one_object_has_no_border() -> None:
    label = np.zeros((9, 9), np.uint8)
    label[2:5, 3:6] = 1
    assert (border_map(label, 0) == 0).all()


class Cells(Scenes):
    """Noise with cells for labels."""

    def __init__(self, shapes: list[tuple[int, int]]) -> None:
        super().__init__(shapes)
        self.labels = [cells(index, shape) for index, shape in enumerate(shapes)]


def test_crop_shows_the_map_of_the_whole_image() -> None:
    """Also mirrored; beyond the image nothing weighs."""
    samples = Cells([(50, 60)])
    borders = BorderWeights(0)
    whole = np.pad(borders.of(0, samples.labels[0]), 80)
    model = build_model()
    flips = set()
    for position in range(6):
        crop = CropReader(samples, 3, window_side=60, halo=20, borders=borders).open(Draw(position, 0))
        shares = build_shares(model, samples, input_size=60, tile_size=None, batch_size=1, borders=borders)
        plan = shares.planner.plan(crop.output_shape)
        height, width = plan.window_shape
        labels = np.empty((height - 40, width - 40), np.uint8)
        border = np.empty(labels.shape, np.float32)
        crop.read_labels(labels, border, plan[0])
        row, col = (origin + 80 for origin in crop.output_origin)
        expected = whole[row : row + crop.output_shape[0], col : col + crop.output_shape[1]]
        expected = expected[:, ::-1] if crop.is_flipped else expected
        height, width = crop.output_shape
        np.testing.assert_array_equal(border[:height, :width], expected)
        flips.add(crop.is_flipped)
    assert flips == {False, True}


@pytest.mark.parametrize(
    "changes",
    [{}, {"augmentation": Augmentation([{"name": "D4"}])}, {"recipe": RECIPES["paper"]}],
    ids=["none", "transform", "recipe"],
)
def test_tiles_give_the_gradient_of_the_whole_crop(changes: dict[str, Any]) -> None:
    """The map moves with the labels, and the tiles share it out."""
    model = build_model()
    options: dict[str, Any] = {"input_size": 92, "batch_size": 2, "borders": BorderWeights(0), **changes}
    samples = Cells([(70, 95), (64, 64)])
    whole, whole_loss = gradient_of(model, build_shares(model, samples, tile_size=None, **options))
    tiled, tiled_loss = gradient_of(model, build_shares(model, samples, tile_size=60, **options))
    plain, plain_loss = gradient_of(model, build_shares(model, samples, tile_size=60, **{**options, "borders": None}))
    assert max(relative_differences(tiled, whole).values()) < 1e-10
    assert tiled_loss == pytest.approx(whole_loss, rel=1e-13)
    assert abs(plain_loss - whole_loss) > 1e-4
    assert plain.keys() == whole.keys()


def test_maps_are_kept_and_not_sent_to_workers() -> None:
    borders = BorderWeights(0, 7.0, 2.0)
    label = cells(1)
    assert borders.of(4, label) is borders.of(4, label)
    sent = pickle.loads(pickle.dumps(borders))
    assert sent == borders
    assert not sent._kept
