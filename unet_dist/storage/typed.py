"""JSON and YAML of files, read by a schema: values have its types, or are refused by the place in the file.

Owns the way from bytes to checked values. A schema is a dataclass, a TypedDict, or a plain type: int, float, str, bool, None,
`X | None`, `list[X]`, `tuple[X, Y]`, `dict[str, X]`, or `object` for what the caller leaves open. A dataclass becomes an object,
a TypedDict stays a dict whose further keys are kept. Numbers are finite, integers fit 64 bits, words can be written as UTF-8.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import stat
import types
import typing
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, Union, cast

from unet_dist.errors import DataError, UnetDistError
from unet_dist.wording import first_line, printable, shorten

T = TypeVar("T")
MAX_BYTES = 2**30
"""assumption: no file of ours comes near it; those of COCO have half of it."""
_ESCAPED_BYTE = re.compile(r"\\uDC[89A-F][0-9A-F]")
_FEW_BRACKETS = 200
"""Derived: 2,000 take 7 s, and the time grows with their square."""
_NAMES = {
    int: "an integer",
    float: "a number",
    str: "a text",
    bool: "true or false",
    type(None): "null",
    object: "anything",
}


class _MismatchError(Exception):
    """A value is not what the schema says: its place from the inside out, then got and expected."""

    def __init__(self, got: str, expected: str) -> None:
        super().__init__(got, expected)
        self.got, self.expected = got, expected
        self.place: list[str] = []

    def words(self) -> str:
        """The place as one would write it: splits[0].name."""
        place = "".join(reversed(self.place)).removeprefix(".")
        return f"{place + ': ' if place else ''}got {self.got}, expected {self.expected}"


def read_json(
    path: Path, schema: type[T], *, error: type[UnetDistError] = DataError, remedy: str = "Remove it, or copy it again."
) -> T:
    """Read a file of JSON.

    Args:
        schema: of the whole file.
        error: the exception for a file that is refused.
        remedy: what its owner can do, a sentence.

    Raises:
        error: it is not there, may not be read, is not a regular file, no JSON, or at some place of another type.
    """
    return parse_json(read_text(path, error=error, remedy=remedy), schema, str(path), error=error, remedy=remedy)


def parse_json(
    text: str | bytes,
    schema: type[T],
    name: str,
    *,
    error: type[UnetDistError] = DataError,
    remedy: str = "Remove it, or copy it again.",
) -> T:
    """Read JSON that is in memory; `name` is what a refusal calls it. Otherwise as `read_json`."""
    try:
        return check(json.loads(text, object_pairs_hook=_each_once), schema)
    except _MismatchError as mismatch:
        reason = f": {mismatch.words()}"
    except (ValueError, RecursionError) as problem:  # no JSON, nested thousands deep, a number of thousands of digits
        reason = f" is damaged: {first_line(problem)}"
    raise error(f"{printable(name + reason)}. {remedy}") from None


def read_yaml(
    path: Path, schema: type[T], *, error: type[UnetDistError] = DataError, remedy: str = "Mend it, or copy it again."
) -> T:
    """Read a file of YAML by the safe loader; an empty file is an empty mapping. Otherwise as `read_json`."""
    return parse_yaml(read_text(path, error=error, remedy=remedy), schema, str(path), error=error, remedy=remedy)


def parse_yaml(
    text: str,
    schema: type[T],
    name: str,
    *,
    error: type[UnetDistError] = DataError,
    remedy: str = "Mend it, or copy it again.",
) -> T:
    """Read YAML that is in memory; `name` is what a refusal calls it. Otherwise as `read_yaml`."""
    import yaml

    # libyaml's bounds the nesting; of 2,000 brackets the one in Python took 7 s before it gave up.
    # But it refuses what the other writes for bytes of names that are no UTF-8.
    has_bytes = _ESCAPED_BYTE.search(text) is not None and text.count("[") + text.count("{") <= _FEW_BRACKETS
    safe = yaml.SafeLoader if has_bytes else getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(safe):  # type: ignore[misc, valid-type]
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            _each_once([((key.tag, key.value), None) for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
            return cast(dict[Any, Any], super().construct_mapping(node, deep))

    try:
        value = yaml.load(text, Loader)  # noqa: S506, both are safe
        return check({} if value is None else value, schema)
    except _MismatchError as mismatch:
        reason = mismatch.words()
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as problem:
        # Its own keys and dates raise whatever they lead to.
        reason = f"not readable as YAML: {shorten(str(problem) or type(problem).__name__)}"
    raise error(f"{printable(f'{name}: {reason}')}. {remedy}") from None


def _each_once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """The mapping of these. Raises: _MismatchError: a key is there twice, of which parsers take the last without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        word = shorten(ascii(key[1] if isinstance(key, tuple) else key), 60)
        raise _MismatchError(f"the key {word} twice", "each key once in an object")
    return found


