"""The tables that a data set's own files name: the head of its README.md, and what save_to_disk writes.

Owns the refusal of tables that lie elsewhere. Reads no table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unet_dist.errors import DataError
from unet_dist.storage.typed import parse_yaml, read_json, read_text
from unet_dist.wording import printable


def require_own_tables(root: Path) -> None:
    """Refuse a directory whose own words name tables elsewhere: `datasets` would read them, and nobody would notice their change.

    Its words are the head of README.md, and what save_to_disk writes.

    Raises:
        DataError: a table outside the directory, or at an address.
    """
    for place, word in named_tables(root):
        is_address = "://" in word or "::" in word  # as fsspec chains them
        if is_address or not (place.parent / word).resolve().is_relative_to(root.resolve()):
            raise DataError(
                f"{place}: it names the table {printable(word)}, which lies outside {root}. Copy it into the directory and name it "
                "there, or give its own folder as data_path."
            )


def named_tables(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file that names tables, and the words by which it does."""
    readme = root / "README.md"
    if readme.is_file():
        yield from ((readme, word) for word in tables_of_card(readme))
    if (root / "dataset_dict.json").is_file():
        saved = read_json(root / "dataset_dict.json", dict[str, Any])
        yield from ((root / "dataset_dict.json", word) for word in _words_in(saved.get("splits")))
    for path in root.rglob("state.json"):
        yield from ((path, word) for word in _words_in(read_json(path, dict[str, Any]).get("_data_files")))


def tables_of_card(readme: Path) -> Iterator[str]:
    """Yield the words by which the head of a data set's card names tables."""
    head = _head_of(readme)
    configs = head.get("configs") if isinstance(head, dict) else None
    for config in configs if isinstance(configs, list) else []:
        if isinstance(config, dict):
            yield from (word for key in ("data_files", "data_dir") for word in _words_in(config.get(key)))


def _head_of(readme: Path) -> object:
    """Read the YAML between two lines of dashes with which a card begins; None where there is none.

    Raises:
        DataError: it cannot be read; `datasets`, which may read it, would take tables from anywhere.
    """
    parts = read_text(readme).split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    return parse_yaml(parts[1], object, f"{readme}, its head", remedy="Mend it, or remove the file.")


def _words_in(value: object) -> Iterator[str]:
    """Yield the texts in lists and dicts of any depth, of what aliases repeat once."""
    waiting, seen = [value], set[int]()
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, list | dict) and id(one) not in seen:
            seen.add(id(one))
            waiting.extend(one.values() if isinstance(one, dict) else one)
