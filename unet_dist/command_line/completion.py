"""Completion of commands, keys and values in a shell: shtab writes the scripts.

Owns telling it what there is.
"""

from __future__ import annotations

import argparse
from typing import Any

from unet_dist.command_line.command import Command, find_commands
from unet_dist.config.rules import choices, is_path


def completion_script(shell: str) -> str:
    """The script that a shell evaluates to complete unet-dist.

    Args:
        shell: one that shtab knows, such as bash, zsh or fish.
    """
    import shtab

    program = argparse.ArgumentParser(prog="unet-dist", add_help=False)
    subparsers = program.add_subparsers()
    for name, command in find_commands().items():
        _add_keys(subparsers.add_parser(name, help=command.about, add_help=False), command, shtab.FILE)
    script: str = shtab.complete(program, shell=shell)
    return script


def _add_keys(parser: argparse.ArgumentParser, command: Command, file: Any) -> None:
    for key, kind in command.hints.items():
        # A percent sign begins a field in argparse's help.
        meaning = command.meaning(key).partition(". ")[0].replace("%", "%%")
        argument: Any = parser.add_argument(f"--{key}", choices=choices(kind) or None, help=meaning)
        if is_path(kind):
            argument.complete = file
    words: Any = parser.add_argument("words", nargs="*", choices=command.word_choices or None)
    if not command.word_choices:
        words.complete = file
