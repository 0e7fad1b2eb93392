"""YOLO's text of outlines: one line per object, its class and points in shares of the width and the height.

Owns where such files lie and what their lines mean. Class ids: 0 is background, class 0 of the file is 1, and so on; one that
is called background is 0.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from unet_dist.data.sources.layout import SPLIT, Layout, by_name
from unet_dist.data.sources.names import by_id, find_id_names
from unet_dist.data.sources.polygons import BACKGROUND, Canvas, Drawn, Sample, is_background, picture_size
from unet_dist.data.sources.splits import FRACTIONS
from unet_dist.data.sources.walk import find_files, first_picture
from unet_dist.data.sources.yolo_splits import stated_splits
from unet_dist.errors import DataError, RefusedError
from unet_dist.storage.typed import read_text, read_yaml
from unet_dist.wording import counted, listed

_BEYOND = 0.01
"""Of an image's side, that an outline may reach beyond it: exports round."""


def find_yolo(root: Path) -> Layout | None:
    """Give how images/ and labels/ of texts lie below a folder, None where they do not."""
    if _holds_texts(root):
        return Layout("images", "labels")
    if any(_holds_texts(path) for path in root.iterdir() if path.is_dir()):
        return Layout(f"{SPLIT}/images", f"{SPLIT}/labels")
    return None


def read_yolo(root: Path, layout: Layout) -> Drawn:
    """Read the samples. Raises: DataError: texts without an image, or the classes have no names."""
    names_file, names, settings = _read_names(root)
    listed_names = [names.get(index, f"class_{index}") for index in range(max(names) + 1)]
    class_names = [BACKGROUND, *(name for name in listed_names if not is_background(name))]
    is_object = np.array([not is_background(name) for name in listed_names])
    classes = (is_object * is_object.cumsum()).tolist()
    images, labels = layout.places(root)
    found = {split: by_name(folder, "*") for split, folder in images.items()}
    stated, lists = stated_splits(root, settings, [path for each in found.values() for path in each.values()])
    samples: dict[str, list[Sample]] = {}
    files = [names_file, *lists]
    num_without, num_unlisted = 0, 0
    for split in sorted(images, key=("", *FRACTIONS).index):
        pictures = found[split]
        texts = {name: path for name, path in by_name(labels[split], "*", {".txt"}).items() if name != "classes"}
        stray = [str(texts[name]) for name in sorted(texts.keys() - pictures.keys())]
        if stray:
            raise DataError(
                f"{labels[split]}: texts without an image: {listed(stray)}. Add the images, or remove the texts."
            )
        num_without += len(pictures.keys() - texts.keys())
        files += texts.values()
        for name, path in sorted(pictures.items()):
            target = stated.get(path, split or ("" if stated else "train"))
            if not target:
                num_unlisted += 1
                continue
            draw = partial(_draw, path, texts.get(name), classes, len(class_names))
            samples.setdefault(target, []).append(Sample(name, path, draw, f"of {path.name} in {labels[split].name}/"))
    notes = [f"{counted(num_without, 'image')} without text: all background, as YOLO reads them"] * (num_without > 0)
    notes += [f"{counted(num_unlisted, 'image')} in no split of {names_file.name}, left out"] * (num_unlisted > 0)
    ordered = {split: samples[split] for split in FRACTIONS if split in samples}
    return Drawn(ordered, class_names, files, "; ".join(notes))


def _holds_texts(folder: Path) -> bool:
    images, labels = folder / "images", folder / "labels"
    if not (images.is_dir() and labels.is_dir()) or first_picture(labels) is not None:
        return False
    return any(path.stem != "classes" for path in find_files(labels, {".txt"}))


def _read_names(root: Path) -> tuple[Path, dict[int, str], dict[str, object]]:
    """Give the file of the names, the names by class, and what else it says."""
    usual = ("data.yaml", "dataset.yaml", "data.yml")
    for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")], key=lambda one: (one.name not in usual, one.name)):
        try:
            stored = read_yaml(path, dict[str, object])
        except DataError:
            continue
        if "kpt_shape" in stored:
            raise DataError(
                f"{path}: its labels are the points of poses (kpt_shape), expected segments. Export outlines."
            )
        try:
            return path, by_id(stored["names"]), stored
        except (ValueError, TypeError, KeyError):
            continue
    path_of_names, found = find_id_names(root)
    if path_of_names is None or not found:
        raise DataError(
            f"{root}: no names of the classes. Put data.yaml with names: [...], or classes.txt, into the folder."
        )
    return path_of_names, found, {}


def _whole(word: str) -> int:
    """Read the number of a class, which some exports write as 0.0. Raises: ValueError: it is none."""
    if not float(word).is_integer():
        raise ValueError(f"{word} is no class")
    return int(float(word))


def _draw(image: Path, text: Path | None, classes: list[int], num_classes: int, *, overlap: bool = False) -> np.ndarray:
    """Draw the objects of an image in the order of the file: (H, W). Raises: RefusedError: a line is no outline."""
    height, width = picture_size(image)
    canvas = Canvas(height, width, num_classes, overlap=overlap)
    lines = read_text(text).splitlines() if text else []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        if len(words) == 5:
            raise RefusedError(
                f"has a box in line {number} and no outline", "Export segments: a box says nothing of the pixels."
            )
        try:
            class_index, values = _whole(words[0]), np.array([float(word) for word in words[1:]])
            points = values.reshape(-1, 2) * (width, height)
        except ValueError as error:
            raise RefusedError(f"cannot be read in line {number} ({error})", "Export the segments again.") from error
        beyond = (values < -_BEYOND) | (values > 1 + _BEYOND)
        if beyond.any():
            raise RefusedError(
                f"has {values[beyond][0]:g} in line {number}, expected shares of the width and the height from 0 to 1",
                "Export segments of YOLO: pixels and the points of a pose are read otherwise.",
            )
        if len(points) < 3 or not 0 <= class_index < len(classes) or not np.isfinite(points).all():
            raise RefusedError(
                f"has {len(points)} points of class {class_index} in line {number}, for {len(classes)} named classes",
                "Expected three points or more of a named class: correct the text, or the names.",
            )
        canvas.polygon(points, classes[class_index])
    return canvas.ids()
