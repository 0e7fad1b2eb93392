"""How alike the images of two splits are.

Owns the perceptual hash, and the search for near-duplicates across splits. An image in training and in validation makes the
score of a validation too good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from unet_dist.data.decoded.cache import Cache

# Of 64 bits. CamVid (480x360, 468 frames): neighbouring frames of one film differ in 13 (median), frames of different films in
# 28 (median) and never in fewer than 10.
MOST_BITS = 6
_ROWS, _COLS = 8, 8
_SAMPLED_PX = 256  # of a side that is looked at; more changes no bit that matters, and takes longer


class Twins(NamedTuple):
    """Two images that look alike, in different splits."""

    first: str
    first_split: str
    second: str
    second_split: str


def image_hash(image: np.ndarray) -> np.ndarray:
    """Hash an image (H, W, C) to 64 bits (64,) bool: whether each of 8x9 patches is brighter than its left neighbour.

    Source: Krawetz 2013, "Kind of like that" (dHash).
    """
    steps = [max(1, side // _SAMPLED_PX) for side in image.shape[:2]]
    looked_at = image[:: steps[0], :: steps[1]]
    wide = np.nan_to_num(looked_at).astype(np.float64) if image.dtype.kind == "f" else looked_at.astype(np.int64)
    grey = wide.sum(axis=2)
    height, width = (max(side, least) for side, least in zip(grey.shape, (_ROWS, _COLS + 1), strict=True))
    grey = np.resize(grey, (height, width)) if (height, width) != grey.shape else grey
    rows, cols = np.arange(_ROWS + 1) * height // _ROWS, np.arange(_COLS + 2) * width // (_COLS + 1)
    sums = np.add.reduceat(np.add.reduceat(grey, rows[:-1], axis=0), cols[:-1], axis=1)  # (8, 9)
    brightness = sums / (np.diff(rows)[:, None] * np.diff(cols)[None])
    return (np.diff(brightness, axis=1) > 0).ravel()


def find_twins(hashes: np.ndarray, ids: Sequence[str], splits: Mapping[str, Sequence[int]]) -> Iterator[Twins]:
    """Yield, for each image of a split, its nearest near-duplicate in a later split, if there is one.

    Args:
        hashes: (n, 64) bool.
        splits: positions by name.
    """
    for one, other in combinations(splits, 2):
        theirs = hashes[list(splits[other])]
        for position in splits[one]:
            bits = (theirs != hashes[position]).sum(axis=1)
            nearest = int(bits.argmin())
            if bits[nearest] <= MOST_BITS:
                yield Twins(ids[position], one, ids[splits[other][nearest]], other)


def find_twins_in(cache: Cache) -> list[Twins]:
    """Find near-duplicates across the splits of a data set. Images that are read by windows are left out."""
    decoded = [position for position in range(len(cache)) if position not in cache.windowed]
    hashes = np.zeros((len(cache), _ROWS * _COLS), dtype=bool)
    for position in decoded:
        cache.check(position)
        hashes[position] = image_hash(cache.stored_image(position))
    there = set(decoded)
    splits = {
        name: [position for position in positions if position in there] for name, positions in cache.splits.items()
    }
    return list(find_twins(hashes, cache.names, {name: positions for name, positions in splits.items() if positions}))
