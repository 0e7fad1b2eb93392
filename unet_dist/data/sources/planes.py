"""Masks of overlapping classes as files of their own: masks/road/x.png, or masks/x_road.png.

Owns which file is the mask of which image and class. Reads names only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from unet_dist.errors import DataError
from unet_dist.wording import counted, listed

MaskFile = Path | tuple[Path, ...]
"""One file with a plane for each class, or a file for each."""

_MOST_LISTED = 10


def first_of(mask: MaskFile) -> Path:
    """The file of a mask, or that of its first class."""
    return mask[0] if isinstance(mask, tuple) else mask


def split_names(images: Mapping[str, Path], masks: Mapping[str, Path]) -> dict[str, dict[str, Path]]:
    """Sort masks by image and class; none where each image has a mask of its own name.

    Args:
        images, masks: by the path that an image and its mask share.

    Returns:
        The masks by class, by the name of the image; those of no image stand under their own name, without a class.
    """
    if set(images) & set(masks):
        return {}
    found: dict[str, dict[str, Path]] = {}
    for name, path in masks.items():
        head, _, tail = name.partition("/")
        if tail in images:
            image, class_name = tail, head
        else:
            places = (at.start() for at in re.finditer(r"[-_. ]", name))
            ends = [place for place in places if name[:place] in images]
            image, class_name = (name[: ends[-1]], name[ends[-1] + 1 :]) if ends else (name, "")
        found.setdefault(image, {})[class_name] = path
    return found


def stack_masks(place: Path, by_image: Mapping[str, Mapping[str, Path]], classes: Sequence[str]) -> dict[str, MaskFile]:
    """Give the masks of each image in the order of the classes.

    Raises:
        DataError: an image lacks the mask of a class.
    """
    stacked: dict[str, MaskFile] = {}
    lacking = []
    for image, masks in by_image.items():
        if "" in masks:  # of no image: whoever matches names says so
            stacked[image] = masks[""]
            continue
        lacks = [name for name in classes if name not in masks]
        if lacks:
            lacking.append(f"{image} ({', '.join(lacks)})")
        else:
            stacked[image] = tuple(masks[name] for name in classes)
    if lacking:
        raise DataError(
            f"{place}: {counted(len(lacking), 'image')} without the mask of a class: "
            f"{listed(sorted(lacking), _MOST_LISTED)}. Expected a mask of each of {', '.join(classes)}, as multi_label says. "
            "Where a class is absent, write a mask of zeros; where nobody looked, one of 255."
        )
    return stacked
