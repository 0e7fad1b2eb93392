"""QuPath's GeoJSON beside each picture: its annotations, in pixels, drawn as masks.

Owns how a file finds its picture and what names the class of an object. Class ids: 0 is background, the classes follow by name.
Objects are drawn in the order of the file. Predictions that were written as GeoJSON read back as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from unet_dist.data.sources.named_pictures import candidates
from unet_dist.data.sources.polygons import BACKGROUND, Canvas, Drawn, Sample, is_background, picture_size
from unet_dist.data.sources.splits import FRACTIONS, canonical_split, check_split_folders
from unet_dist.data.sources.vectors import Feature, read_vectors
from unet_dist.data.sources.walk import find_files, folders_of
from unet_dist.errors import DataError
from unet_dist.wording import counted

_HEAD_BYTES = 2**16


def find_qupath(root: Path) -> list[Path]:
    """List QuPath's files in a folder and in those below it."""
    return [path for suffix in (".geojson", ".json") for path in candidates(root, suffix) if _is_qupath(path)]


def _is_qupath(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return b'"objectType"' in head and b'"Feature' in head


def read_qupath(root: Path, files: Sequence[Path]) -> Drawn:
    """Read the samples. Raises: DataError: a file is damaged, its picture is not there, or an object has no class."""
    pictures = find_files(root)
    stored = {path: [(_class_of(path, one), one) for one in read_vectors(path).features] for path in files}
    named = {name for objects in stored.values() for name, _ in objects}
    class_names = [BACKGROUND, *sorted(name for name in named if not is_background(name))]
    is_split = check_split_folders(root, [path.name for path in folders_of(root)])
    samples: dict[str, list[Sample]] = {}
    for path, objects in stored.items():
        picture = _picture_of(path, pictures)
        name = picture.relative_to(root)
        draw = partial(_draw, picture, objects, class_names)
        split = canonical_split(name.parts[0]) if is_split and len(name.parts) > 1 else "train"
        short = name.with_suffix("").as_posix()
        samples.setdefault(split, []).append(Sample(short, picture, draw, path.relative_to(root).as_posix()))
    left = len(pictures) - len(files)
    note = f"{counted(left, 'picture')} without a GeoJSON left out" if left > 0 else ""
    return Drawn({split: samples[split] for split in FRACTIONS if split in samples}, class_names, list(files), note)


def _picture_of(path: Path, pictures: Sequence[Path]) -> Path:
    """Give the picture whose name a file has, beside it before elsewhere."""
    found = [one for one in pictures if path.stem in (one.stem, one.name)]
    beside = [one for one in found if one.parent == path.parent]
    found = beside if len(beside) == 1 else found
    if len(found) != 1:
        raise DataError(
            f"{path}: {counted(len(found), 'picture')} below the folder for it. Expected one of its name, such as {path.stem}.tif."
        )
    return found[0]


def _class_of(path: Path, feature: Feature) -> str:
    told = feature.properties.get("classification")
    names = (told.get("names") or [told.get("name")]) if isinstance(told, dict) else [told]
    if not all(names):
        raise DataError(f"{path}: an object has no class. Set its class in QuPath, or delete it, and export again.")
    return ": ".join(map(str, names))


def _draw(
    picture: Path, objects: Sequence[tuple[str, Feature]], class_names: list[str], *, overlap: bool = False
) -> np.ndarray:
    """Draw the objects in the order of the file: (H, W)."""
    canvas = Canvas(*picture_size(picture), len(class_names), overlap=overlap)
    for name, feature in objects:
        for rings in feature.polygons:
            canvas.rings(rings, 0 if is_background(name) else class_names.index(name))
    return canvas.ids()
