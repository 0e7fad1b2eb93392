"""Run the commands behind the figures of the documentation, and keep what they print in docs/evidence/TOPIC.json.

    python -m tests.measure.record [NAME ...] [--list]

Every figure names its command and a pattern of its output, so none is typed by hand. A record has the machine, the date and the
commit. `python -m tests.measure.pages` writes the pages from the records.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from tests.measure.figures import FIGURES, Figure
from unet_dist.machine.description import describe_machine

ROOT = Path(__file__).resolve().parents[2]
EVIDENCE = ROOT / "docs/evidence"
_PROGRAMS = {"python": [sys.executable], "unet-dist": [sys.executable, "-m", "unet_dist"]}


@dataclass(frozen=True)
class Measured:
    """A figure as the documentation shows it.

    Attributes:
        what: the quantity.
        figure: its value, with the unit.
        against: the value to compare it with, and of what.
    """

    what: str
    figure: str
    against: str


def main() -> None:
    """Measure the named figures, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*FIGURES, []])
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        for name, figure in FIGURES.items():
            print(f"{figure.topic:10} {name:22} {figure.command}")
        return
    commands = dict.fromkeys(FIGURES[name].command for name in options.names or FIGURES)
    for command in commands:
        record(command)


def record(command: str) -> None:
    """Run a command and put every figure that it prints into the file of its topic.

    Raises:
        SystemExit: the command failed, or printed something else than a pattern expects.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        first, *words = shlex.split(command.replace("FOLDER", folder))
        done = subprocess.run([*_PROGRAMS[first], *words], cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(f"{command} ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    described = describe_machine(torch.device("cpu"), world_size=1)
    about = {
        "command": command,
        "seconds": round(seconds),
        "date": date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "machine": {key: described[key] for key in ("device", "cores", "threads", "memory_bytes", "python", "torch")},
    }
    for name, figure in FIGURES.items():
        if figure.command == command:
            row = read(figure, done.stdout)
            file = EVIDENCE / f"{figure.topic}.json"
            stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            stored[name] = {**vars(row), **about}
            file.write_text(json.dumps(stored, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
            print(f"{name}: {row.figure} ({row.against}), {seconds:.0f} s", flush=True)


def read(figure: Figure, printed: str) -> Measured:
    """Take a figure out of what its command printed.

    Raises:
        SystemExit: the pattern is not there.
    """
    found = re.search(figure.pattern, printed, re.MULTILINE | re.DOTALL)
    if found is None:
        sys.exit(f"{figure.command} printed nothing that matches {figure.pattern!r}:\n{printed}")
    return Measured(figure.what, figure.figure.format(**found.groupdict()), figure.against.format(**found.groupdict()))


if __name__ == "__main__":
    main()
