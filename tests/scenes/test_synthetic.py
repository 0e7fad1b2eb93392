"""Proves that a synthetic scene is a function of its numbers, fits its label map to the pixel and holds what it says."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from unet_dist.scenes.synthetic import SIDEWALK_CLASSES, SyntheticScenes

_DIGEST = """
import hashlib
from unet_dist.scenes.synthetic import SyntheticScenes
print(hashlib.sha256(b"".join(part.tobytes() for part in SyntheticScenes(9, 120, 200, seed=5).render(7))).hexdigest())
"""


def test_another_process_makes_the_same_bytes() -> None:
    scenes = SyntheticScenes(9, 120, 200, seed=5)
    scenes.render(3)  # what was drawn before must not matter
    here = hashlib.sha256(b"".join(part.tobytes() for part in scenes.render(7))).hexdigest()
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", _DIGEST]
    there = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    assert there == here


def test_scenes_and_seeds_differ() -> None:
    labels = [SyntheticScenes(3, 48, 80, seed=seed).render(index)[1] for seed in (0, 1) for index in (0, 1, 2)]
    assert len({label.tobytes() for label in labels}) == 6


@pytest.mark.parametrize(("height", "width"), [(96, 160), (64, 64), (300, 2000), (97, 61), (8, 8), (1080, 1920)])
def test_any_size_gives_uint8_arrays_of_that_size(height: int, width: int) -> None:
    image, label = SyntheticScenes(2, height, width).render(1)
    assert image.shape == (height, width, 3)
    assert label.shape == (height, width)
    assert image.dtype == label.dtype == np.uint8
    assert label.max() < len(SIDEWALK_CLASSES)
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert image.std() > 15  # a picture, not a flat field


@pytest.mark.parametrize("index", [0, 4, 9])
def test_another_size_shows_the_same_scene(index: int) -> None:
    _, large = SyntheticScenes(10, 540, 960).render(index)
    for height, width in ((270, 480), (108, 192), (270, 960)):
        _, small = SyntheticScenes(10, height, width).render(index)
        rows = (np.arange(height) * 2 + 1) * 540 // (2 * height)
        columns = (np.arange(width) * 2 + 1) * 960 // (2 * width)
        agreement = (large[rows[:, None], columns[None, :]] == small).mean()
        assert agreement > 0.9, (height, width, agreement)


@pytest.fixture(scope="module")
def many() -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """A hundred small scenes."""
    scenes = SyntheticScenes(100, 72, 128, seed=2)
    return [scenes.render(index) for index in range(len(scenes))]


NOT_DRAWN = {
    "unlabeled", "vehicle-motorcycle", "vehicle-caravan", "vehicle-cartrailer", "construction-bridge",
    "construction-tunnel", "construction-stairs", "void-ground", "void-dynamic", "void-static", "void-unclear",
}  # fmt: skip


def test_a_class_is_absent_or_has_enough_pixels_to_be_learnt(
    many: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
) -> None:
    counts = np.stack([np.bincount(label.ravel(), minlength=35) for _, label in many])
    share = dict(zip(SIDEWALK_CLASSES, counts.sum(axis=0) / counts.sum(), strict=True))
    occurs = dict(zip(SIDEWALK_CLASSES, (counts > 0).mean(axis=0), strict=True))
    assert {name for name, value in share.items() if value == 0} == NOT_DRAWN
    for name in set(SIDEWALK_CLASSES) - NOT_DRAWN:
        assert share[name] > 0.002, (name, share[name])
        assert occurs[name] > 0.15, (name, occurs[name])
    for name in ("flat-road", "flat-sidewalk", "construction-building", "nature-vegetation", "sky"):
        assert share[name] > 0.05, (name, share[name])
    for name in ("human-rider", "object-trafficsign", "object-trafficlight"):
        assert share[name] < 0.01, (name, share[name])


def test_persons_are_frequent_and_large() -> None:
    scenes = SyntheticScenes(30, 270, 480)
    person = SIDEWALK_CLASSES.index("human-person")
    masks = [scenes.render(index)[1] == person for index in range(30)]
    assert np.mean([mask.any() for mask in masks]) > 0.7
    heights = [np.flatnonzero(mask.any(axis=1)).size for mask in masks if mask.any()]
    assert np.median(heights) > 30, heights


def test_poles_are_rare_and_thin() -> None:
    scenes = SyntheticScenes(12, 270, 480)
    pole = SIDEWALK_CLASSES.index("object-pole")
    masks = [scenes.render(i)[1] == pole for i in range(12)]
    assert 0.001 < np.mean(masks) < 0.03
    runs = np.concatenate([_runs(row) for mask in masks for row in mask])
    assert np.median(runs) <= 480 / 60


def _runs(row: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The lengths of the runs of True in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]])))
    return edges[1::2] - edges[::2]


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_outlines_of_label_and_picture_coincide(index: int) -> None:
    """The picture changes most exactly where the label does: less two pixels to any side."""
    image, label = SyntheticScenes(4, 360, 640).render(index)
    steps = np.abs(np.diff(image.astype(np.int32), axis=1)).sum(axis=2)
    outline = np.diff(label.astype(np.int32), axis=1) != 0
    inner = (slice(4, -4), slice(4, -4))

    def change_at(row_shift: int, column_shift: int) -> float:
        return float(np.roll(steps, (row_shift, column_shift), axis=(0, 1))[inner][outline[inner]].mean())

    here = change_at(0, 0)
    elsewhere = {(r, c): change_at(r, c) for r in (-3, 0, 3) for c in (-2, 2)}
    assert here > 1.25 * max(elsewhere.values()), (here, elsewhere)


def test_colour_alone_does_not_tell_the_class(many: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
    """The best guess from a pixel's colour, learnt on other scenes, stays far from the truth."""
    votes = np.zeros((16**3, len(SIDEWALK_CLASSES)), dtype=np.int64)
    for image, label in many[:70]:
        np.add.at(votes, (_binned(image), label.ravel()), 1)
    guesses = votes.argmax(axis=1)
    accuracy = np.mean([(guesses[_binned(image)] == label.ravel()).mean() for image, label in many[70:]])
    assert accuracy < 0.75, accuracy


def _binned(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    red, green, blue = (image[:, :, channel].astype(np.int64).ravel() >> 4 for channel in range(3))
    return red * 256 + green * 16 + blue


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="num_images >= 1"):
        SyntheticScenes(0)
    with pytest.raises(ValueError, match="sides >= 8 px"):
        SyntheticScenes(1, 4, 100)
    scenes = SyntheticScenes(3, 16, 16)
    assert len(scenes) == 3
    for index in (-1, 3):
        with pytest.raises(IndexError, match=r"expected 0\.\.2"):
            scenes.render(index)


def test_class_names_are_those_of_the_reference_data_set() -> None:
    assert len(SIDEWALK_CLASSES) == len(set(SIDEWALK_CLASSES)) == 35
    assert SIDEWALK_CLASSES[0] == "unlabeled"
    assert SIDEWALK_CLASSES[10] == "vehicle-car"
    assert SIDEWALK_CLASSES[25] == "object-pole"
    assert SIDEWALK_CLASSES[34] == "void-unclear"
    assert SyntheticScenes().class_names == SIDEWALK_CLASSES
