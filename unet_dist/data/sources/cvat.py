"""CVAT for images: one XML for a task, its polygons, masks and ellipses drawn as masks.

Owns where such files lie and what their shapes mean. Class ids: 0 is background, the labels follow as the task lists them,
else by name. Objects are drawn in the order of their layers (z_order), then of the file.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

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
from unet_dist.data.sources.splits import FRACTIONS, canonical_split, check_split_names
from unet_dist.errors import DataError, RefusedError

_HEAD_BYTES = 2**16
_DRAWN, _SKIPPED = ("polygon", "mask", "ellipse"), ("tag",)
_NO_SUBSET = ("", "default")
_Stored = tuple[Path, list[ElementTree.Element], list[str]]


def find_cvat(root: Path) -> dict[str, Path]:
    """Give the CVAT file of each split below a folder, none where there is none. Raises: DataError: several of one split."""
    return files_by_split((path for path in candidates(root, ".xml") if is_cvat(path)), "CVAT")


def is_cvat(path: Path) -> bool:
    """Say whether a file is CVAT's XML for images."""
    if path.suffix != ".xml" or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return b"<annotations>" in head and (b"<image " in head or b"<meta>" in head)


def read_cvat(root: Path, files: dict[str, Path]) -> Drawn:
    """Read the samples. Raises: DataError: a file is damaged, or names images that are not there."""
    stored = {split: _load(path) for split, path in files.items()}
    names = list(dict.fromkeys(name for _, _, labels in stored.values() for name in labels))
    if not names:
        used = {shape.get("label", "") for _, images, _ in stored.values() for image in images for shape in image}
        names = sorted(used)
    class_names = [BACKGROUND, *(name for name in names if not is_background(name))]
    pictures = pictures_below(root)
    samples: dict[str, list[Sample]] = {}
    for split, (path, images, _) in stored.items():
        for name, sample in _samples(root, path, images, pictures, class_names):
            samples.setdefault(name or split, []).append(sample)
    return Drawn({split: samples[split] for split in FRACTIONS if split in samples}, class_names, list(files.values()))


def _load(path: Path) -> _Stored:
    try:
        tree = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(f"{path}: cannot be read as CVAT's XML ({error}). Export it again.") from error
    if tree.find("track") is not None:
        raise DataError(
            f"{path}: it is CVAT for video, whose tracks name frames and no pictures. Export the task as CVAT for images 1.1."
        )
    return path, tree.findall("image"), [label.text or "" for label in tree.findall("./meta//labels/label/name")]


def _samples(
    root: Path, path: Path, images: list[ElementTree.Element], pictures: Pictures, class_names: list[str]
) -> list[tuple[str | None, Sample]]:
    """Give each sample and the split that its image names, None where it names none."""
    found, missing = [], []
    subsets = {image.get("subset", "") for image in images}
    splits = check_split_names(f"{path}, subsets", subsets.difference(_NO_SUBSET))
    for image in sorted(images, key=lambda one: one.get("name", "")):
        name = image.get("name", "")
        picture = find_picture(name, path, pictures)
        if picture is None:
            missing.append(name)
            continue
        subset = image.get("subset", "")
        split = canonical_split(subset) if subset in splits else None
        draw = partial(_draw, image, class_names)
        short = picture.relative_to(root).with_suffix("").as_posix()
        found.append((split, Sample(short, picture, draw, f"of {picture.name} in {path.name}")))
    refuse_missing(path, root, missing)
    return found


def _draw(image: ElementTree.Element, class_names: list[str], *, overlap: bool = False) -> np.ndarray:
    """Draw the shapes of an image: (H, W). Raises: RefusedError: one is no area, or cannot be read."""
    try:
        height, width = int(image.attrib["height"]), int(image.attrib["width"])
        canvas = Canvas(height, width, len(class_names), overlap=overlap)
        for shape in sorted(image, key=lambda one: int(one.get("z_order", 0))):
            if shape.tag not in _SKIPPED:
                _draw_shape(canvas, shape, class_names)
    except (KeyError, ValueError) as error:
        raise RefusedError(f"cannot be read as CVAT's XML ({error})", "Export it again.") from error
    return canvas.ids()


def _draw_shape(canvas: Canvas, shape: ElementTree.Element, class_names: list[str]) -> None:
    told: Any = shape.attrib
    label = told["label"]
    if shape.tag not in _DRAWN:
        raise RefusedError(
            f"has a {shape.tag} labelled {label}",
            "Polygons, masks and ellipses are read: draw it as one, or remove it; a box says nothing of the pixels.",
        )
    value = 0 if is_background(label) else class_names.index(label)
    if shape.tag == "polygon":
        canvas.polygon(np.array([point.split(",") for point in told["points"].split(";")], dtype=np.float64), value)
    elif shape.tag == "ellipse":
        radii = float(told["rx"]), float(told["ry"])
        canvas.ellipse((float(told["cx"]), float(told["cy"])), radii, float(told.get("rotation", 0)), value)
    else:  # runs along the rows of the mask's box, the first not filled
        counts = np.array(told["rle"].split(","), dtype=np.int64)
        height, width = int(told["height"]), int(told["width"])
        if not (0 <= height <= canvas.shape[0] and 0 <= width <= canvas.shape[1]):
            raise ValueError(f"a mask in a box of {height} x {width} px, larger than the image")
        if (counts < 0).any() or (counts > height * width).any() or counts.sum() != height * width:
            raise ValueError(f"a mask of {counts.sum()} px in a box of {height * width}")
        filled = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
        canvas.pixels(filled, value, int(told["top"]), int(told["left"]))
