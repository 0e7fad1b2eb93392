"""Proves that class colours are distinct, stable, and told apart with colour-deficient sight."""

import numpy as np
import pytest

from unet_dist.imaging import palette as module
from unet_dist.imaging.palette import class_palette


@pytest.mark.parametrize("num_classes", [1, 2, 7, 8, 11, 35, 255, 300, 65535])
def test_colours_are_distinct_and_never_black(num_classes):
    palette = class_palette(num_classes)
    assert palette.shape == (num_classes, 3)
    assert palette.dtype == np.uint8
    assert len(np.unique(palette, axis=0)) == num_classes
    assert palette.any(axis=1).all()


def test_a_larger_palette_begins_with_the_smaller_one():
    assert (class_palette(65535)[:300] == class_palette(300)).all()
    assert (class_palette(300)[:255] == class_palette(255)).all()
    assert (class_palette(255)[:35] == class_palette(35)).all()
    assert (class_palette(35)[:4] == class_palette(4)).all()


@pytest.mark.parametrize("vision", range(4), ids=["normal", "protanopia", "deuteranopia", "tritanopia"])
def test_35_colours_stay_apart_in_every_kind_of_vision(vision):
    seen = module._as_seen(class_palette(35))[vision]
    distance = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    # 0.02 in OKLab is about a just noticeable difference; colours drawn at random come to 0.005 (next test).
    assert distance[np.triu_indices(35, 1)].min() > 0.05


def test_random_colours_would_not_stay_apart():
    colours = np.random.default_rng(0).integers(60, 256, (35, 3))
    seen = module._as_seen(colours)
    distance = np.linalg.norm(seen[:, :, None] - seen[:, None], axis=-1)
    assert distance[:, np.triu(np.ones((35, 35), bool), 1)].min() < 0.02


def test_grey_is_seen_alike_by_all():
    grey = module._as_seen(np.array([[128, 128, 128]]))[:, 0]
    np.testing.assert_allclose(grey, grey[:1].repeat(4, 0), atol=2e-3)


def test_a_palette_is_read_only_since_it_is_shared():
    with pytest.raises(ValueError, match="read-only"):
        class_palette(5)[0] = 0
