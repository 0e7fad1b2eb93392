"""Proves that an augmentation is a function of its seed alone, moves image and labels alike, and is refused in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unet_dist.data.batches.augment import Augmentation, Deform
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.errors import ConfigError

PIPELINE: list[dict[str, Any]] = [
    {"name": "Affine", "rotate": [-30, 30], "scale": [0.8, 1.2], "p": 1.0},
    {"name": "ColorJitter", "p": 0.8},
    {"name": "GaussNoise", "p": 0.5},
]


def picture(channels: int = 3, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """An image (side, side, C) and labels that say the value of its first channel."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (side, side), dtype=np.uint8)
    image = np.repeat((labels * 40)[:, :, None], channels, axis=2)
    return image, labels


@pytest.mark.parametrize("channels", [1, 3])
def test_result_is_a_function_of_the_seed(channels: int) -> None:
    """In any order, from any pipeline: what went before leaves no trace, as it would with albumentations' own state."""
    image, labels = picture(channels)
    pipeline = PIPELINE if channels == 3 else PIPELINE[:1]
    one, other = Augmentation(pipeline), Augmentation(pipeline)
    forwards = [one(image, labels, seed=seed) for seed in range(6)]
    backwards = [other(image, labels, seed=seed) for seed in reversed(range(6))][::-1]
    for (a, b), (c, d) in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)
        assert (a.shape, a.dtype, b.shape, b.dtype) == (image.shape, np.uint8, labels.shape, np.uint8)
    assert len({a.tobytes() for a, _ in forwards}) == 6


def test_input_is_left_alone() -> None:
    image, labels = picture()
    before = image.copy(), labels.copy()
    image.flags.writeable = labels.flags.writeable = False  # as views of a cache are
    Augmentation(PIPELINE)(image[:, ::-1], labels[:, ::-1], seed=1)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_image_and_labels_move_together() -> None:
    image, labels = picture()
    moved, moved_labels = Augmentation([{"name": "D4", "p": 1.0}])(image, labels, seed=3)
    assert not np.array_equal(moved_labels, labels)
    np.testing.assert_array_equal(moved[:, :, 0], moved_labels * 40)


def test_what_moves_in_from_outside_is_ignored() -> None:
    image, labels = np.full((20, 20, 3), 9, np.uint8), np.full((20, 20), 4, np.uint8)
    shift = {"name": "Affine", "translate_px": {"x": [5, 5], "y": [0, 0]}, "p": 1.0}
    _, moved = Augmentation([shift])(image, labels, seed=0)
    assert (moved[:, :5] == IGNORED).all()
    assert (moved[:, 5:] == 4).all()


def test_holes_keep_their_labels() -> None:
    """A network should guess the hidden part: holes are there for that."""
    image, labels = picture()
    holes = {
        "name": "CoarseDropout",
        "num_holes_range": [8, 8],
        "hole_height_range": [7, 7],
        "hole_width_range": [7, 7],
    }
    changed, kept = Augmentation([{**holes, "p": 1.0}])(image, labels, seed=1)
    assert (changed != image).any()
    np.testing.assert_array_equal(kept, labels)
    _, said = Augmentation([{**holes, "p": 1.0, "fill_mask": IGNORED}])(image, labels, seed=1)
    assert (said == IGNORED).any()


