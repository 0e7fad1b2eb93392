"""What a cache says of its samples: names, splits and numbers, with digests of their own, so that a change of them is noticed.

Owns reading the index and the table of samples. Knows nothing of pixels.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from unet_dist.errors import DataError
from unet_dist.storage.typed import read_bytes, read_json
from unet_dist.wording import first_line

FORMAT_VERSION = 6
INDEX, TABLE = "index.json", "samples.npz"


class _Index(TypedDict):
    """What every index says."""

    name: str
    num_classes: int
    class_names: list[str]
    ignore_index: int | None
    channels: int
    dtype: str
    has_nodata: bool
    splits: dict[str, int]
    ids: list[str]


def read_index(cache: Path) -> dict[str, Any]:
    """Read what a cache holds.

    Raises:
        DataError: it is no cache, damaged, or of another version.
    """
    remedy = f"Remove the folder {cache}; `unet-dist prepare` makes it again."
    index = read_json(cache / INDEX, dict[str, Any], remedy=remedy)
    if index.get("version") != FORMAT_VERSION:
        raise DataError(
            f"{cache}: the cache has format {index.get('version')} and this program reads {FORMAT_VERSION}. {remedy}"
        )
    told = index.get("sha256")
    if told is not None and (not isinstance(told, dict) or told.get(INDEX) != digest_index(index)):
        raise DataError(f"{cache / INDEX}: it has changed since it was written: the cache is damaged. {remedy}")
    if told is None:  # of an older release, or somebody took it away
        read_json(cache / INDEX, _Index, remedy=remedy)
    return index


def read_table(cache: Path, sha256: Mapping[str, str] | None) -> dict[str, np.ndarray]:
    """Read the facts about each sample.

    Args:
        sha256: as the index has it; None in a cache from before it.

    Raises:
        DataError: it is damaged.
    """
    path = cache / TABLE
    remedy = f"The cache is damaged: remove the folder {cache}; `unet-dist prepare` makes it again."
    content = read_bytes(path, remedy=remedy)
    if sha256 is not None and sha256.get(TABLE) != hashlib.sha256(content).hexdigest():
        raise DataError(f"{path}: it has changed since it was written. {remedy}")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, LookupError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)}). {remedy}") from error


def digest_index(index: Mapping[str, Any]) -> str:
    """The SHA-256 of all that the index says but this."""
    told = {name: value for name, value in index.get("sha256", {}).items() if name != INDEX}
    said = json.loads(json.dumps({**index, "sha256": told}))  # keys are words, as they are when read
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
