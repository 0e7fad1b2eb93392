"""Parts by name: our own, those of installed packages, and those that an import path names.

Owns how a word becomes a part: `dice`, the entry point of an installed package, `my_package.losses:tversky`, each with arguments
in brackets where it takes some, `my_package.losses:tversky(alpha=0.3)`. Nothing is imported before a part is used. Must not know
torch, nor what any part does: each file of ours that holds parts declares them by a line PARTS.

The words that come here are the user's own: typed, or written in their own YAML. A word that a folder brought (a checkpoint, a
model folder) passes `require_trusted` first.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from unet_dist.errors import CheckpointError, ConfigError, suggest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Part = TypeVar("Part")

_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class Word:
    """What a user wrote for a part: its name, and the arguments in brackets behind it."""

    name: str
    arguments: Mapping[str, object]

    def __str__(self) -> str:
        """In the one way of spelling: equal words are equal texts."""
        inside = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{self.name}({inside})" if inside else self.name


def parse_word(key: str, text: str) -> Word:
    """Read NAME or NAME(key=value, ...), with values as Python writes numbers, strings, lists and mappings.

    >>> parse_word("loss", "my_package.losses:tversky(alpha=0.3)")
    Word(name='my_package.losses:tversky', arguments={'alpha': 0.3})

    Raises:
        ConfigError: the brackets hold anything else; names the key.
    """
    name, bracket, inside = text.strip().partition("(")
    if not bracket:
        return Word(name, {})
    try:
        call = ast.parse(f"_({inside}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or ast.unparse(call.func) != "_":
            raise ValueError
        arguments = {str(pair.arg): ast.literal_eval(pair.value) for pair in call.keywords if pair.arg is not None}
        if len(arguments) != len(call.keywords):
            raise ValueError
    except (SyntaxError, ValueError):
        raise ConfigError(
            f"{key}: got {text.strip()!r}. Expected arguments as key=value in the brackets, such as {name}(alpha=0.3, name='a'). "
            f"Change {key}."
        ) from None
    return Word(name.strip(), arguments)


def split_words(words: str | None) -> list[str]:
    """The words of a list such as "mean_dice,my_package.metrics:kappa(power=2, of='all')"; a comma in brackets is an argument's."""
    return [word.strip() for word in re.split(r",(?![^(]*\))", words or "") if word.strip()]


def is_import_path(name: str) -> bool:
    """Say whether a name has the form package.module:attribute."""
    return _IMPORT_PATH.fullmatch(name) is not None


_DECLARATION = re.compile(r"^PARTS(?:: [^=\n]+)? = \{([^}]*)\}", re.MULTILINE)


def declared_parts(package: str) -> dict[str, str]:
    """The parts that the files of a package of ours declare by a line PARTS = {"dice": Dice}: NAME -> "module:attribute".

    The files are read as text: behind them stands torch, which takes seconds, and a name wants none of it.
    """
    found = importlib.util.find_spec(package)
    assert found is not None, package
    parts: dict[str, str] = {}
    for folder in found.submodule_search_locations or ():
        for file in sorted(Path(folder).glob("*.py")):
            for declaration in _DECLARATION.findall(file.read_text(encoding="utf-8")):
                pairs = re.findall(r'"(\w+)": (\w+)', declaration)
                parts |= {name: f"{package}.{file.stem}:{attribute}" for name, attribute in pairs}
    return parts


class Registry(Generic[Part]):
    """One kind of part.

    Args:
        key: the key that names such a part on the command line, for messages.
        group: entry points under which installed packages offer theirs, such as unet_dist.losses.
        own: our parts, NAME -> "module:attribute", or the package whose files declare them. They go before those of others.
        on_clash: what to do where two packages offer one name.
    """

    def __init__(
        self,
        key: str,
        group: str,
        own: Mapping[str, str] | str,
        *,
        on_clash: str = "Name the one you mean by its import path.",
    ) -> None:
        self.key = key
        self.group = group
        self._own = own
        self.on_clash = on_clash

    @cached_property
    def own(self) -> dict[str, str]:
        """Our own parts, NAME -> "module:attribute"."""
        return declared_parts(self._own) if isinstance(self._own, str) else dict(self._own)

    def names(self) -> list[str]:
        """Names of our own parts and of those that installed packages offer."""
        return sorted({*self.own, *(point.name for point in _installed(self.group))})

    def find(self, name: str) -> str:
        """Find the "module:attribute" that a name stands for, without importing it.

        Raises:
            ConfigError: no such part, or two packages offer one of this name.
        """
        if name in self.own:
            return self.own[name]
        offered = [point for point in _installed(self.group) if point.name == name]
        if len({point.value for point in offered}) > 1:
            both = " and ".join(f"{_distribution(point)} ({point.value})" for point in offered)
            raise ConfigError(f"{self.key}: {name!r} is offered by {both}. {self.on_clash}")
        if offered:
            return offered[0].value
        if is_import_path(name):
            return name
        raise ConfigError(
            f"{self.key}: got {name!r}, expected one that exists, or an import path such as my_package.my_module:name. "
            f"{suggest(name, self.names())} Change {self.key} in the config or --{self.key}."
        )

    def spell(self, text: str) -> str:
        """Check the name in NAME(key=value, ...), without importing it, and write the word in the one way of spelling.

        Raises:
            ConfigError: no such part.
        """
        word = parse_word(self.key, text)
        self.find(word.name)
        return str(word)

    def is_own(self, name: str) -> bool:
        """Say whether a name stands for a part of this package, so that using it imports nobody else's code."""
        return name in self.own

    def load(self, name: str) -> Part:
        """Import a part.

        Raises:
            ConfigError: no such part, or it cannot be imported; names the package and the line.
        """
        return cast(Part, import_part(self.key, self.find(name)))

    def build(self, text: str, given: Mapping[str, object] | None = None) -> object:
        """Load the part that NAME(key=value, ...) names and call it, with the arguments and those of `given` that it takes.

        Raises:
            ConfigError: no such part, or it does not take these arguments.
        """
        word = parse_word(self.key, text)
        return call_part(self.key, word, cast(Callable[..., object], self.load(word.name)), given or {})


