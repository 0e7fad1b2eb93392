"""Which sample is in which split, by lists: train.txt, val.txt, test.txt, or VOC's ImageSets/Segmentation.

Owns where lists lie and how a line names a sample.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from unet_dist.data.sources.splits import canonical_split, is_split_name, looks_like_split
from unet_dist.data.sources.walk import is_picture
from unet_dist.errors import DataError

_PLACES = (".", "ImageSets/Segmentation", "ImageSets", "splits", "lists")


def find_lists(root: Path) -> dict[str, Path]:
    """Give the list of each split, from the first folder that holds any.

    Raises:
        DataError: one looks like the list of a split and is none.
    """
    for place in _PLACES:
        files = sorted((root / place).glob("*.txt"))
        lists = {canonical_split(path.stem): path for path in files if is_split_name(path.stem)}
        if not lists:
            continue
        wholes = {"trainval"} if {"train", "validation"} <= lists.keys() else set()  # VOC: both in one list beside
        odd = [path for path in files if looks_like_split(path.stem) and path not in lists.values()]
        odd = [path for path in odd if path.stem.lower() not in wholes]
        if odd:
            raise DataError(
                f"{odd[0]}: this list looks like one of a split beside {', '.join(path.name for path in lists.values())}. "
                "Name the lists train.txt, val.txt and test.txt, and remove others."
            )
        return lists
    return {}


def read_list(path: Path, names: dict[str, str]) -> list[str]:
    """Give the samples that a list names, each once, in order of names.

    Args:
        names: sample by each form of its name, as `forms_of` gives them.

    Raises:
        DataError: it cannot be read, is empty or names something else.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: this list cannot be read ({error}). Write one name a line in UTF-8.") from error
    found: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        sample = _look_up(line, names) or _look_up(line.split()[0], names)
        if sample is None:
            raise DataError(
                f'{path}, line {number}: there is no image "{line}", or several. Correct the line; or rename the list, if '
                "it is none."
            )
        found.add(sample)
    if not found:
        raise DataError(f"{path}: this list of a split is empty. Fill or remove it.")
    return sorted(found)


def forms_of(paths: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Give the sample by each way to write it: its path, its name, and the ends of the path between; what fits several
    samples is left out.

    Args:
        paths: a path without the extension and its sample; a sample may have several paths.
    """
    forms: dict[str, str | None] = {}
    for path, sample in paths:
        parts = PurePosixPath(path).parts
        for start in range(len(parts)):
            form = "/".join(parts[start:])
            forms[form] = sample if forms.get(form, sample) == sample else None
    return {form: sample for form, sample in forms.items() if sample is not None}


def _look_up(line: str, names: dict[str, str]) -> str | None:
    path = PurePosixPath(line.replace("\\", "/"))
    if is_picture(Path(path)) or path.suffix == ".zarr":
        path = path.with_suffix("")
    parts = [part for part in path.parts if part not in ("/", ".")]
    found = (names.get("/".join(parts[start:])) for start in range(len(parts)))
    return next((sample for sample in found if sample is not None), None)
