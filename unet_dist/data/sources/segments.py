"""A release of Segments.ai: its JSON, the pictures, and the bitmaps of instances beside them.

Owns how a sample finds its bitmap and what a value in it means. Class ids: 0 is background, the categories follow in order of
their ids. Samples nobody labelled are left out.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from unet_dist.data.sources.named_pictures import (
    Pictures,
    candidates,
    files_by_split,
    find_picture,
    name_in_address,
    pictures_below,
    refuse_missing,
)
from unet_dist.data.sources.polygons import BACKGROUND, Drawn, Sample, is_background
from unet_dist.errors import DataError, RefusedError
from unet_dist.imaging.encoded import parsing
from unet_dist.imaging.image import DEFAULT_MAX_PIXELS
from unet_dist.imaging.limits import in_time, require_decodable
from unet_dist.storage.typed import read_json

_LABELS = "ground-truth"
_NO_LABELS = ("UNLABELED", "PRELABELED", "REJECTED", "SKIPPED")
"""What a label's status says where nobody made or accepted it; PRELABELED is a model's."""
_Categories = dict[int, str]


def find_segments(root: Path) -> dict[str, Path]:
    """Give the release of each split below a folder, none where there is none. Raises: DataError: several of one split."""
    return files_by_split((path for path in candidates(root, ".json") if is_segments(path)), "Segments.ai")


def is_segments(path: Path) -> bool:
    """Say whether a file is a release of Segments.ai with bitmaps."""
    if path.suffix != ".json" or not path.is_file():
        return False
    text = path.read_bytes()
    return b'"task_attributes"' in text and b'"segmentation_bitmap"' in text


def read_segments(root: Path, files: dict[str, Path]) -> Drawn:
    """Read the samples. Raises: DataError: a release is damaged, or its pictures or bitmaps are not there."""
    samples: dict[str, list[Sample]] = {}
    names: _Categories = {}
    pictures, num_without = pictures_below(root), 0
    for split, path in files.items():
        try:
            stored = read_json(path, dict[str, Any], remedy="Export the release again.")["dataset"]
            categories = {int(one["id"]): str(one["name"]) for one in stored["task_attributes"]["categories"]}
            if names and names != categories:
                raise DataError(f"{path}: its categories differ from those of the other releases. Export them alike.")
            names = categories
            samples[split], left_out = _samples(root, path, stored["samples"], pictures, _classes(categories)[0])
            num_without += left_out
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: cannot be read as a release of Segments.ai ({type(error).__name__}: {error}). Export it again."
            ) from error
    note = f"{num_without} samples have no label and are left out" if num_without else ""
    return Drawn(samples, _classes(names)[1], list(files.values()), note)


def _classes(categories: _Categories) -> tuple[dict[int, int], list[str]]:
    """Give the class of each category, and the names of the classes."""
    names = [BACKGROUND, *dict.fromkeys(name for _, name in sorted(categories.items()) if not is_background(name))]
    return {key: 0 if is_background(name) else names.index(name) for key, name in categories.items()}, names


def _samples(
    root: Path, path: Path, stored: list[dict[str, Any]], pictures: Pictures, classes: dict[int, int]
) -> tuple[list[Sample], int]:
    found, missing, num_without = [], [], 0
    for one in sorted(stored, key=lambda one: str(one["name"])):
        stored_label = (one.get("labels") or {}).get(_LABELS) or {}
        label = stored_label.get("attributes")
        is_open = str(stored_label.get("label_status")).upper() in _NO_LABELS
        if is_open or not label or not label.get("segmentation_bitmap"):
            num_without += 1
            continue
        name = PurePosixPath(str(one["name"]))
        image = _first(path, pictures, [str(name), name_in_address(one["attributes"]["image"]["url"])])
        beside = [f"{name.stem}_label_{_LABELS}.png", name_in_address(label["segmentation_bitmap"]["url"])]
        bitmap = _first(path, pictures, beside)
        missing += [] if image else [str(name)]
        missing += [] if bitmap else [beside[0]]
        if image and bitmap:
            meaning = {int(each["id"]): classes[int(each["category_id"])] for each in label["annotations"]}
            short = image.relative_to(root).with_suffix("").as_posix()
            mask_name = bitmap.relative_to(root).as_posix()
            found.append(Sample(short, image, partial(read_bitmap, bitmap, meaning), mask_name, (bitmap,)))
    refuse_missing(path, root, missing)
    return found, num_without


def _first(path: Path, pictures: Pictures, names: list[str]) -> Path | None:
    return next((found for name in names if (found := find_picture(name, path, pictures))), None)


def read_bitmap(path: Path, meaning: dict[int, int], *, overlap: bool = False) -> np.ndarray:
    """Read a bitmap of instances, whose colours are their ids from red on, as classes: (H, W); 0 is no instance.

    Raises:
        RefusedError: damaged, it holds an id that the release does not name, or classes are to overlap, which they cannot.
    """
    if overlap:
        raise RefusedError("has one class per pixel", "Remove multi_label: a bitmap of Segments.ai cannot hold more.")
    with parsing(f"bitmap {path.name}"), Image.open(path, formats=("PNG",)) as picture:
        require_decodable(picture.height, picture.width, DEFAULT_MAX_PIXELS, path.name, bytes_per_px=8)
        values = in_time(path.name, lambda: np.asarray(picture.convert("RGBA") if picture.mode != "I;16" else picture))
    if values.ndim == 3:
        values = values[..., 0] + values[..., 1].astype(np.uint32) * 256 + values[..., 2].astype(np.uint32) * 65536
    used = np.unique(values)
    unknown = [int(value) for value in used if value and int(value) not in meaning]
    if unknown:
        raise RefusedError(
            f"holds the instance {unknown[0]}, which the release does not name", "Export the release again."
        )
    table = np.array([meaning.get(int(value), 0) for value in used])
    classes: np.ndarray = table[np.searchsorted(used, values)].astype(np.uint8 if table.max() < 256 else np.uint16)
    return classes