def test_a_deformation_moves_all_planes_together() -> None:
    """Of any shape; all but IGNORED comes from the window itself."""
    rows, cols = np.mgrid[:70, :94]
    labels = ((rows // 10 + cols // 10) % 5).astype(np.uint8)
    image = np.repeat((labels * 40 + 40)[:, :, None], 3, axis=2)
    deform = {"name": "Deform", "scale": [0.5, 2], "rotation_deg": [-30, 30], "displacement_px": 5.0, "p": 1.0}
    for seed in range(8):
        moved, moved_labels, border = Augmentation([deform])(image, labels, labels.astype(np.float32), seed=seed)
        assert (moved.shape, moved_labels.shape, border.dtype) == (image.shape, labels.shape, np.float32)
        counts = moved_labels != IGNORED
        np.testing.assert_array_equal(border[counts], moved_labels[counts])
        # The image is interpolated and the labels are not: they agree but at edges.
        agrees = np.abs(moved[:, :, 0].astype(int) - (moved_labels * 40 + 40))[counts] <= 20
        assert agrees.mean() > 0.9
        assert not np.array_equal(moved_labels, labels)


def test_deformation_is_what_it_says() -> None:
    """A rotation by 90 degrees and a magnification by 2 about the middle, to the pixel; displacements of the given size."""
    labels = np.random.default_rng(0).integers(0, 5, (31, 31), dtype=np.uint8)
    image = np.repeat(labels[:, :, None] * 40, 3, axis=2)
    _, turned = Augmentation([{"name": "Deform", "rotation_deg": [90, 90], "p": 1.0}])(image, labels, seed=0)
    np.testing.assert_array_equal(turned, np.rot90(labels))
    _, doubled = Augmentation([{"name": "Deform", "scale": [2, 2], "p": 1.0}])(image, labels, seed=0)
    np.testing.assert_array_equal(doubled[1::2, 1::2], labels[8:23, 8:23])
    halved, halved_labels = Augmentation([{"name": "Deform", "scale": [0.5, 0.5], "p": 1.0}])(image, labels, seed=0)
    assert (halved_labels[:7] == IGNORED).all()
    assert (halved_labels[8:23, 8:23] == labels[1:30:2, 1:30:2]).all()
    np.testing.assert_array_equal(halved[7, 8:23], image[1, 1:30:2])  # mirrored at the window's border
    draws = []
    for seed in range(200):
        bent = Deform(displacement_px=10.0, p=1.0)
        bent.set_random_seed(seed)
        maps = bent.get_params_dependent_on_data({"shape": (90, 90, 3)}, {})
        draws += [maps["map_x"][15, 15] - 15, maps["map_y"][45, 75] - 45]
    assert np.std(draws) == pytest.approx(10.0, rel=0.15)


@pytest.mark.parametrize(
    ("transforms", "sentence"),
    [
        (
            [{"name": "Deform", "scale": [0, 1]}],
            "augmentation: Deform: scale: got [0, 1], expected [low, high], above 0",
        ),
        (
            [{"name": "ColorJiter"}],
            "augmentation: got name 'ColorJiter', expected the name of an albumentations transform. "
            'Did you mean "ColorJitter"?',
        ),
        ([{"p": 0.5}], "augmentation: got name None, expected the name of an albumentations transform."),
        (
            [{"name": "HorizontalFlip", "prob": 0.5}],
            "augmentation: HorizontalFlip: unknown argument 'prob'. Valid: p.",
        ),
    ],
)
def test_mistake_in_a_pipeline_is_named(transforms: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        Augmentation(transforms)
    assert str(refusal.value).rstrip() == sentence


def test_value_out_of_range_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^augmentation: ColorJitter: "):
        Augmentation([{"name": "ColorJitter", "brightness": "much"}])


@pytest.mark.parametrize(
    ("transform", "got"),
    [
        ({"name": "RandomCrop", "height": 16, "width": 16, "p": 1.0}, "got uint8 windows of (16, 16, 3)"),
        ({"name": "Normalize", "p": 1.0}, "got float32 windows of (32, 32, 3)"),
    ],
)
def test_transform_that_changes_size_or_type_is_refused(transform: dict[str, Any], got: str) -> None:
    image, labels = picture()
    with pytest.raises(ConfigError) as refusal:
        Augmentation([transform])(image, labels, seed=0)
    assert str(refusal.value) == (
        f"augmentation: {got}, expected uint8 of (32, 32, 3) as they went in. "
        "Remove the transforms that resize, crop or normalise: the window is cut and normalised already."
    )
