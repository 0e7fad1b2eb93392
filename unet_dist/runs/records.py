"""What the JSON files of a run's folder hold, as schemas: records of steps, evaluations, the data in numbers.

Owns the types that a reader may count on, and what must agree within a file. Files may hold more; every key may be missing, as
older releases wrote fewer, unless it is in a class whose keys are required.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from unet_dist.errors import CheckpointError
from unet_dist.storage.typed import read_json


class _Step(TypedDict):
    step: int


class Metrics(_Step, total=False):
    """A line of metrics.jsonl: of training every log_steps, of a validation every eval_steps."""

    split: str
    loss: float | None
    learning_rate: float | None
    grad_norm: float | None
    images_per_s: float | None
    data_wait: float | None
    memory_bytes: float | None
    seconds: float | None
    miou: float | None
    miou_present: float | None
    pixel_accuracy: float | None
    iou: dict[str, float | None]
    metrics: dict[str, object]


class Counts(TypedDict):
    """How often an overlapping class was found and was there."""

    true_negatives: int
    false_positives: int
    false_negatives: int
    true_positives: int


class Calibration(TypedDict):
    """How often a prediction is right when the network is so and so sure: a value each bin."""

    error: float
    pixels: list[int]
    right: list[int]
    confidence: list[float | None]


class _NamedImage(TypedDict):
    id: str


class ImageScore(_NamedImage, total=False):
    """The scores of an image; null where it has no valid pixel."""

    miou: float | None
    pixel_accuracy: float | None


class Picture(TypedDict):
    """A picture that an evaluation kept."""

    name: str
    id: str
    reason: str
    miou: float | None


class EvaluationFile(TypedDict, total=False):
    """evaluation-SPLIT.json."""

    model: str
    step: int | None
    data: str
    split: str
    images: int
    inference: str
    training_split: str
    class_names: list[str]
    ignore_index: int | None
    miou: float
    miou_present: float
    pixel_accuracy: float
    iou: dict[str, float | None]
    dice: dict[str, float | None]
    precision: dict[str, float | None]
    recall: dict[str, float | None]
    confusion: list[list[int]]
    counts: dict[str, Counts]
    metrics: dict[str, float | None]
    instances: dict[str, int | float | None]
    calibration: Calibration
    by_image: list[ImageScore]
    pictures: list[Picture]


class SplitSummary(TypedDict):
    """A split of the data in numbers; sizes are "HEIGHTxWIDTH" with the number of images."""

    name: str
    num_images: int
    sizes: dict[str, int]
    class_counts: list[int]
    num_ignored: int


class DataFile(TypedDict, total=False):
    """data.json."""

    name: str
    channels: int
    class_names: list[str]
    ignore_index: int | None
    splits: list[SplitSummary]


class _Start(TypedDict, total=False):
    step: int
    started: str
    seconds: float
    device_type: str
    device_memory_bytes: int | None
    memory_bytes: int | None


class EnvironmentFile(TypedDict, total=False):
    """environment.json: the machine of each start and evaluation."""

    starts: list[_Start]
    evaluations: dict[str, _Start]


_AGAIN = "Remove it, and run evaluate again."


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read evaluation-SPLIT.json; empty where there is none.

    Raises:
        CheckpointError: it cannot be read, lacks a score, or its parts are not of one number of classes.
    """
    if not path.exists():
        return {}
    record = read_json(path, EvaluationFile, error=CheckpointError, remedy=_AGAIN)
    lacks = [key for key in ("miou", "pixel_accuracy", "iou") if key not in record]
    if lacks and ("confusion" in record or "counts" in record):
        raise CheckpointError(f"{path}: got no {lacks[0]}, expected it beside the counts. {_AGAIN}")
    confusion, calibration = record.get("confusion", []), record.get("calibration")
    names = record.get("class_names", confusion)
    sides = {len(confusion), *map(len, confusion), *([len(names)] if confusion else [])}
    if len(sides) > 1:
        raise CheckpointError(
            f"{path}: confusion: got sides of {sorted(sides)}, expected {len(names)} classes each. {_AGAIN}"
        )
    if calibration and len({0, *(len(calibration[key]) for key in ("pixels", "right", "confidence"))}) != 2:
        raise CheckpointError(f"{path}: calibration: got lists that are empty or of different lengths. {_AGAIN}")
    planes = cast(dict[str, dict[str, int]], record.get("counts", {}))
    counted = [*confusion, *(list(one.values()) for one in planes.values())]
    counted += [calibration["pixels"], calibration["right"]] if calibration else []
    _require_counts(counted, path)
    return dict(record)


def _require_counts(rows: Sequence[Sequence[Any]], path: Path) -> None:
    """Refuse numbers of pixels below 0, or so many that their sum is no integer of 64 bits."""
    if min(map(min, filter(None, rows)), default=0) < 0 or sum(map(sum, rows)) >= 2**63:
        raise CheckpointError(f"{path}: got numbers of pixels below 0 or beyond 64 bits. {_AGAIN}")


def read_data_file(path: Path) -> dict[str, Any]:
    """Read data.json; empty where an older run has none.

    Raises:
        CheckpointError: it cannot be read.
    """
    if not path.exists():
        return {}
    remedy = "Remove it: the report then leaves the data out."
    return dict(read_json(path, DataFile, error=CheckpointError, remedy=remedy))
