"""metrics.jsonl: the record of a run's steps, one object per line.

Owns how a line is written, read and dropped at a resume. Must not know how a number is made.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unet_dist.errors import DataError
from unet_dist.runs.records import Metrics
from unet_dist.storage.files import append_to, write_whole
from unet_dist.storage.refusals import writing_failed
from unet_dist.storage.typed import parse_json, read_bytes


class MetricsLog:
    """metrics.jsonl: one object per line, each with step and split.

    Lines are flushed as they come. A resumed run drops those after its checkpoint: they will be written again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rewind(self, step: int) -> None:
        """Keep the lines up to a step, and drop a last line that a kill cut short."""
        kept = [record for record in read_metrics(self.path) if record["step"] <= step]
        write_whole(self.path, "".join(_line(record) for record in kept).encode())

    def append(self, record: dict[str, Any]) -> None:
        """Write one object.

        Raises:
            DataError: the disk is full or read-only, or the run's folder is gone.
        """
        try:
            append_to(self.path, _line(record))
        except OSError as error:
            raise writing_failed(self.path, error) from error


def _line(record: dict[str, Any]) -> str:
    """JSON as everybody reads it: a number that is none is null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
    return json.dumps(clean) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The objects of a metrics.jsonl up to the first line that is none: a kill cut it short, or the file is damaged.

    Raises:
        DataError: the file is there and may not be read, or is none.
    """
    records: list[dict[str, Any]] = []
    if os.path.lexists(path):
        for line in read_bytes(path, remedy="Mend or remove it.").splitlines():
            try:
                records.append(dict(parse_json(line, Metrics, "a line")))
            except DataError:
                break
    return records


def find_best(validations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The validation that training keeps as the best, the first of equals: by the mean IoU over classes in the labels.

    Records of before this figure count by the mean over classes in label or prediction.
    """
    scored = [record for record in validations if record.get("miou") is not None]
    return max(scored, key=lambda record: (score_of(record), -record["step"])) if scored else None


def score_of(record: Mapping[str, Any]) -> float:
    """The mean IoU by which a validation is the best: over the classes in the labels, or over all where it tells no other."""
    present = record.get("miou_present")
    return float(record["miou"] if present is None else present)
