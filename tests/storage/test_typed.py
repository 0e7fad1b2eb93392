"""Proves that a file of JSON or YAML has the types of its schema or is refused by the place, whatever stands in it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_dist.errors import CheckpointError, DataError
from unet_dist.storage.typed import parse_json, read_json, read_yaml


@dataclass
class Part:
    name: str
    size: tuple[int, int] | None = None
    shares: list[float] = field(default_factory=list)


class Record(TypedDict, total=False):
    parts: list[Part]
    iou: dict[str, float | None]
    rest: object


def test_values_come_with_their_types() -> None:
    text = '{"parts": [{"name": "a", "size": [1, 2], "shares": [1, 0.5], "more": 0}], "iou": {"car": null}, "x": [1]}'
    assert parse_json(text, Record, "f") == {
        "parts": [Part("a", (1, 2), [1, 0.5])],
        "iou": {"car": None},
        "x": [1],
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"parts": [{"name": "a"}, {"name": 7}]}', r"parts\[1\].name: got 7, expected a text"),
        ('{"parts": [{}]}', r'parts\[0\]: got an object without "name", expected one that has it'),
        ('{"parts": [{"name": "a", "size": [1, 2, 3]}]}', r"parts\[0\].size: got a list, expected a list of 2 or null"),
        ('{"parts": [{"name": "a", "size": [1, true]}]}', r"parts\[0\].size\[1\]: got True, expected an integer"),
        ('{"iou": {"car": NaN}}', "iou.car: got nan, expected a number or null"),
        ('{"iou": {"car": 1e999}}', "iou.car: got inf, expected a number or null"),
        ('{"iou": {"car": "\\u001b[2J"}}', r"iou.car: got '\\x1b\[2J', expected"),
        ('{"iou": 1' + "0" * 5000 + "}", "Exceeds the limit"),
        ("[" * 100_000, "recursion"),
        ("[]", "got a list, expected an object"),
        ("{", "Expecting property name"),
        ("", "Expecting value"),
    ],
)
def test_what_is_something_else_is_refused_by_its_place(text: str, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=f"(?s)^f.json.*{sentence}.*Mend it.$"):
        parse_json(text, Record, "f.json", error=CheckpointError, remedy="Mend it.")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["parts", "iou", "name", "size", "shares"]), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_any_json_is_read_or_refused(value: object) -> None:
    try:
        record = parse_json(json.dumps(value), Record, "f")
    except DataError:
        return
    assert all(isinstance(part, Part) and isinstance(part.name, str) for part in record.get("parts", []))
    assert all(share is None or abs(share) < 1e308 for share in record.get("iou", {}).values())


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "loop", "not utf-8", "long name", "null in its name"])
def test_what_is_no_text_file_is_a_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "f.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "not utf-8":
        path.write_bytes(b"\x80\x81")  # no mark of UTF-16 either
    elif kind != "missing":
        path = tmp_path / ("x" * 5000 if kind == "long name" else "a\0b")
    with pytest.raises(DataError, match=r"(cannot be read|is not a regular file).*\. Remove it"):
        read_json(path, Record)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text("{}")
    path.chmod(0)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        read_json(path, Record)


@pytest.mark.parametrize(
    "text", ["[1]", "a: 1" + "0" * 5000, "a: [", "? {}\n: 1", "&a [*a]", "a: \x1b", "\xff", "2026-99-99"]
)
def test_yaml_that_is_something_else_is_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"(?s)(not readable as YAML|cannot be read|expected an object).*\. Mend it"):
        read_yaml(path, dict[str, int])


def test_an_empty_yaml_is_an_empty_mapping(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").touch()
    assert read_yaml(tmp_path / "f.yaml", dict[str, object]) == {}
