"""The command line: reads words, hands over to a command, and has the last word on an error.

Imports nothing heavy before a command runs, so that --help answers at once.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from unet_dist import __version__
from unet_dist.command_line.command import Command, find_command
from unet_dist.command_line.environment import explain_environment
from unet_dist.errors import UnetDistError
from unet_dist.machine.address_space import explain_lack, require_address_space
from unet_dist.machine.cores import num_cores
from unet_dist.processes.launcher import is_first, refuse_broken_places
from unet_dist.processes.starting import (
    LAUNCHER_ENVIRONMENT,
    device_environment,
    is_launched,
    launch_command,
    num_gpus,
    past_a_clone,
    share_evenly,
    without_key,
)
from unet_dist.storage.refusals import refusal_of_disk
from unet_dist.wording import hanging

# As in processes/failing.py, which is too heavy to import here.
GRACE_S = 3.0


def parse(command: str, words: Sequence[str]) -> tuple[Any, ...]:
    """What a command's run gets for these words: its Config or its words, and its options where it has some.

    Raises:
        ConfigError: a mistake in the words.
    """
    from unet_dist.command_line.parsing import parse as parse_words

    return parse_words(find_command(command), words).arguments


def run(words: Sequence[str], *, is_program: bool = False) -> None:
    """Run one command.

    Args:
        is_program: this process is the command's alone, so a command that uses all GPUs may become their launcher.

    Raises:
        UnetDistError: a mistake the user can mend.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        if words[1:] and words[1] != "all":
            from unet_dist.command_line.help import topic_help

            print(topic_help(words[1]))
        else:
            from unet_dist.command_line.listing import list_commands

            print(list_commands())
    elif words[0] == "--version":
        print(f"unet_dist {__version__}")
    else:
        _run(find_command(words[0]), list(words[1:]), is_program)


def _run(command: Command, words: list[str], is_program: bool) -> None:
    asked = next((word for word in words if word in ("-h", "--help")), None)
    if asked is not None:
        from unet_dist.command_line.help import command_help

        topic = words[words.index(asked) + 1 :]
        print(command_help(command, topic[0] if topic else None))
        return
    from unet_dist.command_line.parsing import parse as parse_words

    parsed = parse_words(command, words)
    if parsed.config_options.print_config:
        import yaml

        print(yaml.safe_dump(parsed.arguments[0].flat(), sort_keys=False, allow_unicode=True), end="")
        return
    if is_program:
        _announce(command)
    if command.starts_processes:
        refuse_broken_places(os.environ)
    os.environ.update(device_environment(parsed.start.device, os.environ))
    arguments, count = parsed.arguments, parsed.start.processes if command.starts_processes else None
    if command.starts_processes and not is_launched(os.environ):
        uses_all = is_program and command.uses_all_gpus
        most = count or (num_gpus(parsed.start.device) if uses_all else 1) or 1
        if command.chooses:
            arguments, words = _settle(command, arguments, words, most)
        if count is None and (fitting := _fitting_processes(arguments, most)) > 1:
            print(f"Starting {fitting} processes, one per GPU. --processes 1 starts one.", flush=True)
            count = fitting
    if count is not None and (count > 1 or is_launched(os.environ)):  # one process needs no launcher above it
        _launch(command, words, count)
    command.load_run()(*arguments)


def _announce(command: Command) -> None:
    """Say at once which command starts: the libraries behind a command take seconds to load. Once, whatever starts processes."""
    is_ours = is_launched(os.environ) and LAUNCHER_ENVIRONMENT.items() <= os.environ.items()
    if command.word_choices or is_ours or not is_first(os.environ):  # those that list their words load nothing
        return
    with contextlib.suppress(OSError):  # nobody reads it; stdout may be data
        print(f"unet-dist {command.name}: starting; loading takes some seconds", file=sys.stderr, flush=True)


def _settle(
    command: Command, arguments: tuple[Any, ...], words: list[str], most: int
) -> tuple[tuple[Any, ...], list[str]]:
    """What the command runs with, and the same in words for a launcher's processes, once it has chosen what nobody gave."""
    chosen = command.load_settle()(*arguments, processes=most)
    if chosen is None:
        return arguments, words
    folder = Path(chosen.run.output_path)
    file = next(file for name in ("config.yaml", "chosen.yaml") if (file := folder / name).is_file())
    return (chosen, *arguments[1:]), [str(file), *without_key(words, "time")]


def _fitting_processes(arguments: tuple[Any, ...], most: int) -> int:
    """As many processes as can share the batch, where there is one."""
    from unet_dist.config.sections import Config

    first, *options = arguments
    if any(
        getattr(holder, "expected_processes", None) is not None for holder in [getattr(first, "run", None), *options]
    ):
        return 1
    if not isinstance(first, Config):
        return most
    schedule = first.schedule
    if first.run.debug:
        return 1
    if schedule.split_sample:
        return most
    parts = (schedule.micro_batch_size or 1) * (schedule.gradient_accumulation_steps or 1)
    return share_evenly(max(schedule.batch_size // parts, 1), most)


def _launch(command: Command, words: list[str], count: int) -> NoReturn:
    """Become the launcher of these processes: signals then reach it as if it had been called."""
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="unet-dist-launch-"))  # which nobody else may enter
    call = launch_command([command.name, *without_key(words, "processes")], count, os.environ, folder=folder)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // count)))
    os.environ.update(LAUNCHER_ENVIRONMENT)
    sys.stdout.flush()
    os.execv(call[0], call)


def _explain(error: Exception) -> str | None:
    """What the machine lacks, or which environment variable a library refuses; None where a failure is a fault of this program."""
    return refusal_of_disk(error) or explain_lack(error) or explain_environment(error)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point: runs a command and leaves with its exit code; a mistake of the user is printed as a sentence."""
    words = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):  # a name that their encoding lacks ends no run
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if argv is None:  # else the environment belongs to the caller
        with contextlib.suppress(OSError):  # a folder that is gone, or may not be read
            os.environ.update(past_a_clone(Path.cwd()))
    try:
        require_address_space()
        run(words, is_program=argv is None)
    except KeyboardInterrupt:  # before a command listens for it, or in one that has nothing to save
        print("unet-dist: interrupted", file=sys.stderr, flush=True)
        sys.exit(130)
    except Exception as error:
        sentence = str(error) if isinstance(error, UnetDistError) else _explain(error)
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        if sentence is None:
            raise
        # Words and files are the same on every process: the first one says it, and the others leave it the time to, as a
        # launcher ends all processes when the first of them leaves.
        if not is_first(os.environ):
            time.sleep(GRACE_S)
        print(f"unet-dist: error: {hanging(sentence)}", file=sys.stderr, flush=True)
        sys.exit(2)
    sys.exit(0)