def read_text(path: Path, *, error: type[UnetDistError] = DataError, remedy: str = "") -> str:
    """Read a regular file as UTF-8, without the mark that some editors put first; as UTF-16 where the mark says so (PowerShell).

    Raises:
        error: as `read_bytes`, or it is neither.
    """
    content = read_bytes(path, error=error, remedy=remedy)
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{printable(str(path))} cannot be read: {first_line(problem)}. {remedy}") from None


def read_bytes(path: Path, *, error: type[UnetDistError] = DataError, remedy: str = "") -> bytes:
    """Read a regular file.

    Raises:
        error: it is not there, may not be read, is a folder or a pipe, or has more than MAX_BYTES.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe that nobody writes would never open
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise error(f"{printable(str(path))} is not a regular file, expected one. {remedy}")
            if status.st_size > MAX_BYTES:
                raise error(
                    f"{printable(str(path))} has {status.st_size:,} bytes, expected at most {MAX_BYTES:,}. {remedy}"
                )
            return file.read()
    except OSError as problem:
        reason = problem.strerror or str(problem)
    except ValueError as problem:  # a null character in the path
        reason = first_line(problem)
    raise error(f"{printable(shorten(str(path)))} cannot be read: {reason}. {remedy}") from None


def check(value: object, schema: type[T]) -> T:
    """Give a value the types of a schema; raises _MismatchError where it has others."""
    return cast(T, _checked(value, schema))


def _checked(value: object, schema: Any) -> object:
    origin = typing.get_origin(schema)
    if schema in (object, Any):
        return value
    if origin in (Union, types.UnionType):
        return _one_of(value, typing.get_args(schema), schema)
    if origin is list and isinstance(value, list):
        (inner,) = typing.get_args(schema)
        return [_inside(entry, inner, f"[{number}]") for number, entry in enumerate(value)]
    if origin is tuple and isinstance(value, list) and len(value) == len(typing.get_args(schema)):
        kinds = typing.get_args(schema)
        return tuple(_inside(e, kind, f"[{n}]") for n, (e, kind) in enumerate(zip(value, kinds, strict=True)))
    if origin is dict and isinstance(value, dict):
        of_key, inner = typing.get_args(schema)
        return {
            _inside(key, of_key, f".{key}"): _inside(entry, inner, f".{shorten(str(key), 40)}")
            for key, entry in value.items()
        }
    if isinstance(schema, type) and isinstance(value, dict):
        if dataclasses.is_dataclass(schema):
            needed, fields = _needed_of(schema), _hints_of(schema)
            return schema(**{key: entry for key, entry in _fields(value, fields, needed).items() if key in fields})
        if typing.is_typeddict(schema):
            needed = getattr(schema, "__required_keys__")  # noqa: B009, mypy knows no such attribute
            return _fields(value, _hints_of(schema), needed)
    if _is_plain(value, schema):
        return value
    raise _MismatchError(_named(value), _expected(schema))


# Of a schema once: a file of COCO may hold a hundred thousand objects, and types read from annotations took most of their time.
_hints_of = lru_cache(maxsize=256)(typing.get_type_hints)


@lru_cache(maxsize=256)
def _needed_of(schema: type) -> frozenset[str]:
    fields = dataclasses.fields(schema)
    return frozenset(f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING)


def _fields(value: dict[Any, Any], hints: dict[str, Any], needed: typing.AbstractSet[str]) -> dict[str, object]:
    lacking = sorted(needed - value.keys())
    if lacking:
        raise _MismatchError(f'an object without "{lacking[0]}"', "one that has it")
    return {key: _inside(entry, hints.get(key, object), f".{key}") for key, entry in value.items()}


def _inside(value: object, schema: Any, place: str) -> Any:
    try:
        return _checked(value, schema)
    except _MismatchError as mismatch:
        mismatch.place.append(place)
        raise


def _one_of(value: object, kinds: tuple[Any, ...], schema: Any) -> object:
    inside: _MismatchError | None = None
    for kind in kinds:
        try:
            return _checked(value, kind)
        except _MismatchError as mismatch:
            inside = mismatch if mismatch.place else inside
    raise inside or _MismatchError(_named(value), _expected(schema))


def _is_plain(value: object, schema: object) -> bool:
    if isinstance(value, bool):
        return schema is bool
    if schema is int:
        return isinstance(value, int) and -(2**63) <= value < 2**63
    if schema is float:
        return isinstance(value, (int, float)) and abs(value) < 2**1023 and math.isfinite(value)
    if schema is str:
        return isinstance(value, str) and not any("\ud800" <= one <= "\udfff" for one in value)
    return schema in (None, type(None)) and value is None


def _named(value: object) -> str:
    kind = {dict: "an object", list: "a list", type(None): "null"}.get(type(value))
    return kind or shorten(ascii(value) if isinstance(value, str) else str(value), 60)


def _expected(schema: Any) -> str:
    if typing.get_origin(schema) in (Union, types.UnionType):
        return " or ".join(_expected(kind) for kind in typing.get_args(schema))
    if typing.get_origin(schema) in (list, tuple):
        return "a list" + (f" of {len(typing.get_args(schema))}" if typing.get_origin(schema) is tuple else "")
    return _NAMES.get(schema, "an object")
