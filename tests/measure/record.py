"""Run the commands behind the figures of the documentation, and keep what they print in docs/evidence/TOPIC.json.

    python -m tests.measure.record [NAME ...] [--list]

Every figure names its command and a pattern of its output, so none is typed by hand. A record has the machine, the date and the
commit. `python -m tests.measure.pages` writes the pages from the records.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from tests.measure.figures import FIGURES, Figure
from unet_dist.machine.description import describe_machine
from unet_dist.wording import duration

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
    started, processor_before = time.monotonic(), _processor_s()
    with tempfile.TemporaryDirectory() as folder:
        first, *words = shlex.split(command.replace("FOLDER", folder))
        done = subprocess.run([*_PROGRAMS[first], *words], cwd=ROOT, capture_output=True, text=True, check=False)
    seconds, processor_s = time.monotonic() - started, _processor_s() - processor_before
    if done.returncode:
        sys.exit(f"{command} ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    about = {"command": command, "seconds": round(seconds), "processor_s": round(processor_s), **provenance()}
    for name, figure in FIGURES.items():
        if figure.command == command:
            row = read(figure, done.stdout, processor_s)
            file = EVIDENCE / f"{figure.topic}.json"
            stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            stored[name] = {**vars(row), **about}
            file.write_text(json.dumps(stored, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
            print(f"{name}: {row.figure} ({row.against}), {seconds:.0f} s", flush=True)


def provenance() -> dict[str, Any]:
    """When, of which commit and on which machine something is measured."""
    words = ["git", "rev-parse", "--short=12", "HEAD"]
    commit = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    described = describe_machine(torch.device("cpu"), world_size=1)
    kept = ("device", "cores", "threads", "memory_bytes", "python", "torch")
    return {"date": date.today().isoformat(), "commit": commit, "machine": {key: described[key] for key in kept}}


def _processor_s() -> float:
    """Processor time of all programs that have ended, which other work on the machine hardly changes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read(figure: Figure, printed: str, processor_s: float) -> Measured:
    """Take a figure out of what its command printed in so much processor time.

    Raises:
        SystemExit: the pattern is not there.
    """
    found = re.search(figure.pattern, printed, re.MULTILINE | re.DOTALL)
    if found is None:
        sys.exit(f"{figure.command} printed nothing that matches {figure.pattern!r}:\n{printed}")
    values = {**found.groupdict(), "processor": duration(processor_s)}
    return Measured(figure.what, figure.figure.format(**values), figure.against.format(**values))


if __name__ == "__main__":
    main()
