"""What `data_path` may mean.

Owns the choice of the kind of source from what the user typed, and the sentence where nothing fits.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from unet_dist.data.sources.coco import find_coco, is_coco, read_coco
from unet_dist.data.sources.cvat import find_cvat, is_cvat, read_cvat
from unet_dist.data.sources.folder import FolderSource
from unet_dist.data.sources.geo import find_vectors, read_geo
from unet_dist.data.sources.guess import guess_layout
from unet_dist.data.sources.hub import DatasetDirectory, HubDataset
from unet_dist.data.sources.label_studio import find_label_studio, is_label_studio, read_label_studio
from unet_dist.data.sources.labelme import is_labelme, read_labelme
from unet_dist.data.sources.layout import SPLIT, Layout
from unet_dist.data.sources.pairs import Source
from unet_dist.data.sources.polygons import Drawn, DrawnSource
from unet_dist.data.sources.qupath import find_qupath, read_qupath
from unet_dist.data.sources.segments import find_segments, is_segments, read_segments
from unet_dist.data.sources.synthetic import SYNTHETIC, SyntheticSource
from unet_dist.data.sources.table import TableSource, is_table, names_images
from unet_dist.data.sources.unread import describe_unread
from unet_dist.data.sources.via import find_via, is_via, read_via
from unet_dist.data.sources.walk import folders_of
from unet_dist.data.sources.yolo import find_yolo, read_yolo
from unet_dist.errors import ConfigError, DataError, suggest
from unet_dist.imaging.stacks import ALL, Select
from unet_dist.registry import Registry, is_import_path
from unet_dist.storage.files import permitted
from unet_dist.wording import listed

Find = Callable[[Path], dict[str, Path]]
Read = Callable[[Path, dict[str, Path]], Drawn]

DEFAULT_SYNTHETIC_IMAGES = 100
DEFAULT_SYNTHETIC_SIZE = (1080, 1920)

SOURCES: Registry[Callable[..., object]] = Registry("data_path", "unet_dist.sources", {})
"""Sources by entry point or import path; `data_path` itself decides among ours."""

_OUTLINES: tuple[tuple[Callable[[Path], bool], Find, Read], ...] = (
    (is_coco, find_coco, read_coco),
    (is_cvat, find_cvat, read_cvat),
    (is_via, find_via, read_via),
    (is_label_studio, find_label_studio, read_label_studio),
    (is_segments, find_segments, read_segments),
)
"""Formats of one file for each split: is a file one, which are there below a folder, and reading them."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_EXPECTED = (
    "a hub id (owner/name), a data-set directory with parquet or arrow files, a folder with images/ and masks/, "
    "a table of paths (.csv, .jsonl, .parquet), files of COCO, CVAT, VIA, Label Studio, Segments.ai, YOLO or Labelme, "
    f'GeoTIFFs with GeoJSON or a GeoPackage, "{SYNTHETIC}", or an import path such as my_package.data:cells'
)


