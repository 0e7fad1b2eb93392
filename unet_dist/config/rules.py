"""Marks that a key carries at its field: what its value must be, how it is written, and what it is for.

Owns the marks and the one place that judges a value by them. A field reads `batch_size: Main[Count] = 16`: the type says
what it holds, the marks the rest. Knows no key.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from unet_dist.errors import ConfigError

T = TypeVar("T")


class Rule(Protocol):
    """What a value must be."""

    def expected(self, value: Any) -> str | None:
        """The expectation that a value breaks, in words; None where it holds."""


@dataclass(frozen=True)
class AtLeast:
    """A number from `least` on, that a machine can hold."""

    least: int
    most: int = 2**31 - 1

    def expected(self, value: Any) -> str | None:
        """The expectation that a value breaks; NaN is no number."""
        if not value >= self.least:
            return f"{self.least} or more"
        return None if value <= self.most else f"{self.most} at most"


@dataclass(frozen=True)
class Must:
    """Anything that can be tested: `Must(is_even, "an even number")`."""

    holds: Callable[[Any], bool]
    words: str

    def expected(self, value: Any) -> str | None:
        """The expectation of a value."""
        try:
            return None if self.holds(value) else self.words
        except TypeError:  # of another type within, such as a mapping in a list of numbers
            return self.words


@dataclass(frozen=True)
class Reads:
    """A word that a function can read; it raises ValueError for others."""

    read: Callable[[str], object]
    words: str
    shown: str = "TEXT"
    """What the help writes beside the key."""

    def expected(self, value: Any) -> str | None:
        """The expectation of a word."""
        try:
            self.read(value)
        except ValueError:
            return self.words
        return None


def matching(pattern: str, words: str) -> Must:
    """A word that a pattern matches as a whole."""
    return Must(lambda value: re.fullmatch(pattern, value) is not None, words)


def between(least: int, most: int) -> Must:
    """A whole number within two others, both included."""
    return Must(lambda value: least <= value <= most, f"{least} to {most}")


@dataclass(frozen=True)
class Also:
    """Another spelling of a value, and what it means."""

    spelling: str | bool
    means: str


@dataclass(frozen=True)
class Flag:
    """A mark without a rule."""

    name: str


PATH = Flag("path")
"""A path, or what may be one: ~ and environment variables are resolved, and the help writes PATH."""
FREE = Flag("free")
"""Leaves the result alone: a resumed run may differ in it."""
MAIN = Flag("main")
"""One of the few keys that the help shows first."""

Free = Annotated[T, FREE]
Main = Annotated[T, MAIN]
PathWord = Annotated[str, PATH]
RunFolder = Annotated[
    PathWord,
    Must(lambda path: os.fsencode(path).decode("utf-8", "ignore").encode() == os.fsencode(path), "a word in UTF-8"),
]
Count = Annotated[int, AtLeast(1)]
Positive = Annotated[float, Must(lambda value: 0 < value < math.inf, "a finite number above 0")]
NotNegative = Annotated[float, AtLeast(0)]
Fraction = Annotated[float, Must(lambda value: 0 <= value < 1, "0 or more and less than 1")]


def marks(kind: Any) -> Iterator[Any]:
    """All marks of a field's type, those of its alternatives included."""
    if get_origin(kind) is Annotated:
        yield from kind.__metadata__
        yield from marks(kind.__origin__)
    elif get_origin(kind) in (Union, UnionType):
        for one in get_args(kind):
            yield from marks(one)


def bare(kind: Any) -> Any:
    """A field's type without the marks around it."""
    return kind.__origin__ if get_origin(kind) is Annotated else kind


def alternatives(kind: Any) -> list[Any]:
    """The types that a field may hold, each with its own marks."""
    kind = bare(kind) if get_origin(bare(kind)) in (Union, UnionType) else kind
    return list(get_args(kind)) if get_origin(kind) in (Union, UnionType) else [kind]


def is_mapping(kind: Any) -> bool:
    """Whether a field may hold a mapping."""
    return any(get_origin(bare(one)) is dict for one in alternatives(kind))


def in_words(kind: Any) -> str:
    """What a type holds, in words: "a whole number or null"."""
    return " or ".join(_in_words(bare(one)) for one in alternatives(kind))


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return ("one of " if len(choices) > 1 else "") + ", ".join(choices)
    words = {
        int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "null",
        list: "a list such as [a, b]", dict: "a mapping such as {a: 1}",
    }  # fmt: skip
    return words[get_origin(kind) or kind]


def fits(kind: Any, value: object) -> bool:
    """Whether a value is of one of a field's types; the items of a list or a mapping are not checked."""
    return any(_fits(bare(one), value) for one in alternatives(kind))


