"""A table of paths: one row for each pair, in CSV, TSV, JSON lines or parquet.

Owns which columns hold images, masks, splits and groups. Paths are absolute, or begin at the table's folder.
"""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from unet_dist.data.sources.fingerprint import digest_files, digest_text
from unet_dist.data.sources.folder import FolderSource, Pair, pages_of
from unet_dist.data.sources.names import find_id_names
from unet_dist.data.sources.planes import first_of
from unet_dist.data.sources.splits import FRACTIONS, canonical_split, is_split_name
from unet_dist.data.sources.walk import files_below
from unet_dist.errors import DataError
from unet_dist.imaging.encoded import parsing, split_page, stem_of
from unet_dist.imaging.limits import decode_budget_bytes, in_time
from unet_dist.storage.typed import parse_json, read_text
from unet_dist.wording import listed, size

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_IMAGES = (
    "image",
    "image_path",
    "images",
    "img",
    "img_path",
    "image_file",
    "image_filename",
    "filename",
    "file",
    "path",
)
_MASKS = (
    *("mask", "mask_path", "masks", "label", "label_path", "labels", "mask_file", "mask_filename", "annotation"),
    *("annotation_path", "segmentation", "segmentation_path", "gt", "target"),
)
_SPLITS, _GROUPS = (
    ("split", "subset", "fold_name", "partition"),
    ("group", "group_id", "patient", "patient_id", "scene"),
)
_BETWEEN = "--"
_MOST_LETTERS = 2**16
"""Of a table's first line. assumption: names of columns are shorter."""
_ROW_BYTES, _CELL_BYTES = 256, 64
"""What a row and a cell take as Python's objects, beside their texts. Measured: 232 for a dict of eight, 49 for a text."""
_Row = Mapping[str, Any]


