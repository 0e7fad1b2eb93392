"""What `data_path` may mean.

Owns the choice of the kind of source from what the user typed, and the sentence where nothing fits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from unet_dist.data.sources.folder import IMAGES, MASKS, FolderSource
from unet_dist.data.sources.hub import DatasetDirectory, HubDataset
from unet_dist.data.sources.pairs import Source
from unet_dist.data.sources.synthetic import SYNTHETIC, SyntheticSource
from unet_dist.errors import DataError, suggest

DEFAULT_SYNTHETIC_IMAGES = 100
DEFAULT_SYNTHETIC_SIZE = (1080, 1920)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_EXPECTED = (
    "a hub id (owner/name), a data-set directory with parquet or arrow files, a folder with images/ and masks/, "
    f'or "{SYNTHETIC}"'
)


def open_source(
    data_path: str | Path,
    *,
    image_column: str = "pixel_values",
    label_column: str = "label",
    revision: str | None = None,
    synthetic_images: int = DEFAULT_SYNTHETIC_IMAGES,
    synthetic_size: tuple[int, int] = DEFAULT_SYNTHETIC_SIZE,
    synthetic_seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> Source:
    """Open the source that `data_path` names; what exists on disk goes before the hub.

    Args:
        image_column, label_column: the columns of a data-set directory or a hub data set.
        revision: branch, tag or commit of a hub data set.
        synthetic_size: (height, width) in pixels.

    Raises:
        DataError: nothing fits; the message says what was tried.
    """
    text = str(data_path)
    if text == SYNTHETIC:
        return SyntheticSource(synthetic_images, synthetic_size, synthetic_seed)
    path = Path(text).expanduser()
    if path.exists():
        return _open_path(path, image_column, label_column)
    if _HUB_ID.fullmatch(text) and not _near(path).startswith(" Did you mean"):
        return HubDataset(text, revision=revision, image_column=image_column, label_column=label_column, say=say)
    raise DataError(f"data_path: there is no {path.absolute()}.{_near(path)} Expected {_EXPECTED}.")


def _open_path(path: Path, image_column: str, label_column: str) -> Source:
    if not path.is_dir():
        raise DataError(f"data_path: {path} is a file. Expected {_EXPECTED}.")
    if (path / IMAGES).is_dir() and (path / MASKS).is_dir():
        return FolderSource(path)
    if inside := DatasetDirectory.find_inside(path):
        raise DataError(
            f"data_path: {path} is no data set but holds {len(inside)}: {', '.join(map(str, inside[:10]))}. Name one."
        )
    if DatasetDirectory.recognises(path):
        return DatasetDirectory(path, image_column=image_column, label_column=label_column)
    names = sorted(f"{item.name}/" if item.is_dir() else item.name for item in path.iterdir())[:10]
    found = f"It holds {', '.join(names)}." if names else "It is empty."
    raise DataError(
        f"data_path: {path} holds neither {IMAGES}/ and {MASKS}/ nor parquet or arrow files. {found} "
        f"Expected {_EXPECTED}."
    )


def _near(path: Path) -> str:
    """Name the folder that was probably meant, or how far the path exists."""
    if path.parent.is_dir():
        hint = suggest(path.name, (item.name for item in path.parent.iterdir() if item.is_dir())).split(" Valid:")[0]
        return f" {hint}" if hint.startswith("Did you mean") else ""
    there = next(parent for parent in path.absolute().parents if parent.is_dir())
    return f" The path exists up to {there}."
