"""The help: of a command in short and in full, and of one key."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from unet_dist.command_line.command import Command, find_commands
from unet_dist.command_line.listing import width
from unet_dist.command_line.synonyms import answer_synonym
from unet_dist.config.chosen_keys import CHOSEN_KEYS
from unet_dist.config.rules import hints_of, placeholder
from unet_dist.errors import ConfigError, suggest_key


def topic_help(topic: str) -> str:
    """The help of a command, or of a key with the commands that take it.

    Raises:
        ConfigError: the topic is neither.
    """
    command = find_commands().get(topic)
    return _key_help(_key_of(topic)) if command is None else command_help(command)


def command_help(command: Command, topic: str | None = None) -> str:
    """The help of a command.

    Args:
        topic: None for the keys that matter first, "all" for every key, or one key.

    Raises:
        ConfigError: no such key.
    """
    if topic == "all":
        return _full(command)
    if topic is None:
        return _short(command)
    key = _key_of(topic)
    if key not in command.hints:
        raise _unknown(key, command.hints)
    return "\n".join(_entry(command, key))


def _key_help(key: str) -> str:
    """What a key means, once for all commands that say the same of it."""
    commands = find_commands().values()
    takers: dict[str, list[str]] = {}
    for command in commands:
        if key in command.hints:
            takers.setdefault("\n".join(_entry(command, key)), []).append(command.name)
    if not takers:
        raise _unknown(key, {name: hint for command in commands for name, hint in command.hints.items()})
    indent = " " * 6
    wrapped = (
        textwrap.wrap(f"Taken by: {', '.join(names)}.", width(), initial_indent=indent, subsequent_indent=indent)
        for names in takers.values()
    )
    return "\n\n".join("\n".join([entry, *lines]) for entry, lines in zip(takers, wrapped, strict=True))


def _key_of(topic: str) -> str:
    return topic.lstrip("-").replace("-", "_")


def _unknown(key: str, hints: Mapping[str, Any]) -> ConfigError:
    return ConfigError(f"Unknown key --{key}. {answer_synonym(key, hints) or suggest_key(key, hints)}")


def _full(command: Command) -> str:
    lines = _head(command)
    for section in command.sections:
        lines += ["", *textwrap.wrap(f"{section.__doc__}:", width())]
        lines += [line for key in hints_of(section) for line in _entry(command, key)]
    return "\n".join(lines)


def _short(command: Command) -> str:
    first = command.main_keys
    others = {
        str(section.__doc__): [key for key in hints_of(section) if key not in first] for section in command.sections
    }
    lines = [*_head(command), ""] if command.hints else _head(command)
    if any(others.values()):
        lines += ["The keys that matter first:"]
    lines += [line for key in first for line in _entry(command, key)]
    if any(others.values()):
        lines += ["", "The others (--help KEY explains one, --help all every one):"]
        for title, keys in others.items():
            indent = " " * 6
            if keys:
                lines += [
                    f"  {title}",
                    *textwrap.wrap(", ".join(keys), width(), initial_indent=indent, subsequent_indent=indent),
                ]
    return "\n".join(lines)


def _head(command: Command) -> list[str]:
    about = f"{command.about[0].upper()}{command.about[1:]}."
    return [f"usage: {command.usage_line}", "", *textwrap.wrap(about, width())]


def _entry(command: Command, key: str) -> list[str]:
    """A key with what it takes, and its meaning with its default."""
    text = command.meaning(key)
    default = _default(command, key)
    notes = [] if default is None else [f"default: {json.dumps(default).replace(chr(34), '')}"]  # none is in the text
    if command.chooses and key in CHOSEN_KEYS:
        notes.append("with data_path alone, chosen for the data")
    if notes:
        text += f" ({'; '.join(notes)})"
    indent = " " * 6
    lines = textwrap.wrap(text, width(), initial_indent=indent, subsequent_indent=indent)
    return [f"  --{key} {placeholder(command.hints[key])}", *lines]


@lru_cache
def _template(name: str) -> Mapping[str, Any]:
    """The values of a file of configs/; its readers are imported only for a command that starts from one."""
    from unet_dist.command_line.parsing import read_yaml
    from unet_dist.command_line.starter import CONFIGS
    from unet_dist.config.sections import KEYS

    return read_yaml(str(CONFIGS / name), list(KEYS))


def _default(command: Command, key: str) -> Any:
    if command.default_config is not None and key in (template := _template(command.default_config)):
        return template[key]
    section = next(section for section in command.sections if key in hints_of(section))
    found = next(f for f in dataclasses.fields(section) if f.name == key)
    return found.default if found.default_factory is dataclasses.MISSING else found.default_factory()