def _fits(kind: Any, value: object) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, get_origin(kind) or kind)


def spelt_out(kind: Any, value: Any) -> Any:
    """A value in our spelling: other words for it replaced, paths resolved."""
    for mark in marks(kind):
        if isinstance(mark, Also) and type(value) is type(mark.spelling) and value == mark.spelling:
            return mark.means
    if is_path(kind):
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        if isinstance(value, str):
            value = os.path.expanduser(os.path.expandvars(value))
    return value


def require(holds: bool, key: str, got: str, expected: str, remedy: str) -> None:
    """Refuse a value that does not hold.

    Raises:
        ConfigError: in its three parts.
    """
    if not holds:
        raise ConfigError(f"{key}: got {got}, expected {expected}. {remedy}")


class Section:
    """Keys of one kind: each value is spelt out and judged by the marks at its field."""

    def __post_init__(self) -> None:
        for key, kind in hints_of(type(self)).items():
            value = spelt_out(kind, getattr(self, key))
            object.__setattr__(self, key, value)  # frozen to all others
            expected = _expected(kind, value)
            self.require(expected is None, key, value, expected or "")

    @classmethod
    def require(cls, holds: bool, key: str, got: object, expected: str) -> None:
        """Refuse a value of the config that does not hold."""
        require(holds, key, repr(got), expected, f"Change {key} in the config or --{key}.")


class OptionsSection(Section):
    """Keys of one command, which stand in no file."""

    @classmethod
    def require(cls, holds: bool, key: str, got: object, expected: str) -> None:
        """Refuse an option that does not hold."""
        require(holds, key, str(got), expected, f"Change --{key}.")


def _expected(kind: Any, value: Any) -> str | None:
    """The expectation that a value breaks; None where all hold."""
    if not fits(kind, value):
        # What a rule says of the whole field is nearer to the point than the names of its types.
        own = [rule.words for rule in getattr(kind, "__metadata__", ()) if isinstance(rule, Must)]
        return own[0] if own else in_words(kind).removesuffix(" or null")
    if isinstance(value, str) and (value == "" or "\0" in value):
        return "a word without null characters"
    rules = [] if value is None else _rules(kind, value)
    return next((expected for rule in rules if (expected := rule.expected(value)) is not None), None)


def _rules(kind: Any, value: Any) -> Iterator[Rule]:
    """The rules for a value: of the whole field, and of the alternative that the value is."""
    yield from (mark for mark in getattr(kind, "__metadata__", ()) if not isinstance(mark, Flag | Also))
    inner = bare(kind)
    if get_origin(inner) in (Union, UnionType):
        for one in get_args(inner):
            if fits(one, value):
                yield from _rules(one, value)


_KNOWN_HINTS: dict[type, dict[str, Any]] = {}


def hints_of(section: type) -> dict[str, Any]:
    """The keys of a section with their types and marks, in order; read once, as it takes a while."""
    if section not in _KNOWN_HINTS:
        hints = get_type_hints(section, include_extras=True)
        _KNOWN_HINTS[section] = {f.name: hints[f.name] for f in dataclasses.fields(section)}
    return _KNOWN_HINTS[section]


def unmarked(kind: Any) -> Any:
    """A field's type without any mark in it, as libraries read types."""

    class Field:
        value: Any

    Field.__annotations__["value"] = kind
    return get_type_hints(Field)["value"]


def choices(kind: Any) -> list[str]:
    """The words that a type is made of; of a type that takes others too, those that can be listed."""
    found: list[str] = []
    for one in map(bare, alternatives(kind)):
        found += get_args(one) if get_origin(one) is Literal else ["true", "false"] if one is bool else []
    return found


def is_path(kind: Any) -> bool:
    """Whether a field holds a path, or what may be one."""
    return PATH in marks(kind)


def placeholder(kind: Any) -> str:
    """What a type takes, as a help writes it beside a key: "INT|full"."""
    return "|".join(_placeholder(one, list(marks(kind))) for one in alternatives(kind) if bare(one) is not type(None))


def _placeholder(kind: Any, around: list[Any]) -> str:
    inner = bare(kind)
    if get_origin(inner) is Literal:
        return "|".join(get_args(inner))
    shown = {int: "INT", float: "FLOAT", bool: "true|false", str: "TEXT", list: "[A,B,...]", dict: "{A: B, ...}"}
    word = shown[get_origin(inner) or inner]
    if word == "TEXT":
        own = [mark.shown for mark in around if isinstance(mark, Reads)]
        word = "PATH" if PATH in around else own[0] if own else word
    return word
