"""COCO JSON: outlines and run lengths of objects, drawn as masks.

Owns where such files lie, which split each is of, and their meaning. Class ids: 0 is background, the categories follow in
order of their ids; one that is called background is 0.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict

import numpy as np

from unet_dist.data.sources.named_pictures import (
    Pictures,
    candidates,
    files_by_split,
    find_picture,
    pictures_below,
    refuse_missing,
)
from unet_dist.data.sources.polygons import BACKGROUND, Canvas, Drawn, Sample, is_background
from unet_dist.errors import DataError, RefusedError
from unet_dist.storage.typed import read_json

_OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
_Id = int | str
_MOST_SHIFT = 55
"""Of the last group of a run length: one without end would take hours, each group as long as all before."""


class _Image(TypedDict):
    id: _Id
    file_name: str
    height: int
    width: int


class _Object(TypedDict):
    """An annotation; its outline is read when it is drawn."""

    image_id: _Id
    category_id: _Id


class _Category(TypedDict):
    id: _Id
    name: str


class _File(TypedDict):
    images: list[_Image]
    annotations: list[_Object]
    categories: list[_Category]


def find_coco(root: Path) -> dict[str, Path]:
    """Give the COCO file of each split below a folder, none where there is none.

    Raises:
        DataError: there are several of a split, or of none that is known.
    """
    return files_by_split((path for path in candidates(root, ".json") if is_coco(path)), "COCO")


def is_coco(path: Path) -> bool:
    """Say whether a file is COCO JSON with objects, without parsing it."""
    if path.name.startswith(_OTHER_TASKS) or path.suffix != ".json" or not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        is_panoptic = text.find(b'"segments_info"') >= 0
        return not is_panoptic and all(
            text.find(word) >= 0 for word in (b'"images"', b'"annotations"', b'"categories"')
        )


def read_coco(root: Path, files: dict[str, Path]) -> Drawn:
    """Read the files of the splits. Raises: DataError: they are damaged, disagree, or name images that are not there."""
    pictures = pictures_below(root)
    samples: dict[str, list[Sample]] = {}
    names: dict[int, str] | None = None
    for split, path in files.items():
        try:
            stored = read_json(path, _File, remedy="Export it again as COCO.")
            categories = _categories(stored)
            if names is not None and names != categories:
                raise DataError(
                    f"{path}: its categories differ from those of {next(iter(files.values()))}. Export them alike."
                )
            names = categories
            samples[split] = _read_samples(root, path, stored, pictures)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: cannot be read as COCO ({type(error).__name__}: {error}). Export it again."
            ) from error
    return Drawn(samples, list(_class_ids(names or {})[1]), list(files.values()))


def _class_ids(categories: dict[int, str]) -> tuple[dict[int, int], list[str]]:
    named = [name for _, name in sorted(categories.items()) if not is_background(name)]
    # Two categories of one name are one class; Roboflow writes the first twice.
    names = [BACKGROUND, *dict.fromkeys(named)]
    return {key: names.index(name) if name in named else 0 for key, name in categories.items()}, names


def _categories(stored: _File) -> dict[int, str]:
    """Give the name of each category. Raises: ValueError: two have one id."""
    found: dict[int, str] = {}
    for one in stored["categories"]:
        key, name = int(one["id"]), str(one["name"])
        if found.setdefault(key, name) != name:
            raise ValueError(f'the id {key} is of two categories, "{found[key]}" and "{name}"')
    return found


def _read_samples(root: Path, path: Path, stored: _File, pictures: Pictures) -> list[Sample]:
    classes, names = _class_ids(_categories(stored))
    objects: dict[_Id, list[Any]] = {}
    for listed in stored["images"]:
        if listed["id"] in objects:  # as where two exports were joined: which of the two an object is of, nothing says
            raise ValueError(f"two images have the id {listed['id']}")
        objects[listed["id"]] = []
    for drawn in stored["annotations"]:
        objects[drawn["image_id"]].append(drawn)
    samples, missing = [], []
    for one in sorted(stored["images"], key=lambda one: one["file_name"]):
        image = find_picture(one["file_name"], path, pictures)
        if image is None:
            missing.append(one["file_name"])
            continue
        size = one["height"], one["width"]
        draw = partial(_draw, objects[one["id"]], classes, len(names), size)
        name = PurePosixPath(image.relative_to(root).as_posix()).with_suffix("").name
        samples.append(Sample(name, image, draw, f"of {image.name} in {path.name}"))
    refuse_missing(path, root, missing)
    return samples


def _draw(
    objects: Sequence[dict[str, Any]],
    classes: dict[int, int],
    num_classes: int,
    size: tuple[int, int],
    *,
    overlap: bool = False,
) -> np.ndarray:
    """Draw the objects of an image in the order of the file: (H, W). Raises: RefusedError: one has no outline."""
    canvas = Canvas(*size, num_classes, overlap=overlap)
    for one in objects:
        outline, value = one.get("segmentation"), classes.get(int(one["category_id"]))
        if value is None:
            raise RefusedError(
                f"has an object of category {one['category_id']}, which is not listed", "Export it again."
            )
        if outline:
            _draw_outline(canvas, outline, value, size)
        else:
            raise RefusedError(
                f"has an object (annotation {one.get('id')}) with a box and no outline",
                "Draw outlines: a box says nothing of the pixels. Or remove such annotations.",
            )
    return canvas.ids()


def _draw_outline(canvas: Canvas, outline: Any, value: int, size: tuple[int, int]) -> None:
    """Draw run lengths or polygons. Raises: whatever values of other types lead to, which is the source's to name."""
    if not isinstance(outline, dict):
        parts = [np.asarray(part, dtype=np.float64).reshape(-1, 2) for part in outline]
        if max(map(len, parts)) < 3:  # four numbers are two points here and a box to pycocotools
            raise RefusedError("has an object whose outline has fewer than three points", "Correct or remove it.")
        for part in parts:
            canvas.polygon(part, value)
        return
    counts = outline["counts"]
    if tuple(outline["size"]) != size:
        raise RefusedError(f"has run lengths of {outline['size']} for an image of {size}", "Export it again.")
    canvas.runs(decode_runs(counts) if isinstance(counts, str) else counts, value)


def decode_runs(text: str) -> list[int]:
    """Read the compressed run lengths of pycocotools.

    Source: rleFrString (maskApi.c): groups of 5 bits from 48 on, the sixth says that more follow, and from the third run on the
    difference to the one before the last.

    Raises:
        ValueError: it is damaged.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64:
            raise ValueError(f"{character!r} is in no run length")
        if shift > _MOST_SHIFT:
            raise ValueError("a run length has more than 60 bits")
        value |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise ValueError("the last run length is cut short")
    return counts
