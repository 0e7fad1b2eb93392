"""The command line: reads words, hands over to a command, and has the last word on an error.

Imports nothing heavy before a command runs, so that --help answers at once.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from unet_dist import __version__
from unet_dist.command_line.command import Command, find_command
from unet_dist.command_line.parsing import parse as parse_words
from unet_dist.errors import UnetDistError
from unet_dist.machine.cores import num_cores
from unet_dist.processes.launcher import is_first
from unet_dist.processes.starting import device_environment, launch_command, without_key
from unet_dist.storage.files import refusal_of_disk
from unet_dist.wording import printable

# As in processes/failing.py, which is too heavy to import here.
GRACE_S = 3.0


def parse(command: str, words: Sequence[str]) -> tuple[Any, ...]:
    """What a command's run gets for these words: its Config or its words, and its options where it has some.

    Raises:
        ConfigError: a mistake in the words.
    """
    return parse_words(find_command(command), words).arguments


def run(words: Sequence[str]) -> None:
    """Run one command.

    Raises:
        UnetDistError: a mistake the user can mend.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        from unet_dist.command_line.help import program_help

        print(program_help())
    elif words[0] == "--version":
        print(f"unet_dist {__version__}")
    else:
        _run(find_command(words[0]), list(words[1:]))


def _run(command: Command, words: list[str]) -> None:
    asked = next((word for word in words if word in ("-h", "--help")), None)
    if asked is not None:
        from unet_dist.command_line.help import command_help

        topic = words[words.index(asked) + 1 :]
        print(command_help(command, topic[0] if topic else None))
        return
    parsed = parse_words(command, words)
    if parsed.config_options.print_config:
        import yaml

        print(yaml.safe_dump(parsed.arguments[0].flat(), sort_keys=False, allow_unicode=True), end="")
        return
    os.environ.update(device_environment(parsed.start.device, os.environ))
    if parsed.start.processes is not None:
        _launch(command, words, parsed.start.processes)
    command.load_run()(*parsed.arguments)


def _launch(command: Command, words: list[str], count: int) -> NoReturn:
    """Become the launcher of so many processes: signals then reach it as if it had been called."""
    call = launch_command([command.name, *without_key(words, "processes")], count, os.environ)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // count)))
    sys.stdout.flush()
    os.execv(call[0], call)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point: runs a command and leaves with its exit code; a mistake of the user is printed as a sentence."""
    words = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):  # a name that their encoding lacks ends no run
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
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
        if not is_first(os.environ):
            time.sleep(GRACE_S)
        print(f"unet-dist: error: {printable(sentence)}", file=sys.stderr, flush=True)
        sys.exit(2)
    sys.exit(0)
