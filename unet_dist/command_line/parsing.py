"""Words of the command line: from `CONFIG.yaml --key value ...` to checked values.

Owns the spelling (`-` for `_`, `--key=value`, a bare switch), the file of keys, and the sentence for each word that cannot be
read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_dist.command_line.command import Command
from unet_dist.command_line.starter import CONFIGS
from unet_dist.command_line.synonyms import answer_synonym
from unet_dist.config.rules import hints_of, unmarked
from unet_dist.config.sections import FREE_KEYS, KEYS, Config, DataConfig
from unet_dist.config.start_options import ConfigOptions, StartOptions
from unet_dist.config.values import read
from unet_dist.errors import ConfigError, suggest_key
from unet_dist.storage.typed import read_yaml as read_mapping
from unet_dist.wording import shorten

_SWITCH_WORDS = ("true", "false", "yes", "no")


@dataclass(frozen=True)
class Parsed:
    """What the words of a command say.

    Attributes:
        arguments: those of its run.
        config_options: the options about the config itself; the defaults for a command that takes none.
        start: on how many processes and on which device; the defaults likewise.
    """

    arguments: tuple[Any, ...]
    config_options: ConfigOptions
    start: StartOptions


def parse(command: Command, words: Sequence[str]) -> Parsed:
    """Read the words of a command.

    Raises:
        ConfigError: an unknown key, a value that its key does not take, or words too many or too few.
    """
    positional, options = split(command, words)
    values: dict[str, Any] = {}
    if command.takes_config:
        if len(positional) > 1:
            raise ConfigError(
                f"{command.name}: got {len(positional)} words without a key ({' '.join(positional)}), expected one CONFIG.yaml at "
                "most."
            )
        if positional:
            values = _read_all(command, read_yaml(positional[0], list(KEYS)), is_word=False)
        elif command.default_config is not None:
            values = _read_all(command, read_yaml(str(CONFIGS / command.default_config), list(KEYS)), is_word=False)
            if (
                options.get("data_path", DataConfig.data_path) != DataConfig.data_path
            ):  # the template is about scenes, but for where things go
                values = {key: value for key, value in values.items() if key in FREE_KEYS}
    elif command.needs is not None and not positional:
        missing = command.usage.split()[0]
        raise ConfigError(
            f"{command.name}: got no {missing.rstrip('.')}, expected {command.needs}. Usage: {command.usage_line}"
        )
    values |= _read_all(command, options, is_word=True)
    first = (
        Config.from_flat({key: values[key] for key in values if key in KEYS}) if command.takes_config else positional
    )
    own = command.own_options
    arguments = (first, _fill(own, values)) if own else (first,)
    return Parsed(arguments, _fill(ConfigOptions, values), _fill(StartOptions, values))


def _fill(section: type, values: Mapping[str, Any]) -> Any:
    return section(**{key: values[key] for key in hints_of(section) if key in values})


def _read_all(command: Command, values: Mapping[str, Any], *, is_word: bool) -> dict[str, Any]:
    hints = command.hints
    return {key: read(key, hints[key], value, command.meaning(key), is_word=is_word) for key, value in values.items()}


def split(command: Command, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Separate positional words from `--key value` words; `-` in a key reads as `_`, a bare switch as true."""
    hints = command.hints
    switches = {key for key, kind in hints.items() if unmarked(kind) is bool}
    positional: list[str] = []
    options: dict[str, str] = {}
    pending = list(words)
    while pending:
        word = pending.pop(0)
        if not word.startswith("--"):
            if word.startswith("-") and len(word) > 1:
                raise ConfigError(
                    f"Unknown option {shorten(word)!r}. Keys start with two dashes; unet-dist COMMAND --help lists them. A file of "
                    f"this name is ./{shorten(word)}."
                )
            positional.append(word if os.path.lexists(word) else os.path.expanduser(os.path.expandvars(word)))
            continue
        key, equals, value = word[2:].partition("=")
        key = key.replace("-", "_")
        if key not in hints:
            raise ConfigError(f"Unknown key --{shorten(key)}. {answer_synonym(key, hints) or suggest_key(key, hints)}")
        if not equals:
            has_value = bool(pending) and not pending[0].startswith("--")
            if key in switches and not (has_value and pending[0].lower() in _SWITCH_WORDS):
                value = "true"
            elif has_value:
                value = pending.pop(0)
            else:
                raise ConfigError(f"--{key}: got no value, expected one. ({command.meaning(key)})")
        options[key] = value
    return positional, options


def read_yaml(path: str, keys: Sequence[str]) -> dict[str, Any]:
    """Read a file of flat keys.

    Raises:
        ConfigError: no such file, not a mapping, or a key that is not one of keys (names the nearest).
    """
    try:
        is_file = Path(os.path.expanduser(path)).is_file()
    except (OSError, ValueError):  # too long a name, a null character
        is_file = False
    if not is_file:
        settled = Path(os.path.expanduser(path)) / "config.yaml"
        if os.path.isfile(settled):
            raise ConfigError(f"Config file: got {shorten(path)!r}, which is a run's folder; its config is {settled}.")
        is_folder = os.path.isdir(settled.parent)
        kind, remedy = (
            ("a folder", f"For data: --data_path {shorten(path)}")
            if is_folder
            else ("not a file", "Keys start with --")
        )
        raise ConfigError(f"Config file: got {shorten(path)!r}, which is {kind}; expected a YAML file. {remedy}.")
    remedy = "Expected lines of `key: value`."
    values = read_mapping(Path(os.path.expanduser(path)), dict[object, object], error=ConfigError, remedy=remedy)
    for key in values:
        if key not in keys:
            raise ConfigError(f"{path}: unknown key {shorten(repr(key))}. {suggest_key(str(key), keys)}")
    return {str(key): value for key, value in values.items()}
