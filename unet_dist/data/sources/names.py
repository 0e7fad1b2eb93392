"""Names of classes, in the forms that people keep them.

Owns where they lie and how each form is read: {"0": "sky"}, {"sky": 0}, a list, one name a line.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from unet_dist.errors import DataError

_FILES = (
    "id2label.json",
    "label2id.json",
    "classes.json",
    "classes.txt",
    "labels.txt",
    "class_names.txt",
    "label_names.txt",
)
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
        if (root / name).is_file():
            return root / name, read_id_names(root / name)
    return None, dict(enumerate(_VOC)) if re.fullmatch(r"VOC20\d\d", root.resolve().name) else None


def read_id_names(path: Path) -> dict[int, str]:
    """Read a file of names. Raises: DataError: it is something else."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        stored = json.loads(text) if path.suffix == ".json" else text.strip().splitlines()
        return _by_id(stored)
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise DataError(
            f'{path}: cannot be read as names of classes ({error}). Expected {{"0": "sky", "1": "road"}}, or a list of names.'
        ) from error


def read_id2label(path: Path) -> dict[int, str] | None:
    """Read the names of classes, None where there is no such file. Raises: DataError: it is something else."""
    return read_id_names(path) if path.is_file() else None


def _by_id(stored: object) -> dict[int, str]:
    if isinstance(stored, list):
        numbered = [re.fullmatch(r"(\d+)[\s:,;]+(\S.*)", str(item).strip()) for item in stored]
        if numbered and all(numbered):
            return {int(match[1]): match[2].strip() for match in numbered if match}
        if all(isinstance(item, dict) for item in stored):
            return {int(item["id"]): str(item["name"]) for item in stored}
        return {index: str(name).strip() for index, name in enumerate(stored)}
    if not isinstance(stored, dict):
        raise TypeError(f"a {type(stored).__name__}")
    if all(str(key).lstrip("-").isdigit() for key in stored):
        return {int(key): str(name) for key, name in stored.items()}
    by_id = {int(value): str(key) for key, value in stored.items()}
    if len(by_id) < len(stored):
        raise ValueError("two names have one id")
    return by_id
