"""Labelme's JSON beside each picture, drawn as masks.

Owns how a file names its picture and what its shapes mean. Class ids: 0 is background (`_background_`), the labels follow
as labels.txt lists them, else by name; what a shape labelled `__ignore__` covers counts nowhere.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypedDict

import numpy as np

from unet_dist.data.sources.polygons import BACKGROUND, Canvas, Drawn, Sample, is_background
from unet_dist.data.sources.splits import FRACTIONS, canonical_split, check_split_folders
from unet_dist.data.sources.walk import find_files, folders_of, is_picture
from unet_dist.errors import DataError, RefusedError
from unet_dist.storage.typed import read_bytes, read_json, read_text

_IGNORED = "__ignore__"
_Point = tuple[float, float]


class _LabelledShape(TypedDict):
    label: str
    points: list[_Point]


class _Shape(_LabelledShape, total=False):
    shape_type: str | None


class _File(TypedDict):
    """What of a file counts; the picture in it does not."""

    shapes: list[_Shape]
    imagePath: str
    imageHeight: int
    imageWidth: int


def is_labelme(root: Path) -> bool:
    """Say whether the first JSON below a folder is Labelme's."""
    first = next((path for path in find_files(root, {".json"}) if path.parent != root or path.stem != "id2label"), None)
    if first is None:
        return False
    text = read_bytes(first)
    return b'"shapes"' in text and b'"imagePath"' in text


def read_labelme(root: Path) -> Drawn:
    """Read the samples. Raises: DataError: a file is damaged, or its picture is not there."""
    folders = folders_of(root)
    is_split = check_split_folders(root, [path.name for path in folders])
    places = {canonical_split(path.name): path for path in folders} if is_split else {"train": root}
    stored = {split: [(path, _load(path)) for path in find_files(place, {".json"})] for split, place in places.items()}
    shapes = [shape for files in stored.values() for _, one in files for shape in one["shapes"]]
    class_names = [BACKGROUND, *_labels(root, {str(shape["label"]) for shape in shapes})]
    samples: dict[str, list[Sample]] = {}
    for split in sorted(stored, key=list(FRACTIONS).index):
        samples[split] = []
        for path, one in stored[split]:
            size = int(one["imageHeight"]), int(one["imageWidth"])
            draw = partial(_draw, one["shapes"], class_names, size)
            name = path.relative_to(places[split]).with_suffix("").as_posix()
            samples[split].append(Sample(name, _picture_of(root, path, one), draw, path.relative_to(root).as_posix()))
    num_without = sum(len(find_files(place)) for place in places.values()) - sum(map(len, samples.values()))
    files = [path for split in samples for path, _ in stored[split]] + [root / "labels.txt"] * (
        root / "labels.txt"
    ).is_file()
    return Drawn(
        samples, class_names, files, f"{num_without} pictures have no JSON and are left out" if num_without > 0 else ""
    )


def _load(path: Path) -> _File:
    """Keep what counts: not the picture in it."""
    stored = read_json(path, _File, remedy="Save it again in Labelme, or remove it.")
    return {
        "shapes": stored["shapes"],
        "imagePath": stored["imagePath"],
        "imageHeight": stored["imageHeight"],
        "imageWidth": stored["imageWidth"],
    }


def _picture_of(root: Path, path: Path, stored: _File) -> Path:
    name = PurePosixPath(str(stored["imagePath"]).replace("\\", "/"))
    named = (path.parent / name, path.parent / name.name)
    found = next((one for one in named if one.is_file() and one.resolve().is_relative_to(root.resolve())), None)
    found = found or next(
        (one for one in sorted(path.parent.glob("*")) if one.stem == path.stem and is_picture(one)), None
    )
    if found is None:
        raise DataError(f"{path}: its picture {name} is not there. Put it beside, or remove the file.")
    return (
        path.parent / found.name
        if found.parent.resolve() == path.parent.resolve()
        else root / found.resolve().relative_to(root.resolve())
    )


def _labels(root: Path, used: set[str]) -> list[str]:
    file = root / "labels.txt"
    if not file.is_file():
        return sorted(label for label in used if label != _IGNORED and not is_background(label))
    lines = [line.strip() for line in read_text(file).splitlines()]
    names = [line for line in lines if line and line != _IGNORED and not is_background(line)]
    lacking = sorted(label for label in used - {*names, _IGNORED} if not is_background(label))
    if lacking:
        raise DataError(f"{file}: it lacks the label {lacking[0]!r}, which shapes have. Add it, or correct the shapes.")
    return names


def _draw(shapes: list[_Shape], class_names: list[str], size: tuple[int, int], *, overlap: bool = False) -> np.ndarray:
    """Draw the shapes in the order of the file: (H, W). Raises: RefusedError: one is no area."""
    canvas = Canvas(*size, len(class_names), overlap=overlap)
    for shape in shapes:
        label, kind = shape["label"], shape.get("shape_type") or "polygon"
        points = np.asarray(shape["points"], dtype=np.float64).reshape(-1, 2)
        if kind == "rectangle" and len(points) == 2:
            (left, top), (right, bottom) = points
            points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        elif (kind != "polygon" or len(points) < 3) and (kind, len(points)) != ("rectangle", 4):
            raise RefusedError(
                f"has a {kind} of {len(points)} points, labelled {label}",
                "Polygons and rectangles are read: draw it as one, or remove it.",
            )
        value = canvas.ignored if label == _IGNORED else 0 if is_background(label) else class_names.index(label)
        canvas.polygon(points, value)
    return canvas.ids()
