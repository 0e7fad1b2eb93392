"""A folder to submit jobs from, laid out like a checkout with its environment, and what a job leaves in it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "launch/slurm"

STAND_IN = f'"{Path(__file__).parent / "stand_in.py"}"'
ACCELERATE = "-m accelerate.commands.accelerate_cli"


@dataclass(frozen=True)
class Job:
    """A submitted job: its id, and the folder that it was submitted from."""

    id: str
    root: Path

    @property
    def calls(self) -> list[dict[str, Any]]:
        """How the stand-in was called, in order."""
        return [json.loads(line) for line in (self.root / "calls.jsonl").read_text(encoding="utf-8").splitlines()]

    @property
    def log(self) -> str:
        """What the job printed, over all its lives."""
        return "\n".join(path.read_text(encoding="utf-8") for path in sorted(self.root.glob("slurm-*.log")))


def make_root(folder: Path, accelerate: str) -> Path:
    """Lay out a checkout whose environment is the one that runs the tests.

    Args:
        folder: an empty folder.
        accelerate: STAND_IN or ACCELERATE, the program that Python runs as `accelerate`.
    """
    environment = folder / ".venv/bin"
    environment.mkdir(parents=True)
    for name in ("launch", "configs"):
        (folder / name).symlink_to(ROOT / name)
    run = f'PYTHONPATH="{ROOT}" exec "{sys.executable}"'
    # A run of one process has no launcher before it: the stand-in stands for the program itself there.
    alone = f'[ "$1 $2" != "-m unet_dist" ] || {run} {accelerate} "$@"\n' if accelerate == STAND_IN else ""
    for name, text in (("accelerate", f'{run} {accelerate} "$@"'), ("python", f'{alone}{run} "$@"')):
        program = environment / name
        program.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        program.chmod(0o755)
    return folder