class TableSource(FolderSource):
    """Pairs of files that a table names.

    Args:
        path: of the table.
        image_column, label_column: that hold the paths; where the table has no such columns, the usual names are tried.
        group_by: the column that holds the group, or a pattern of ids; without it, the usual names are tried.
        say: takes a line for the user.

    Attributes:
        group_by: the pattern of ids that tells groups, None where neither a column nor the user does.
    """

    def __init__(
        self,
        path: Path,
        image_column: str,
        label_column: str,
        group_by: str | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(path.parent, say=say)
        self.name = path.resolve().stem
        self._path, self._wanted, self._group_by = path, (image_column, label_column), group_by or ""
        found = [file for _, _, *files in self._rows for file in files]
        # By their own names: a link of git-annex leads to a file that is called by its digest.
        self.root = Path(os.path.commonpath([os.path.abspath(path.parent), *(file.parent for file in found)]))
        self.files_root = self.root

    @property
    def group_by(self) -> str | None:
        """The regular expression that takes the group out of an id; a pattern that was given, unless it names a column."""
        column = self._columns["group"]
        is_pattern = self._group_by and (column or "").lower() != self._group_by.lower()
        return f"(.*?){_BETWEEN}" if column and not is_pattern else self._group_by or None

    def read_id_names(self) -> dict[int, str] | None:
        """Class names by the ids of the masks, None where the source has none."""
        return find_id_names(self._path.parent)[1]

    def signature(self, memo_path: Path) -> str:
        """A text that changes with the content; it names the decoded cache."""
        pairs = [(split, *pair) for split, pairs in self._pairs.items() for pair in pairs]
        files = [
            file
            for *_, image, mask in pairs
            for path in (image, mask)
            for file in files_below(split_page(first_of(path))[0])
        ]
        names = find_id_names(self._path.parent)[0]
        digest = digest_files(
            self.root, dict.fromkeys([*files, *([Path(os.path.abspath(names))] if names else [])]), memo_path
        )
        return digest_text("table", digest, *(f"{split} {name}" for split, name, *_ in pairs))

    @cached_property
    def _stored(self) -> list[_Row]:
        return read_table(self._path)

    @cached_property
    def _columns(self) -> dict[str, str | None]:
        if not self._stored:
            raise DataError(f"{self._path}: it has no rows. Expected names of columns, and a row for each image.")
        names = [name for name in dict.fromkeys(key for row in self._stored for key in row) if isinstance(name, str)]
        found = {
            "image_column": _pick(names, (self._wanted[0], *_IMAGES)),
            "label_column": _pick(names, (self._wanted[1], *_MASKS)),
            "split": _pick(names, _SPLITS),
            "group": _pick(names, (self._group_by, *_GROUPS)),
        }
        for key in ("image_column", "label_column"):
            if found[key] is None:
                what = "images" if key == "image_column" else "masks"
                raise DataError(
                    f"{self._path}: no column with the paths of the {what} among {listed(names)}. Name it: --{key} NAME."
                )
        keys = " ".join(f"--{key} {found[key]}" for key in ("image_column", "label_column"))
        others = "; ".join(f"{key}s from the column {found[key]}" for key in ("split", "group") if found[key])
        self._say(f"{self.name}: read as {keys}{'; ' * bool(others)}{others}")
        return found

    @cached_property
    def _rows(self) -> list[tuple[str, str, Path, Path]]:
        """Split, group, image and mask of each row. Raises: DataError: rows lack something, or files are not there."""
        rows, faults, missing = [], [], []
        columns = self._columns
        wanted = ("image_column", "label_column", *(("split",) if columns["split"] else ()))
        for number, row in enumerate(self._stored, start=1):
            told = {key: _word(row.get(column)) if column else "" for key, column in columns.items()}
            lacking = [str(columns[key]) for key in wanted if not told[key]]
            pictures = [columns[key] for key in wanted[:2] if isinstance(row.get(columns[key] or ""), dict | bytes)]
            if pictures:
                raise DataError(
                    f"{self._path}: its column {pictures[0]} holds pictures, expected paths. Give the folder of this file as "
                    "data_path, with no other tables in it."
                )
            if lacking:
                faults.append(f"row {number}: it has no {' and no '.join(lacking)}")
                continue
            if told["split"] and not is_split_name(told["split"]):
                faults.append(f"row {number}: {told['split']} is not a known split (train, val or test)")
                continue
            files = [self._locate(told[key]) for key in wanted[:2]]
            missing += [str(file) for file in files if not os.path.exists(split_page(file)[0])]
            rows.append((canonical_split(told["split"] or "train"), told["group"], *files))
        if faults:
            raise DataError(f"{self._path}, {listed(faults)}. Correct or remove these rows.")
        if missing:
            raise DataError(f"{self._path}: files that are not there: {listed(missing)}. Correct the paths.")
        return rows  # type: ignore[return-value]

    def _locate(self, word: str) -> Path:
        """Give the file that a word names; written on Windows or on a Mac where it is not there as it stands."""
        told = os.path.expanduser(os.path.expandvars(word))
        forms = [told, told.replace("\\", "/")]
        forms += [unicodedata.normalize(form, text) for form in ("NFC", "NFD") for text in forms]
        places = [Path(os.path.abspath(self._path.parent / form)) for form in forms]
        return next((place for place in places if os.path.exists(split_page(place)[0])), places[0])

    @cached_property
    def _pairs(self) -> dict[str, list[Pair]]:
        pairs: dict[str, list[Pair]] = {}
        owners: dict[Path, int] = {}
        for number, (split, group, image, mask) in enumerate(self._rows, start=1):
            if image in owners:
                raise DataError(
                    f"{self._path}, row {number}: {image.name} is in row {owners[image]}, too. Keep one of the two."
                )
            owners[image] = number
            name = f"{group}{_BETWEEN}{stem_of(image)}" if self._columns["group"] else stem_of(image)
            pairs.setdefault(split, []).extend(pages_of(name, image, mask))
        return {split: pairs[split] for split in FRACTIONS if split in pairs}


def is_table(path: Path) -> bool:
    """Say whether a file is a table of paths, by its name."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def names_images(path: Path, image_column: str) -> bool:
    """Say whether the first line of a table of texts has a column of images: others, such as colours of classes, have none."""
    if path.suffix.lower() not in (".csv", ".tsv"):
        return True
    with path.open("rb") as file:
        cells = re.split(r"[,;|\t]", file.readline(_MOST_LETTERS).decode("utf-8-sig", "replace").lower())
    return not {cell.strip(' "\r\n') for cell in cells}.isdisjoint({image_column.lower(), *_IMAGES})


def read_table(path: Path) -> list[_Row]:
    """Read the rows of a table. Raises: DataError: it cannot be read."""
    kind, remedy = path.suffix.lower(), "Write it again as CSV in UTF-8."
    try:
        if kind == ".parquet":
            with parsing(str(path), kind="parquet table"):
                return in_time(str(path), lambda: _read_parquet(path))
        text = read_text(path, remedy=remedy)
        if kind in (".jsonl", ".ndjson"):
            lines = ((number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip())
            return [
                parse_json(line, dict[str, object], f"{path}, line {number}", remedy=remedy) for number, line in lines
            ]
        delimiter = max("\t,;|", key=text.partition("\n")[0].count)
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    except (OSError, ValueError, NotImplementedError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table ({error}). {remedy}") from error


def _read_parquet(path: Path) -> list[_Row]:
    """Read the plain columns; of others, which hold no path, each row gets b"".

    A short file may stand for any number of rows, with a long word in each: both are counted before they are spread out.
    """
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    fields = list(pyarrow.parquet.read_schema(path))
    others = [one.name for one in fields if pyarrow.types.is_nested(one.type) or _is_binary(one.type)]
    plain = [one.name for one in fields if one.name not in others]
    words = [one.name for one in fields if one.name in plain and _is_text(one.type)]
    count = pyarrow.parquet.read_metadata(path).num_rows
    needed, budget = count * (_ROW_BYTES + _CELL_BYTES * len(fields)), decode_budget_bytes()
    if needed <= budget:
        table = pyarrow.parquet.read_table(path, columns=plain, read_dictionary=words)
        for chunk in (chunk for name in words for chunk in table.column(name).chunks):
            lengths = pyarrow.compute.binary_length(chunk.dictionary).cast(pyarrow.int64()).take(chunk.indices)
            needed += pyarrow.compute.sum(lengths).as_py() or 0
    if needed > budget:
        raise DataError(
            f"{path}: its {count:,} rows take {size(needed)}, and decode_memory is {size(budget)}. Raise it, or write fewer rows."
        )
    beside = dict.fromkeys(others, b"")
    return [{**row, **beside} for row in table.to_pylist()] if plain else [beside] * count


def _is_binary(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _word(cell: object) -> str:
    """Give a cell as a text, empty where nothing is in it."""
    return "" if cell is None else str(cell).strip()


def _pick(names: Iterable[str], wanted: Iterable[str]) -> str | None:
    """Give the first wanted name that is there, whatever its case."""
    by_lower = {name.lower(): name for name in names if isinstance(name, str)}
    return next((by_lower[name.lower()] for name in wanted if name.lower() in by_lower), None)
