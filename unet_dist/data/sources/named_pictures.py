"""The picture that an annotation file names, and the split that the file is of.

Owns how a name finds its picture below a folder: names are written where the tool ran, and pictures have moved since.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from unet_dist.data.sources.splits import FRACTIONS, canonical_split, is_split_name
from unet_dist.data.sources.walk import find_files, is_hidden
from unet_dist.errors import DataError
from unet_dist.wording import listed

Pictures = dict[str, list[Path]]
"""The pictures below a folder by the name of their file."""


def pictures_below(root: Path) -> Pictures:
    """List the pictures below a folder by name."""
    pictures: Pictures = {}
    for path in find_files(root):
        pictures.setdefault(_spelt(path.name), []).append(path)
    return pictures


def _spelt(text: str) -> str:
    """Spell accents in one way: a Mac writes them as marks of their own."""
    return unicodedata.normalize("NFC", text)


def find_picture(name: str, path: Path, pictures: Pictures) -> Path | None:
    """Give the one picture that a name in the file `path` means, None where there is none or several.

    A longer end of the name goes first, then what lies beside the file, then what lies in a folder of the file's split.
    """
    parts = PurePosixPath(_spelt(name).replace("\\", "/")).parts
    found = pictures.get(parts[-1] if parts else "", [])
    whole = "/".join(part for part in parts if part not in ("..", ".", "/"))
    for fits in (
        lambda one: True,
        lambda one: _spelt(one.as_posix()).endswith(f"/{whole}"),
        lambda one: one.is_relative_to(path.parent),
        lambda one: any(canonical_split(part) == split_of(path) for part in one.parent.parts[-2:]),
    ):
        left = [one for one in found if fits(one)]
        if len(left) == 1:
            return left[0]
    return None


def name_in_address(address: str) -> str:
    """Give the path in an address of a tool: /data/local-files/?d=a/b.png, s3://bucket/a/b.png, /data/upload/1/b.png?x=1."""
    local = re.search(r"[?&]d=([^&]+)", address)
    return unquote(local[1] if local else re.sub(r"^\w+://[^/]*/", "", address).partition("?")[0])


def split_of(path: Path) -> str | None:
    """Give the split that the name of a file or of its folder tells, None where it tells none."""
    words = [word for word in re.split(r"[^a-z0-9]+", path.stem.lower()) if is_split_name(word)]
    words = words or [path.parent.name] * is_split_name(path.parent.name)
    return canonical_split(words[0]) if len(words) == 1 else None


def files_by_split(files: Iterable[Path], kind: str) -> dict[str, Path]:
    """Give the annotation file of each split: one alone is `train` unless its name tells more.

    Raises:
        DataError: there are several of a split, or of none that is known.
    """
    files = list(files)
    if len(files) == 1:
        return {split_of(files[0]) or "train": files[0]}
    found: dict[str, Path] = {}
    for path in files:
        split = split_of(path)
        if split is None or split in found:
            raise DataError(
                f"{path}: {'its name tells no split' if split is None else f'{found[split]} is of {split}, too'}. Keep one "
                f"{kind} file for each of train, val and test, with that word in its name; or give one as data_path."
            )
        found[split] = path
    return {split: found[split] for split in FRACTIONS if split in found}


def candidates(root: Path, suffix: str) -> list[Path]:
    """List the files of a suffix in a folder and in those below it, by path."""
    places = [path for pattern in (f"*{suffix}", f"*/*{suffix}") for path in sorted(root.glob(pattern))]
    return [path for path in places if path.is_file() and not is_hidden(path.parent.name) and not is_hidden(path.name)]


def refuse_missing(path: Path, root: Path, missing: list[str]) -> None:
    """Raises DataError: pictures that a file names are not there."""
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of its images are not below {root}, or there several times: {listed(missing)}. Put them "
            "there, under these names."
        )