@permitted()
def open_source(
    data_path: str | Path,
    *,
    image_column: str = "pixel_values",
    label_column: str = "label",
    layout: Mapping[str, str] | None = None,
    group_by: str | None = None,
    multi_label: bool = False,
    select: Select = ALL,
    revision: str | None = None,
    synthetic_images: int = DEFAULT_SYNTHETIC_IMAGES,
    synthetic_size: tuple[int, int] = DEFAULT_SYNTHETIC_SIZE,
    synthetic_seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> Source:
    """Open the source that `data_path` names; what exists on disk goes before the hub.

    Args:
        image_column, label_column: the columns of a data-set directory or a hub data set.
        layout: fields of Layout, for a folder of pictures; missing ones are guessed.
        group_by: a column of a table of paths, or a pattern of ids.
        multi_label: whether classes overlap.
        select: which images of stacks in a folder of pictures.
        revision: branch, tag or commit of a hub data set.
        synthetic_size: (height, width) in pixels.

    Raises:
        DataError: nothing fits; the message lists the attempts.
        ConfigError: a select that would have no effect.
    """
    text = str(data_path)
    if text == SYNTHETIC:
        source: Source = SyntheticSource(synthetic_images, synthetic_size, synthetic_seed)
    else:
        source = _find_source(
            text, (image_column, label_column), group_by, layout or {}, revision, say, multi_label=multi_label
        )
    if not select:
        return source
    if not isinstance(source, FolderSource):
        raise ConfigError(
            f"select: {text} is not a folder of images and masks, so it would have no effect. Leave it out; in a table name one "
            "image of a stack by its number, stack.tif#3."
        )
    return FolderSource(source.root, source.layout, say, multi_label=multi_label, select=select)


def _find_source(
    text: str,
    columns: tuple[str, str],
    group_by: str | None,
    layout: Mapping[str, str],
    revision: str | None,
    say: Callable[[str], None] | None,
    *,
    multi_label: bool,
) -> Source:
    path = Path(os.path.expanduser(text))
    if path.exists():
        return _open_path(path, columns, group_by, layout, say, multi_label=multi_label)
    if is_part(text):
        return _build(text, say)
    if _HUB_ID.fullmatch(text) and not _near(path).startswith(" Did you mean"):
        return HubDataset(text, revision=revision, image_column=columns[0], label_column=columns[1], say=say)
    raise DataError(f"data_path: there is no {path.absolute()}.{_near(path)} Expected {_EXPECTED}.")


def is_part(data_path: str) -> bool:
    """Say whether `data_path` names somebody else's source, by an entry point or an import path, and no path or hub id."""
    name = data_path.partition("(")[0].strip()
    is_named = is_import_path(name) or (re.fullmatch(r"[A-Za-z_]\w*", name) is not None and name in SOURCES.names())
    return is_named and data_path != SYNTHETIC and not Path(os.path.expanduser(data_path)).exists()


def _build(word: str, say: Callable[[str], None] | None) -> Source:
    """Make a source of somebody else's.

    Raises:
        ConfigError: it cannot be imported or made, or is no source.
    """
    source = SOURCES.build(word, {"say": say})
    stated = ("name", "fixed_shape", "files_root", "splits", "read_id_names", "read_pair", "signature")
    lacks = [name for name in stated if not hasattr(source, name)]
    if lacks:
        raise ConfigError(
            f"data_path: {word} gave a {type(source).__name__} without {', '.join(lacks)}. Expected a Source as "
            "unet_dist.data.sources.pairs describes it."
        )
    return cast(Source, source)


def _open_path(
    path: Path,
    columns: tuple[str, str],
    group_by: str | None,
    layout: Mapping[str, str],
    say: Callable[[str], None] | None,
    *,
    multi_label: bool,
) -> Source:
    image_column, label_column = columns
    has_masks = (path / "images").is_dir() and (path / "masks").is_dir()
    if (
        multi_label and path.is_dir() and (layout or has_masks)
    ):  # names are not guessed: x_road.png is the mask of a class
        return FolderSource(path, Layout(**layout), say, multi_label=True)
    if path.is_file():
        root = path.parent.parent if path.parent.name == "annotations" else path.parent
        for is_one, _, read_one in _OUTLINES:
            if is_one(path):
                read_alone = partial(read_one, root, {"train": path})
                return DrawnSource(root, read_alone, say, overlap=multi_label, heeds_lists=False)
    if is_table(path):
        return TableSource(path, *columns, group_by, say)
    if not path.is_dir():
        raise DataError(f"data_path: {path} is a file. Expected {_EXPECTED}.")
    if layout:
        return FolderSource(path, Layout(**layout), say)
    if has_masks and (usual := guess_layout(path)):
        return FolderSource(path, usual, say)
    if inside := DatasetDirectory.find_inside(path):
        raise DataError(
            f"data_path: {path} is not a data set but holds {len(inside)}: {', '.join(map(str, inside[:10]))}. Name one."
        )
    if DatasetDirectory.recognises(path):
        return DatasetDirectory(path, image_column=image_column, label_column=label_column)
    for _, find, read in _OUTLINES:
        if files := find(path):
            return DrawnSource(path, partial(read, path, files), say, overlap=multi_label)
    if qupath := find_qupath(path):
        return DrawnSource(path, partial(read_qupath, path, qupath), say, overlap=multi_label)
    if vectors := find_vectors(path):
        return DrawnSource(path, partial(read_geo, path, vectors, label_column), say, overlap=multi_label)
    if yolo := find_yolo(path):
        return DrawnSource(path, partial(read_yolo, path, yolo), say, overlap=multi_label)
    if is_labelme(path):
        return DrawnSource(path, partial(read_labelme, path), say, overlap=multi_label)
    if guessed := guess_layout(path):
        return FolderSource(path, guessed, say)
    tables = [item for item in sorted(path.iterdir()) if is_table(item) and names_images(item, image_column)]
    if len(tables) == 1:
        return TableSource(tables[0], *columns, group_by, say)
    names = sorted(f"{item.name}/" if item.is_dir() else item.name for item in path.iterdir())
    found = f"It holds {listed(names, 10)}." if names else "It is empty."
    if inside := [item for item in folders_of(path) if _is_layout(item)]:
        named = f"{' and '.join(map(str, inside[:3]))} {'looks like one' if len(inside) == 1 else 'look like some'}"
        keys = {spelt for item in inside if (spelt := _spell_inside(item))} if len(inside) > 1 else set()
        whole = f"; or read all of them as one: {keys.pop()}" if len(keys) == 1 else ""
        raise DataError(
            f"data_path: {path} is not a data set, and {named}. {found} Name that folder, or merge them{whole}."
        )
    if unread := describe_unread(path):
        raise DataError(f"data_path: got {path}, which is no data set. {unread}")
    remedy = "Say where they lie: --images_folder, --masks_folder." if names else "Name another folder."
    raise DataError(
        f"data_path: got {path}, which is no data set. {found} Expected images/ and masks/, or an export such as COCO, YOLO or "
        f"Labelme. {remedy}"
    )


def _is_layout(path: Path) -> bool:
    """Say whether a folder holds images and masks in a way that is known."""
    try:
        return guess_layout(path) is not None
    except DataError:
        return False


def _spell_inside(path: Path) -> str | None:
    """Write the keys of what folders like this one hold, where one reading may serve all of them."""
    try:
        found = guess_layout(path)
    except DataError:
        return None
    if found is None or SPLIT in found.images_folder or "." in (found.images_folder, found.masks_folder):
        return None
    return replace(found, images_folder=f"*/{found.images_folder}", masks_folder=f"*/{found.masks_folder}").spell()


def _near(path: Path) -> str:
    """Name the folder that was probably meant, or how far the path exists."""
    if path.parent.is_dir():
        hint = suggest(path.name, (item.name for item in path.parent.iterdir() if item.is_dir())).split(" Valid:")[0]
        return f" {hint}" if hint.startswith("Did you mean") else ""
    there = next(parent for parent in path.absolute().parents if parent.is_dir())
    return f" The path exists up to {there}."
