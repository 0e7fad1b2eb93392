"""environment.json in a run's folder: what the run was computed on, by start and by evaluation.

Whatever else the folder holds is the same on every machine. Names no host and no user: the record travels with the run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unet_dist.errors import DataError
from unet_dist.runs.records import EnvironmentFile
from unet_dist.storage.files import write_whole
from unet_dist.storage.typed import read_json

ENVIRONMENT_FILE = "environment.json"


def read_environment(folder: Path) -> dict[str, Any]:
    """The record of a run: starts, oldest first, and evaluations by split; empty where the file is missing or damaged."""
    try:
        record = read_json(folder / ENVIRONMENT_FILE, EnvironmentFile)
    except DataError:
        record = {}
    return {"starts": record.get("starts", []), "evaluations": record.get("evaluations", {})}


def record_start(folder: Path, step: int, described: dict[str, Any], started: str) -> None:
    """Add a start to a run's record; drop starts that resumed from a later step.

    Args:
        step: where the run resumes, 0 at first.
        described: as describe_machine does.
        started: date and time.
    """
    record = read_environment(folder)
    kept = [start for start in record["starts"] if start.get("step", 0) < step]
    _write(folder, {**record, "starts": [*kept, {"step": step, "started": started, **described}]})


def record_evaluation(folder: Path, split: str, described: dict[str, Any], seconds: float) -> None:
    """Record where a split was evaluated and how long it took, in place of an earlier record."""
    record = read_environment(folder)
    _write(folder, {**record, "evaluations": {**record["evaluations"], split: {"seconds": seconds, **described}}})


def _write(folder: Path, record: dict[str, Any]) -> None:
    write_whole(folder / ENVIRONMENT_FILE, json.dumps(record, indent=1).encode())
