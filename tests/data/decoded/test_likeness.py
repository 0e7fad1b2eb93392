"""Near-duplicates across splits are found, under noise, scale and brightness, and other images are not."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from unet_dist.data.decoded.likeness import MOST_BITS, find_twins, image_hash


def scene(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(120, 160, 3))
    smooth = ndimage.gaussian_filter(noise, (12, 12, 0))
    return np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def test_an_image_keeps_its_hash_and_others_have_another() -> None:
    random = np.random.default_rng(99)
    hashes = [image_hash(scene(seed)) for seed in range(12)]
    for seed, own in enumerate(hashes):
        image = scene(seed)
        noisy = np.clip(image + random.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
        for changed in (noisy, np.clip(image * 0.7 + 30, 0, 255).astype(np.uint8), image[::2, ::2], image[2:, 1:]):
            assert (image_hash(changed) != own).sum() <= MOST_BITS
        assert min((other != own).sum() for number, other in enumerate(hashes) if number != seed) > MOST_BITS


def test_twins_are_named_with_their_splits() -> None:
    hashes = np.stack([image_hash(scene(seed)) for seed in (0, 1, 2, 1, 3)])
    ids = ["a", "b", "c", "d", "e"]
    twins = list(find_twins(hashes, ids, {"train": [0, 1], "validation": [2, 3], "test": [4]}))
    assert twins == [("b", "train", "d", "validation")]


def test_tiny_and_grey_images_have_a_hash_too() -> None:
    assert image_hash(np.zeros((3, 5, 1), dtype=np.uint8)).shape == (64,)
