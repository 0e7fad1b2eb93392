"""VGG Image Annotator's JSON or CSV: regions drawn as masks.

Owns where such files lie, and which attribute of a region names its class. Class ids: 0 is background, the classes follow by
name; where no region has an attribute, all are of one class.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unet_dist.data.sources.named_pictures import (
    candidates,
    files_by_split,
    find_picture,
    pictures_below,
    refuse_missing,
)
from unet_dist.data.sources.polygons import BACKGROUND, Canvas, Drawn, Sample, is_background, picture_size
from unet_dist.errors import DataError, RefusedError
from unet_dist.storage.typed import read_json, read_text
from unet_dist.wording import listed

_HEAD_BYTES = 4096
_ONLY_CLASS = "object"
_USUAL = ("class", "label", "category", "name", "type")
_Image = tuple[str, list[dict[str, Any]]]  # name of its file, regions


def find_via(root: Path) -> dict[str, Path]:
    """Give the VIA file of each split below a folder, none where there is none. Raises: DataError: several of one split."""
    found = ([path for path in candidates(root, suffix) if is_via(path)] for suffix in (".json", ".csv"))
    return files_by_split(next(filter(None, found), []), "VIA")  # both are often saved, and say the same


def is_via(path: Path) -> bool:
    """Say whether a file is VIA's."""
    if path.suffix not in (".json", ".csv") or not path.is_file():
        return False
    if path.suffix == ".csv":
        with path.open("rb") as file:
            return b"region_shape_attributes" in file.readline(_HEAD_BYTES)
    text = path.read_bytes()
    return b'"shape_attributes"' in text or b'"_via_img_metadata"' in text


def read_via(root: Path, files: dict[str, Path]) -> Drawn:
    """Read the samples. Raises: DataError: a file is damaged, names images that are not there, or no class of a region."""
    stored = {split: _load(path) for split, path in files.items()}
    regions = [region for images in stored.values() for _, found in images for region in found]
    attribute = _attribute(next(iter(files.values())), regions)
    named = {_class_of(region, attribute) for region in regions}
    class_names = [BACKGROUND, *sorted(name for name in named if not is_background(name))]
    pictures = pictures_below(root)
    samples: dict[str, list[Sample]] = {}
    for split, images in stored.items():
        path, missing = files[split], list[str]()
        samples[split] = []
        for name, found in sorted(images, key=lambda image: image[0]):
            picture = find_picture(name, path, pictures)
            if picture is None:
                missing.append(name)
                continue
            draw = partial(_draw, picture, found, attribute, class_names)
            short = picture.relative_to(root).with_suffix("").as_posix()
            samples[split].append(Sample(short, picture, draw, f"of {picture.name} in {path.name}"))
        refuse_missing(path, root, missing)
    return Drawn(samples, class_names, list(files.values()))


def _load(path: Path) -> list[_Image]:
    try:
        if path.suffix == ".csv":
            return _load_table(path)
        stored = read_json(path, dict[str, Any])
        images = stored.get("_via_img_metadata", stored)
        found: list[_Image] = []
        for one in images.values():
            regions = one["regions"]
            regions = list(regions.values()) if isinstance(regions, dict) else regions  # VIA 1 numbers them
            for region in regions:
                _ = region["shape_attributes"]["name"]
            found.append((str(one["filename"]), regions))
        return found
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: cannot be read as VIA's ({type(error).__name__}: {error}). Export it again."
        ) from error


def _load_table(path: Path) -> list[_Image]:
    """Read a row for each region, or one for an image without any; VIA 1 puts # before the first column's name."""
    images: dict[str, list[dict[str, Any]]] = {}
    for row in csv.DictReader(io.StringIO(read_text(path).lstrip("#"), newline="")):
        regions = images.setdefault(row["filename"], [])
        shape = json.loads(row["region_shape_attributes"])
        if shape:
            _ = shape["name"]
            regions.append({"shape_attributes": shape, "region_attributes": json.loads(row["region_attributes"])})
    return list(images.items())


def _attribute(path: Path, regions: Sequence[dict[str, Any]]) -> str | None:
    """Find the attribute that names the class, None where regions have none."""
    found = list(dict.fromkeys(key for region in regions for key in region.get("region_attributes") or {}))
    if len(found) < 2:
        return found[0] if found else None
    usual = [key for key in found if key.lower() in _USUAL]
    if len(usual) != 1:
        raise DataError(
            f"{path}: its regions have the attributes {listed(found)}. Keep one that names the class, or call it class."
        )
    return usual[0]


def _class_of(region: dict[str, Any], attribute: str | None) -> str:
    if attribute is None:
        return _ONLY_CLASS
    told = (region.get("region_attributes") or {}).get(attribute)
    chosen = [key for key, is_on in told.items() if is_on] if isinstance(told, dict) else [told]  # of a checkbox
    if len(chosen) != 1 or chosen[0] in (None, ""):
        raise DataError(
            f"A region of VIA has {'no' if len(chosen) < 2 else 'several'} {attribute}: {json.dumps(region)[:120]}. Give it one."
        )
    return str(chosen[0]).strip()


def _numbers(told: dict[str, Any]) -> dict[str, Any]:
    """Read places as numbers, which some programs write as texts: their sum would be one word."""
    return {key: float(value) if isinstance(value, str) and key != "name" else value for key, value in told.items()}


def _draw(
    picture: Path,
    regions: list[dict[str, Any]],
    attribute: str | None,
    class_names: list[str],
    *,
    overlap: bool = False,
) -> np.ndarray:
    """Draw the regions in the order of the file: (H, W). Raises: RefusedError: one is no area."""
    canvas = Canvas(*picture_size(picture), len(class_names), overlap=overlap)
    for region in regions:
        told, label = _numbers(region["shape_attributes"]), _class_of(region, attribute)
        value = 0 if is_background(label) else class_names.index(label)
        kind = told["name"]
        if kind == "polygon" and len(told["all_points_x"]) >= 3:
            canvas.polygon(np.array([told["all_points_x"], told["all_points_y"]], dtype=np.float64).T, value)
        elif kind == "rect":
            left, top, width, height = (float(told[key]) for key in ("x", "y", "width", "height"))
            right, bottom = left + width, top + height
            canvas.polygon(np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64), value)
        elif kind == "circle":
            canvas.ellipse((told["cx"], told["cy"]), (told["r"], told["r"]), 0, value)
        elif kind == "ellipse":
            radii = told["rx"], told["ry"]
            canvas.ellipse((told["cx"], told["cy"]), radii, np.degrees(told.get("theta", 0)), value)
        else:
            raise RefusedError(
                f"has a {kind}, labelled {label}", "Polygons, rectangles, circles and ellipses are read: remove it."
            )
    return canvas.ids()
