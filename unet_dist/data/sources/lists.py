"""Which sample is in which split, by lists: train.txt, val_list.txt, splits.json, or VOC's ImageSets/Segmentation.

Owns where lists lie, what they look like and how an entry names a sample.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from unet_dist.data.sources.splits import canonical_split, is_split_name, looks_like_split
from unet_dist.data.sources.walk import folders_of
from unet_dist.errors import DataError
from unet_dist.imaging.formats import image_suffixes
from unet_dist.storage.typed import read_json, read_text
from unet_dist.wording import shorten

_PLACES = ["imagesets/segmentation", "imagesets", "imagesets/main"]
_PLACES += ["splits", "split", "lists", "list", "file_lists", "filelists", "sets", "images", "annotations"]
_SUFFIXES = (".txt", ".lst", ".csv")
_BESIDE = r"(?:list|lists|filelist|files?|ids?|names?|split|images?|samples?)"
_NAME = re.compile(rf"(?:{_BESIDE}[-_. ]?)??([a-z]+?(?:19\d\d|20\d\d)?)(?:[-_. ]?{_BESIDE})?", re.IGNORECASE)
_MOST_LETTERS = 4096
"""Of a path, as Linux has it: every end of a line is looked up, which takes the square of its length."""
_HEADS = {
    "",
    "image",
    "images",
    "id",
    "ids",
    "name",
    "names",
    "file",
    "files",
    "filename",
    "file_name",
    "path",
    "sample",
}
_HEADS |= {"image_id", "imageid", "image_path", "img", "image_name", "img_path", "imagefile", "image_file"}


class SplitList(NamedTuple):
    """The list of one split: its file, and for each entry where it stands and its words, the first of which is the image."""

    path: Path
    entries: list[tuple[str, list[str]]]


def find_lists(root: Path, masks_folder: str = "") -> dict[str, SplitList]:
    """Give the list of each split, from the first folder that holds any; VOC's have a folder for each kind of masks.

    Raises:
        DataError: one looks like the list of a split and is none, or two are of one split, or a file cannot be read.
    """
    for folder in _folders(root, masks_folder):
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())
        named = [(split, path) for path in files if (split := _split_of(path.stem)) is not None]
        tables = sorted(path for path in folder.glob("*.json") if re.search(r"(^|[-_. ])splits?([-_. ]|$)", path.stem))
        if tables and not named:
            return _read_table(tables[0])
        lists = dict(named)
        if "train" not in lists and "validation" not in lists:  # both in one list, of which validation is cut as usual
            lists.update(("train", path) for path in files if path.stem.lower() == "trainval")
        if not lists:
            continue
        twice = [path.name for split, path in named if sum(other == split for other, _ in named) > 1]
        if twice:
            raise DataError(
                f"{folder}: two lists are of the split {_split_of(Path(twice[0]).stem)}: {', '.join(twice)}. "
                "Keep one of them."
            )
        wholes = {"trainval"} if {"train", "validation"} <= lists.keys() else set()  # VOC: both in one list beside
        odd = [path for path in files if looks_like_split(path.stem) and path not in lists.values()]
        odd = [path for path in odd if path.stem.lower() not in wholes]
        if odd:
            raise DataError(
                f"{odd[0]}: this list looks like one of a split beside {', '.join(path.name for path in lists.values())}. "
                "Name the lists train.txt, val.txt and test.txt, and remove others."
            )
        return {split: list_in(path) for split, path in lists.items()}
    return {}


def list_in(path: Path) -> SplitList:
    """Read the list in a file. Raises: DataError: it cannot be read."""
    return SplitList(path, list(_entries(path)))


def _folders(root: Path, masks_folder: str) -> Iterator[Path]:
    """The folders where lists may lie, whatever the case of their names."""
    yield root
    below = {path.name.lower(): path for path in folders_of(root)}
    for place in (f"imagesets/{masks_folder.lower().replace('class', '')}", *_PLACES):
        first, _, second = place.partition("/")
        folder = below.get(first)
        if folder is not None and second:
            folder = next((path for path in folders_of(folder) if path.name.lower() == second), None)
        if folder is not None:
            yield folder


def _split_of(stem: str) -> str | None:
    """Give the split whose list has this name: train, val_list, list_test, training_ids; None for another name."""
    match = _NAME.fullmatch(stem)
    return canonical_split(match[1]) if match and is_split_name(match[1]) else None


def _entries(path: Path) -> Iterator[tuple[str, list[str]]]:
    remedy = "Write one name per line in UTF-8."
    text = read_text(path, remedy=remedy)
    if path.suffix.lower() == ".csv":
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        try:
            for number, cells in enumerate(csv.reader(text.splitlines(), delimiter=delimiter), start=1):
                if any(cells) and not (number == 1 and cells[0].strip().lower() in _HEADS):
                    yield f"line {number}", [cell.strip() for cell in cells]
        except csv.Error as error:
            raise DataError(f"{path}: this list cannot be read ({error}). {remedy}") from error
        return
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if line:
            yield f"line {number}", [line]


def _read_table(path: Path) -> dict[str, SplitList]:
    """Read {"train": [names], "val": [names]}. Raises: DataError: it is something else."""
    remedy = 'Expected {"train": [names], "val": [names], "test": [names]}; or rename the file, if it says no splits.'
    stored = read_json(path, dict[str, list[str]], remedy=remedy)
    odd = sorted(name for name in stored if not is_split_name(name))
    if odd or not stored or len({canonical_split(name) for name in stored}) < len(stored):
        raise DataError(f"{path}: the splits of this file are {', '.join(stored) or 'none'}. {remedy}")
    return {
        canonical_split(name): SplitList(path, [(f"{name}, entry {n}", [word]) for n, word in enumerate(words, 1)])
        for name, words in stored.items()
    }


def read_list(found: SplitList, names: Mapping[str, str], mask_names: Mapping[str, str]) -> list[str]:
    """Give the samples that a list names, each once, in order of names.

    Args:
        names: sample by each form of its image's name, as `forms_of` gives them.
        mask_names: sample by each form of its mask's name.

    Raises:
        DataError: it is empty, names something else, or pairs an image with another's mask.
    """
    samples: set[str] = set()
    for place, words in found.entries:
        parts = words if len(words) > 1 else words[0].split() or words
        sample, mask = _look_up(parts[0], names), parts[1] if len(parts) > 1 else None
        if len(words) == 1 and (mask is None or sample is None or _look_up(mask, mask_names) is None):
            sample, mask = _look_up(words[0], names) or sample, None  # a name may have spaces in it
        if sample is None and words[0].startswith("#"):
            continue
        if sample is None:
            raise DataError(
                f'{found.path}, {place}: there is no image "{shorten(words[0])}", or several. Correct the line; or rename '
                "the list, if it is none."
            )
        paired = None if mask is None else _look_up(mask, mask_names)
        if paired is not None and paired != sample:
            raise DataError(
                f"{found.path}, {place}: it pairs {shorten(words[0].split()[0])} with the mask of {paired.lstrip('/')}, and "
                "folders pair by names. Give the list as the data set: --data_path list.csv, with columns image, mask and split."
            )
        samples.add(sample)
    if not samples:
        raise DataError(f"{found.path}: this list of a split is empty. Fill or remove it.")
    return sorted(samples)


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
            form = _spelt("/".join(parts[start:]))
            forms[form] = sample if forms.get(form, sample) == sample else None
    return {form: sample for form, sample in forms.items() if sample is not None}


def _look_up(line: str, names: Mapping[str, str]) -> str | None:
    if len(line) > _MOST_LETTERS:
        return None
    path = PurePosixPath(_spelt(line.replace("\\", "/")))
    if path.suffix.lower() in image_suffixes():
        path = path.with_suffix("")
    parts = [part for part in path.parts if part not in ("/", ".")]
    found = (names.get("/".join(parts[start:])) for start in range(len(parts)))
    return next((sample for sample in found if sample is not None), None)


def _spelt(text: str) -> str:
    """Spell accents in one way: a Mac writes them as marks of their own."""
    return unicodedata.normalize("NFC", text)