def takes(part: Callable[..., object], name: str) -> bool:
    """Say whether a function or a class takes an argument of that name."""
    parameters = inspect.signature(part).parameters
    return name in parameters or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def call_part(key: str, word: Word, part: Callable[..., object], given: Mapping[str, object]) -> object:
    """Call a part with a word's arguments, which go first, and with those of `given` whose names it takes.

    Raises:
        ConfigError: it is no function or class, or does not take the word's arguments, or needs others.
    """
    if not callable(part):
        raise ConfigError(
            f"{key}: {word.name} is a {type(part).__name__}. Expected a function or a class. Change {key}."
        )
    signature = inspect.signature(part)
    arguments = {name: value for name, value in given.items() if takes(part, name)}
    arguments.update(word.arguments)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ConfigError(
            f"{key}: {word.name}{signature} does not fit: {error}. Put what it takes in brackets: {word.name}(name=value)."
        ) from None
    return part(**arguments)


def import_part(key: str, path: str) -> object:
    """Import "module:attribute".

    The folder that the command is started in counts after all installed packages, as `unet-dist` is a program and not
    `python -m`.

    Raises:
        ConfigError: there is no such module or attribute, or the module fails; names the line that does.
    """
    module_name, _, attribute = path.partition(":")
    _see_folder()
    try:
        part: object = importlib.import_module(module_name)
    except Exception as error:  # whatever somebody else's module raises
        raise ConfigError(f"{key}: {path} cannot be imported: {_reason(module_name, error)}") from error
    for name in attribute.split("."):
        if not hasattr(part, name):
            there = [other for other in dir(part) if not other.startswith("_")]
            raise ConfigError(f"{key}: {path}: there is no {name} in {module_name}. {suggest(name, there)}")
        part = getattr(part, name)
    return part


def is_there(package: str) -> bool:
    """Say whether a package can be found; it is not imported."""
    _see_folder()
    return importlib.util.find_spec(package) is not None


def _see_folder() -> None:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())


def require_trusted(name: str, trust: Sequence[str], where: str) -> None:
    """Refuse to import what a folder names, unless the user trusts the package.

    Args:
        name: the part's "module:attribute".
        trust: packages or modules that the user named.
        where: the file that asks for the part.

    Raises:
        CheckpointError: it is not among them; says how to trust it.
    """
    module = name.partition(":")[0]
    if any(module == trusted or module.startswith(f"{trusted}.") for trusted in trust):
        return
    package = module.partition(".")[0]
    raise CheckpointError(
        f"{where} needs {name}, which is code of the package {package}. A folder never decides which code runs here: if you "
        f'trust that package, add --trust {package} (in Python trust=["{package}"]).'
    )


def _installed(group: str) -> tuple[EntryPoint, ...]:
    return _entry_points(group, tuple(sys.path))


@lru_cache(maxsize=64)
def _entry_points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Entry points of a group; the search path is the cache's key, as a folder on it may hold more of them."""
    from importlib.metadata import entry_points  # takes a fifth of the time of a help, and most words are of ours

    return tuple(entry_points(group=group))


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "a package"


def _reason(module_name: str, error: Exception) -> str:
    """What went wrong, and in which line of whose file."""
    package = module_name.partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        return (
            f"there is no package {package}. Install it, or start in the folder that holds it ({os.getcwd()} does not)."
        )
    if isinstance(error, ModuleNotFoundError) and error.name is not None and module_name.startswith(error.name):
        return f"the package {package} has no module {error.name}. Check the spelling."
    return describe_error(error)


def describe_error(error: Exception) -> str:
    """What somebody else's code raised, and in which line of which file."""
    import traceback  # as slow to import as all of this module

    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})."
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > 1 else ""
    return f"{type(error).__name__}: {text.rstrip('.')}{place}."
