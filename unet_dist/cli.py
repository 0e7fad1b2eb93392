"""The command line: reads words, builds options, hands over to a command.

Owns the parsing, the help and the last word of an error. Imports nothing heavy before a command runs, so that --help
answers at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from unet_dist.errors import ConfigError, UnetDistError, suggest
from unet_dist.storage.files import refusal_of_disk

# As in distributed.py, which is too heavy to import here.
GRACE_S = 3.0

COMMANDS = {
    "train": "train a network; resumes by itself when its output folder holds an unfinished run",
    "evaluate": "per-class IoU, mean IoU and confusion matrix of a run over a split, by overlap-tile",
    "predict": "label maps and overlays of images",
    "export": "a model in a form that others load: ONNX, or a folder for the Hugging Face hub",
    "demo": "a page on this machine that labels the images one drops on it",
    "prepare": "read a data set, check every pair, write the decoded cache and its statistics",
    "bench": "how fast a run is, against what the device can do, layer by layer and over processes; compares settings",
    "plan": "sizes, tiles, FLOPs and predicted peak memory of a run, and what to change to fit; no data, no device",
    "report": "one self-contained HTML page of a run, or a comparison of several",
}
USAGE = {
    "train": "unet-dist train [CONFIG.yaml] [--key value ...]",
    "evaluate": "unet-dist evaluate RUN [--split test] [--key value ...]",
    "predict": "unet-dist predict RUN INPUT... --output DIR [--key value ...]",
    "export": "unet-dist export RUN --format onnx|huggingface [--output PATH] [--key value ...]",
    "demo": "unet-dist demo RUN [--port 7860] [--key value ...]",
    "prepare": "unet-dist prepare [CONFIG.yaml] [--key value ...]",
    "bench": "unet-dist bench [CONFIG.yaml] [--compare KEY=VALUE,VALUE] [--key value ...]",
    "plan": "unet-dist plan [CONFIG.yaml] [--memory 24GiB] [--key value ...]",
    "report": "unet-dist report RUN [RUN ...] [--output FILE.html] [--key value ...]",
}


# Those that take a config; the others work on a run.
CONFIG_COMMANDS = ("train", "prepare", "bench", "plan")


class _Parser:
    """Flat keys of dataclass sections, read by jsonargparse; its errors become ours."""

    def __init__(self, command: str, sections: Iterable[type]) -> None:
        from jsonargparse import ArgumentParser, set_parsing_settings

        set_parsing_settings(docstring_parse_attribute_docstrings=True)
        self._parser = ArgumentParser(exit_on_error=False, add_help=False)
        self.command = command
        self.sections = list(sections)
        self.keys: list[str] = []
        self.booleans: set[str] = set()
        for section in self.sections:
            self._parser.add_class_arguments(section, nested_key=None)
            for f in dataclasses.fields(section):
                self.keys.append(f.name)
                if f.type in (bool, "bool"):
                    self.booleans.add(f.name)

    def help(self) -> str:
        """The help text: every key with the values it takes, its meaning, unit and default."""
        width = min(shutil.get_terminal_size().columns, 100)
        about = COMMANDS[self.command]
        lines = [f"usage: {USAGE[self.command]}", "", *textwrap.wrap(f"{about[0].upper()}{about[1:]}.", width)]
        defaults = {action.dest: action.default for action in self._parser._actions}
        for section in self.sections:
            lines += ["", *textwrap.wrap(f"{section.__doc__}:", width)]
            for key, kind in get_type_hints(section).items():
                text = self._meaning(key)
                if defaults[key] is not None:  # what none means is in the text
                    text += f" (default: {json.dumps(defaults[key]).replace(chr(34), '')})"
                lines.append(f"  --{key} {_values(kind)}")
                lines += textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
        return "\n".join(lines)

    def split(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """Separate positional words from `--key value` words; `-` in a key reads as `_`, a bare switch as true."""
        positional: list[str] = []
        options: list[str] = []
        pending = list(words)
        while pending:
            word = pending.pop(0)
            if not word.startswith("--"):
                if word.startswith("-") and len(word) > 1:
                    raise ConfigError(
                        f"Unknown option {word!r}. Keys start with two dashes; unet-dist COMMAND --help lists them."
                    )
                positional.append(word)
                continue
            key, equals, value = word[2:].partition("=")
            key = key.replace("-", "_")
            if key not in self.keys:
                raise ConfigError(f"Unknown key --{key}. {_nearest(key, self.keys)}")
            if not equals:
                has_value = bool(pending) and not pending[0].startswith("--")
                if key in self.booleans and not (has_value and pending[0].lower() in ("true", "false", "yes", "no")):
                    value = "true"
                elif has_value:
                    value = pending.pop(0)
                else:
                    raise ConfigError(f"--{key}: got no value, expected one. ({self._meaning(key)})")
            options.append(f"--{key}={value}")
        return positional, options

    def parse(self, options: list[str], defaults: dict[str, Any] | None = None) -> dict[str, Any]:
        """Parse `--key=value` words over values of a file; only the keys that one of them names are returned."""
        named = list(defaults or {})
        namespace = self._guard(lambda: self._parser.parse_object(dict(defaults or {}), defaults=True))
        for option in options:
            key = option[2:].partition("=")[0]
            parsed = self._guard(lambda option=option: self._parser.parse_args([option]), key)
            namespace[key] = parsed[key]
            named.append(key)
        return {key: namespace[key] for key in named}

    def _meaning(self, key: str) -> str:
        """The string under a field, as one line."""
        return next(" ".join(str(action.help).split()) for action in self._parser._actions if action.dest == key)

    def _guard(self, parse: Any, key: str | None = None) -> Any:
        from jsonargparse import ArgumentError

        try:
            return parse()
        except (ArgumentError, TypeError, ValueError) as error:
            text = str(error)
            match = re.search(r'[Kk]ey "(\w+)"', text)
            key = match.group(1) if match else key
            expected = (
                " or ".join(_readable(e) for e in re.findall(r"Expected an? (.+?)(?:\. Got value|$)", text, re.M))
                or "another value"
            )
            got = re.findall(r"(?:Got value|Given value): (.*)", text)
            if key is None:
                raise ConfigError(text) from None
            said = got[-1] if got else "a value that cannot be read"
            raise ConfigError(f"{key}: got {said!r}, expected {expected}. ({self._meaning(key)})") from None


def _readable(hint: str) -> str:
    """Turn a type as Python prints it into words."""
    hint = re.sub(r"<class '(\w+)'>", r"\1", hint).replace("typing.", "")
    literal = re.fullmatch(r"Literal\[(.*?)\]", hint)
    if literal:
        return ("one of " if "," in literal[1] else "") + literal[1].replace("'", "")
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word", "NoneType": "null"}
    lists = {"list": "a list such as [a, b]", "dict": "a mapping such as {a: 1}"}
    return (words | lists).get(hint, hint)


def _values(kind: Any) -> str:
    """The values that a type takes, as the help shows them beside a key."""
    if get_origin(kind) in (Union, UnionType):
        return "|".join(_values(one) for one in get_args(kind) if one is not type(None))
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    shown = {int: "INTEGER", float: "NUMBER", bool: "true|false", str: "WORD", list: "[A,B,...]", dict: "{A: B, ...}"}
    return shown[get_origin(kind) or kind]


def _nearest(key: str, keys: Sequence[str]) -> str:
    """The nearest keys to a misspelt one; the whole list would hide them."""
    near = [k for k in keys if len(key) > 1 and key == "".join(word[0] for word in k.split("_"))]  # lr, bs
    near = near or difflib.get_close_matches(key, keys, n=3, cutoff=0.5)
    return (
        f"Did you mean {' or '.join('--' + k for k in near)}? --help lists all keys."
        if near
        else "--help lists all keys."
    )


def read_yaml(path: str, keys: Sequence[str]) -> dict[str, Any]:
    """Read a file of flat keys.

    Raises:
        ConfigError: no such file, not a mapping, or a key that is not one of keys (names the nearest).
    """
    import yaml

    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"Config file: got {path!r}, which is not a file; expected a YAML file. Keys start with --.")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: got a {type(values).__name__}, expected lines of `key: value`.")
    for key in values:
        if key not in keys:
            raise ConfigError(f"{path}: unknown key {key!r}. {_nearest(str(key), keys)}")
    return values


def parse_config(command: str, words: Sequence[str]) -> Any:
    """Build the Config of `train` and `prepare` from [CONFIG.yaml] and --key value words."""
    return _parse(command, words)[0]


def parse_plan(command: str, words: Sequence[str]) -> tuple[Any, Any]:
    """Build the Config and the PlanOptions of `plan` from [CONFIG.yaml] and --key value words."""
    from unet_dist.config.options import PlanOptions

    config, others, _ = _parse(command, words)
    return config, PlanOptions(**others)


def parse_bench(command: str, words: Sequence[str]) -> tuple[Any, Any, dict[str, Any]]:
    """Build the Config and the BenchOptions of `bench`, and the Config of each setting that it compares, by its name."""
    from unet_dist.config.options import BenchOptions
    from unet_dist.config.sections import KEYS

    config, others, parser = _parse(command, words)
    options = BenchOptions(**others)
    key, values = options.compared()
    if key is None:
        return config, options, {}
    if key not in KEYS:
        raise ConfigError(f"compare: unknown key {key!r}. {_nearest(key, list(KEYS))}")
    settings = {f"{key} {value}": parser.parse([f"--{key}={value}"])[key] for value in values}
    return config, options, {name: config.replace(**{key: value}) for name, value in settings.items()}


def _parse(command: str, words: Sequence[str]) -> tuple[Any, dict[str, Any], _Parser]:
    """Read [CONFIG.yaml] and --key value words: the Config, the values of the other keys, and what read them."""
    from unet_dist.config.sections import KEYS, Config

    parser = _Parser(command, _sections(command))
    positional, options = parser.split(words)
    if len(positional) > 1:
        raise ConfigError(
            f"{command}: got {len(positional)} words without a key ({' '.join(positional)}), expected one CONFIG.yaml at most."
        )
    values = read_yaml(positional[0], list(KEYS)) if positional else {}
    parsed = parser.parse(options, values)
    config = Config.from_flat({key: value for key, value in parsed.items() if key in KEYS})
    return config, {key: value for key, value in parsed.items() if key not in KEYS}, parser


def parse_options(command: str, words: Sequence[str]) -> tuple[list[str], Any]:
    """Build the positional words and the options of a command that works on a run."""
    section = options_of(command)
    parser = _Parser(command, [section])
    positional, options = parser.split(words)
    if not positional:
        expected = "the folders of runs" if command == "report" else "a run's folder, a model folder or a hub id"
        raise ConfigError(f"{command}: got no RUN, expected {expected}. Usage: {USAGE[command]}")
    return positional, section(**parser.parse(options))


def options_of(command: str) -> Any:
    """The options class of a command that works on a run."""
    from unet_dist.config import options

    return {
        "evaluate": options.EvaluateOptions,
        "predict": options.PredictOptions,
        "report": options.ReportOptions,
        "export": options.ExportOptions,
        "demo": options.DemoOptions,
    }[command]


def _help(command: str | None) -> str:
    if command is None:
        lines = ["usage: unet-dist COMMAND [...]", "", "Distributed training of U-Nets for semantic segmentation.", ""]
        lines += [f"  {name:<10}{text}" for name, text in COMMANDS.items()]
        lines += ["", "unet-dist COMMAND --help lists every key. On several processes:", ""]
        lines += ["  accelerate launch --multi_gpu --num_processes 2 -m unet_dist COMMAND [...]"]
        return "\n".join(lines)
    return _Parser(command, _sections(command)).help()


def _sections(command: str) -> list[Any]:
    """The classes whose fields are the keys of a command."""
    from unet_dist.config.options import BenchOptions, PlanOptions
    from unet_dist.config.sections import SECTIONS

    if command not in CONFIG_COMMANDS:
        return [options_of(command)]
    others: dict[str, Any] = {"plan": PlanOptions, "bench": BenchOptions}
    return [*SECTIONS.values(), *([others[command]] if command in others else [])]


def run(words: Sequence[str]) -> None:
    """Run one command.

    Raises:
        UnetDistError: a mistake the user can mend.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help(None))
        return
    command, rest = words[0], list(words[1:])
    if command == "--version":
        from importlib.metadata import version

        print(f"unet_dist {version('unet_dist')}")
        return
    if command not in COMMANDS:
        raise ConfigError(f"Unknown command {command!r}. {suggest(command, COMMANDS)}")
    if "-h" in rest or "--help" in rest:
        print(_help(command))
        return
    if command == "plan":
        parsed: tuple[Any, ...] = parse_plan(command, rest)
    elif command == "bench":
        parsed = parse_bench(command, rest)
    elif command in CONFIG_COMMANDS:
        from unet_dist.assembly.data_set import begin_drawing

        config = parse_config(command, rest)
        begin_drawing(config, os.environ)
        parsed = (config,)
    else:
        parsed = parse_options(command, rest)
    importlib.import_module(f"unet_dist.commands.{command}").run(*parsed)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point: runs a command and leaves with its exit code; a mistake of the user is printed as a sentence."""
    words = sys.argv[1:] if argv is None else argv
    try:
        run(words)
    except KeyboardInterrupt:  # before a command listens for it, or in one that has nothing to save
        print("unet-dist: interrupted", file=sys.stderr, flush=True)
        sys.exit(130)
    except (UnetDistError, OSError) as error:
        sentence = str(error) if isinstance(error, UnetDistError) else refusal_of_disk(error)
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        if sentence is None:
            raise
        # Words and files are the same on every process: the first one says it, and the others leave it the time to, as a
        # launcher ends all processes when the first of them leaves.
        if os.environ.get("RANK", "0") != "0":
            time.sleep(GRACE_S)
        print(f"unet-dist: error: {sentence}", file=sys.stderr, flush=True)
        sys.exit(2)
    sys.exit(0)
