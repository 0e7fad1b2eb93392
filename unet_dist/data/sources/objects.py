"""Masks of single objects, one file each, beside their image: x/images/x.png and x/masks/0.png, 1.png ...

Owns which files these are, and the one mask that they make: 1 on an object, 0 elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from unet_dist.errors import RefusedError
from unet_dist.imaging.reader import open_image


def join_objects(images: Mapping[str, Path], masks: Mapping[str, Path]) -> dict[str, tuple[Path, ...]]:
    """Give the masks of each image where all have a folder of their own, by whose name an image and its masks belong together.

    Args:
        images, masks: by path.

    Returns:
        By the path of the image; none where a folder has several images or no mask, or a mask has the name of an image.
    """
    folders = [str(PurePosixPath(name).parent) for name in images]
    found: dict[str, list[Path]] = {folder: [] for folder in folders}
    for name in sorted(masks):
        found.setdefault(str(PurePosixPath(name).parent), []).append(masks[name])
    is_one_each = len(found) == len(folders) == len(set(folders) - {"."})
    if not is_one_each or set(images) & set(masks) or not all(found.values()):
        return {}
    return {name: tuple(found[folder]) for name, folder in zip(images, folders, strict=True)}


def draw_objects(files: Sequence[Path]) -> np.ndarray:
    """Draw the objects of an image: (H, W) uint8. Raises: RefusedError: a mask of another size, or of more than two values."""
    drawn: np.ndarray | None = None
    for file in files:
        with open_image(file) as reader:
            pixels = reader.read(0, reader.shape[0], 0, reader.shape[1])
        if (pixels != pixels[..., :1]).any() or len(set(np.unique(pixels)) - {0}) > 1:
            raise RefusedError(
                f"has several values in {file.name}, one of its {len(files)} files",
                "Expected 0 and one other, where each file is an object: write one mask of ids for each image.",
            )
        is_object = pixels[..., 0] != 0
        if drawn is not None and drawn.shape != is_object.shape:
            raise RefusedError(
                f"is of two sizes, {drawn.shape} and in {file.name} {is_object.shape}",
                "Write the mask of each object in the size of the image.",
            )
        drawn = is_object if drawn is None else drawn | is_object
    assert drawn is not None, "an image has a mask"
    return drawn.astype(np.uint8)
