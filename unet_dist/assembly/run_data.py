"""The data of a run, found again: its paths, wherever a command is given, and whether they are still those of the training.

Owns the entries of data.json for it. Must not know how a data set is opened.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unet_dist.assembly.data_set import LAYOUT_KEYS, source_of
from unet_dist.assembly.resuming import other_data
from unet_dist.assembly.run_folder import DATA_FILE
from unet_dist.config.sections import Config
from unet_dist.data.decoded.cache import Cache
from unet_dist.data.sources.folder import FolderSource
from unet_dist.data.sources.guess import guess_layout
from unet_dist.data.sources.layout import Layout
from unet_dist.errors import DataError
from unet_dist.storage.typed import read_json

_PATHS, _IDENTITY, _TEST, _NAMES = "paths", "identity", "test_pixels", "names_in_one_folder"
_PATH_KEYS = ("data_path", "cache_path")


def record_of(config: Config, cache: Cache) -> dict[str, Any]:
    """What data.json says of where the data lie and what they are."""
    said = {key: getattr(config.data, key) for key in _PATH_KEYS}
    paths = {key: os.path.abspath(path) for key, path in said.items() if path is not None and Path(path).exists()}
    names = _names_in_one_folder(config)
    return {
        _PATHS: paths,
        _IDENTITY: cache.identity,
        _TEST: _pixels_of_test(cache),
        **({_NAMES: names} if names else {}),
    }


def _names_in_one_folder(config: Config) -> dict[str, str] | None:
    """How the names of images and masks differ that lie in one folder, as the config says it or as it was guessed."""
    path = Path(config.data.data_path).expanduser()
    said = {key: value for key in LAYOUT_KEYS if (value := getattr(config.data, key)) is not None}
    try:
        seen = Layout(**said) if said else guess_layout(path) if path.is_dir() else None
    except DataError:  # read as something else
        return None
    if seen is None or seen.images_folder != seen.masks_folder or not isinstance(source_of(config), FolderSource):
        return None
    return {"image_names": seen.image_names, "mask_names": seen.mask_names}


def layout_of(folder: Path | None) -> Layout:
    """How the names of images and masks differ in the folder that a run was trained on; alike where they lie apart."""
    names = None if folder is None else _read(folder).get(_NAMES)
    if not isinstance(names, dict) or set(names) != {"image_names", "mask_names"}:
        return Layout()
    is_plain = all(isinstance(name, str) and name.count("*") == 1 for name in names.values())
    return Layout(**names) if is_plain else Layout()


def bound(config: Config, folder: Path | None) -> Config:
    """The config of a run with its relative paths as they were where it was trained.

    A folder that is no longer there is looked for below the working folder, as the config has it: runs and data may move together.

    Raises:
        DataError: the data are in neither place.
    """
    paths = {} if folder is None else _read(folder).get(_PATHS, {})
    changes: dict[str, Any] = {}
    for key in _PATH_KEYS:
        said, recorded = getattr(config.data, key), paths.get(key)
        if said is None or recorded is None or os.path.isabs(said):
            continue
        if Path(recorded).exists():
            changes[key] = recorded
        elif key == "data_path" and not Path(said).exists():
            raise DataError(
                f"{folder}: its data were in {recorded}, and are neither there nor in {Path(said).absolute()}. Put them back, "
                "or name them with --data_path."
            )
    return config.replace(**changes)


def require_same(folder: Path | None, cache: Cache, *, with_labels: bool = True) -> str | None:
    """Compare the data with those of the run.

    Args:
        with_labels: False where the caller gives the labels another meaning.

    Returns:
        A sentence where the given test split is another one, which no training has read.

    Raises:
        DataError: training or validation images or labels are not those of the run.
    """
    stored = {} if folder is None else _read(folder)
    if not stored.get(_IDENTITY):  # a run of an older release
        return None
    found = other_data(stored[_IDENTITY], cache.identity)
    found = [line for line in found if with_labels or not line.startswith("labels")]
    if found:
        raise DataError(
            f"{cache.name}: these are not the data that the run in {folder} was trained on: {'; '.join(found)}. Put those "
            "back, or name another data set with --data_path."
        )
    if stored.get(_TEST) != _pixels_of_test(cache):
        return f"{cache.name}: its test split has changed since the run in {folder}, which never read it."
    return None


def is_same(folder: Path, cache: Cache) -> bool:
    """Whether data are known to be those of a run, read as it read them."""
    stored = _read(folder)
    return bool(stored.get(_IDENTITY)) and not other_data(stored[_IDENTITY], cache.identity)


def digest_of(cache: Cache, positions: Sequence[int]) -> str:
    """A digest of the pixels of some samples, in their order."""
    return hashlib.sha256(cache.table["image_digests"][list(positions)].tobytes()).hexdigest()


def _pixels_of_test(cache: Cache) -> str | None:
    is_given = "test" in cache.given_splits and len(cache.given_splits) > 1
    return digest_of(cache, cache.split("test").positions) if is_given else None


def _read(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / DATA_FILE, dict[str, object])
    except DataError:
        return {}
