"""Names of classes, in the forms that people keep them.

Owns where they lie and how each form is read: {"0": "sky"}, {"sky": 0}, a list of names or of {"id", "name"}, one name per line,
or any of these inside a file of settings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from unet_dist.errors import DataError
from unet_dist.storage.typed import read_json, read_text, read_yaml
from unet_dist.wording import first_line

_FILES = (
    "id2label.json",
    "label2id.json",
    "classes.json",
    "classes.txt",
    "labels.txt",
    "class_names.txt",
    "label_names.txt",
    "names.txt",
    "id2label.txt",
    "labels.json",
    "names.json",
    "class_names.json",
    "categories.json",
    "data.yaml",
    "dataset.yaml",
    "config.json",
)
_SETTINGS = ("data.yaml", "dataset.yaml", "config.json")  # which hold names only where one of these keys is there:
_INSIDE = ("id2label", "names", "class_names", "classes", "categories", "labels", "label2id")
_OF_PIXELS = {*_INSIDE, "class", "segmentation_classes"}
"""Columns whose ClassLabel names what pixels are."""
_MAX_ID = 65535  # of masks; gaps up to a larger one would be filled with names for minutes
_MOST_LETTERS = 1000  # as of a network's class_names
_VOC = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def find_id_names(root: Path) -> tuple[Path | None, dict[int, str] | None]:
    """Give the file with the names of the classes and what it says; those of VOC in its own folder, None where there is
    neither.

    Raises:
        DataError: the file is something else.
    """
    for name in _FILES:
        if (root / name).is_file() and (name not in _SETTINGS or _holds_names(root / name)):
            return root / name, read_id_names(root / name)
    if (found := _of_roboflow(root)) is not None:
        return found
    return None, dict(enumerate(_VOC)) if re.fullmatch(r"VOC20\d\d", root.resolve().name) else None


def _of_roboflow(root: Path) -> tuple[Path, dict[int, str]] | None:
    """Read the names of masks of Roboflow, a table in the folder of each split. Raises: DataError: they differ."""
    found: dict[Path, dict[int, str]] = {}
    for path in sorted((*root.glob("_classes.csv"), *root.glob("*/_classes.csv"))):
        head, *rows = [[cell.strip() for cell in line.split(",", 1)] for line in read_text(path).strip().split("\n")]
        if head[0].lower() == "pixel value" and all(len(row) == 2 and row[0].isdigit() for row in rows):
            found[path] = distinct({int(index): name for index, name in rows})
    first = next(iter(found), None)
    if first is None:
        return None
    if other := next((path for path, names in found.items() if names != found[first]), None):
        raise DataError(f"{other}: it names other classes than {first}. Export the splits alike.")
    return first, found[first]


def read_id_names(path: Path) -> dict[int, str]:
    """Read a file of names. Raises: DataError: it is something else."""
    remedy = 'Expected {"0": "sky", "1": "road"}, or a list of names.'
    try:
        return distinct(by_id(_parse(path, remedy)))
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
        raise DataError(f"{path}: cannot be read as names of classes ({first_line(error)}). {remedy}") from error


def distinct(names: Mapping[int, str]) -> dict[int, str]:
    """Put the id behind names that several ids have: a score for each name would be that of the last id.

    >>> distinct({0: "sky", 1: "car", 2: "car"})
    {0: 'sky', 1: 'car (1)', 2: 'car (2)'}
    """
    counts = Counter(names.values())
    return {index: f"{name} ({index})" if counts[name] > 1 else name for index, name in names.items()}


def _parse(path: Path, remedy: str = "") -> object:
    if path.suffix in (".yaml", ".yml"):
        return read_yaml(path, object, remedy=remedy)
    return read_json(path, object, remedy=remedy) if path.suffix == ".json" else read_text(path).strip().splitlines()


def _holds_names(path: Path) -> bool:
    try:
        stored = _parse(path)
    except DataError:
        return False
    return isinstance(stored, dict) and any(key in stored for key in _INSIDE)


def read_id2label(path: Path) -> dict[int, str] | None:
    """Read the names of classes, None where there is no such file. Raises: DataError: it is something else."""
    return read_id_names(path) if path.is_file() else None


def names_in_features(features: Mapping[str, object], label_column: str) -> dict[int, str] | None:
    """Give the names that the features of a table of `datasets` have for the classes of its masks, None where they have none.

    A list of ClassLabel says which classes are in a picture. A single ClassLabel says what the whole picture is; its names are
    those of pixels only where its column is called after the masks or after classes. Different lists of names decide nothing.

    Args:
        features: of `datasets`, by column.
        label_column: that of the masks.
    """
    found = set()
    for column, feature in features.items():
        inside = getattr(feature, "feature", None)  # of List, LargeList and Sequence
        names = getattr(feature if inside is None else inside, "names", None)
        if names and (inside is not None or column in _OF_PIXELS or column.startswith(f"{label_column}_")):
            found.add(tuple(names))
    return dict(enumerate(found.pop())) if len(found) == 1 else None


def by_id(stored: object) -> dict[int, str]:
    """Read names from any of the forms. Raises: ValueError, TypeError, KeyError: it is something else, or an id is too large."""
    names = _by_id(stored)
    if (largest := max(names, default=0)) > _MAX_ID:
        raise ValueError(f"the id {largest:g} is beyond {_MAX_ID}")
    if (longest := max(map(len, names.values()), default=0)) > _MOST_LETTERS:
        raise ValueError(f"a name has {longest:,} letters")
    return names


def _by_id(stored: object) -> dict[int, str]:
    inside = [key for key in _INSIDE if key in stored] if isinstance(stored, dict) else []
    if inside and isinstance(stored, dict) and isinstance(stored[inside[0]], list | dict):
        return _by_id(stored[inside[0]])
    if isinstance(stored, list):
        numbered = [re.fullmatch(r"(\d+)[\s:,;]+(\S.*)", str(item).strip()) for item in stored]
        if numbered and all(numbered):
            return {int(match[1]): match[2].strip() for match in numbered if match}
        if all(isinstance(item, dict) for item in stored):
            named = [(item.get("id", index), item["name"]) for index, item in enumerate(stored)]
            if len({int(number) for number, _ in named}) < len(named):
                raise ValueError("two names have one id")
            return {int(number): _word(name) for number, name in named}
        words = [_word(name).strip() for name in stored]
        # Labelme's list of labels begins at -1.
        return dict(enumerate(words[1:] if words[:2] == ["__ignore__", "_background_"] else words))
    if not isinstance(stored, dict):
        raise TypeError(f"a {type(stored).__name__}")
    if all(str(key).lstrip("-").isdigit() for key in stored):
        return {int(key): _word(name) for key, name in stored.items()}
    found = {int(value): str(key) for key, value in stored.items()}
    if len(found) < len(stored):
        raise ValueError("two names have one id")
    return found


def _word(name: object) -> str:
    """A name as a text; a number is one too, and nothing else. Raises: TypeError: it is something else."""
    if isinstance(name, bool) or not isinstance(name, (str, int, float)):
        raise TypeError(f"a {type(name).__name__} as a name")
    str(name).encode()  # half of a pair of UTF-16 is no text that can be written
    return str(name)
