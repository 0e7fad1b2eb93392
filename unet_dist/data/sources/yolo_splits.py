"""Which image of a YOLO export is in which split, as its data.yaml says: by folders, or by lists of images.

Owns how train, val and test of that file are read: paths were written where the tool ran, so that their ends count.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

from unet_dist.data.sources.lists import SplitList, forms_of, list_in, read_list
from unet_dist.data.sources.splits import FRACTIONS, canonical_split, is_split_name
from unet_dist.errors import DataError


def stated_splits(
    root: Path, stored: Mapping[str, object], images: Collection[Path]
) -> tuple[dict[Path, str], list[Path]]:
    """Give the split of the images that data.yaml assigns, and its lists. Nothing where all splits are alike.

    Args:
        stored: data.yaml.
        images: all of the export.

    Raises:
        DataError: an image is in two splits, or a list names one that is not there.
    """
    forms = forms_of((path.relative_to(root).with_suffix("").as_posix(), str(path)) for path in images)
    told: dict[str, set[Path]] = {}
    lists: dict[str, SplitList] = {}
    for key, entries in stored.items():
        if not is_split_name(key):
            continue
        for entry in entries if isinstance(entries, list) else [entries]:
            place = _locate(root, str(entry))
            if place is not None and place.is_dir():
                told.setdefault(canonical_split(key), set()).update(
                    path for path in images if path.is_relative_to(place)
                )
            elif place is not None:
                lists[canonical_split(key)] = list_in(place)
    for split, found in lists.items():
        told.setdefault(split, set()).update(Path(path) for path in read_list(found, forms, {}))
    if len({frozenset(paths) for paths in told.values()}) < 2:  # as where val is train: it says nothing
        return {}, []
    assigned: dict[Path, str] = {}
    for split in sorted(told, key=list(FRACTIONS).index):
        for path in told[split]:
            if assigned.setdefault(path, split) != split:
                raise DataError(
                    f"{root}: {path.relative_to(root)} is in {assigned[path]} and in {split}, by data.yaml or its lists. "
                    "Keep it in one of them."
                )
    return assigned, [found.path for found in lists.values()]


def _locate(root: Path, entry: str) -> Path | None:
    """Give the folder or list below the root that a path ends in, None where there is none."""
    parts = [part for part in PurePosixPath(entry.replace("\\", "/")).parts if part not in ("..", ".", "/")]
    places = [root.joinpath(*parts[start:]) for start in range(len(parts))]
    return next((place for place in places if place.is_dir() or (place.suffix == ".txt" and place.is_file())), None)
