"""What a run's folder says, read for the page.

Owns which files are read and what each missing or half-written one means: a run that is still training, or was never evaluated,
is read like any other. Loads no model and no data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, cast

from unet_dist.errors import CheckpointError
from unet_dist.runs.environment import read_environment
from unet_dist.runs.metrics_log import find_best, read_metrics
from unet_dist.runs.records import read_data_file, read_evaluation
from unet_dist.storage.typed import read_yaml

SPLITS = ("test", "validation", "all", "train")
"""In the order in which their evaluation is shown."""


class _Steps(TypedDict):
    total_steps: int
    batch_size: int


class _Config(_Steps, total=False):
    """Of a run's keys those that are more than shown."""

    model: str
    data_path: object  # a folder whose name may be no UTF-8
    ignore_index: int | None
    input_size: int | str | None
    tile_size: int | str | None
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class RunContents:
    """A run's folder, read.

    Attributes:
        folder: of the run.
        name: of the folder.
        config: the resolved keys.
        data: data.json, the data set in numbers; empty where an older run has none.
        environment: environment.json: starts, and evaluations by split.
        train: records of training, one every log_steps, each with step, loss, learning_rate.
        validations: records of the validations, each with step, miou, iou by class name.
        evaluations: evaluation-SPLIT.json by split.
        has_model: whether best/ or last/ is there to be evaluated.
        is_run: whether it was trained here; else there is no more than evaluations, such as those of a published checkpoint.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    train: list[dict[str, Any]]
    validations: list[dict[str, Any]]
    evaluations: Mapping[str, dict[str, Any]]
    has_model: bool
    is_run: bool = True

    @cached_property
    def step(self) -> int:
        """The last step that is recorded."""
        return max((record["step"] for record in (*self.train, *self.validations)), default=0)

    @cached_property
    def total_steps(self) -> int:
        """Optimizer steps of the run."""
        return int(self.config["total_steps"])

    @cached_property
    def is_finished(self) -> bool:
        """Whether the run has ended: last/ is written at its end only."""
        return (self.folder / "last" / "config.json").is_file()

    @cached_property
    def best(self) -> dict[str, Any] | None:
        """The validation that training kept as the best."""
        best = find_best(self.validations)
        return None if best is None else dict(best)

    @cached_property
    def class_names(self) -> list[str]:
        """Of every class id, the ignored one included."""
        for source in (*self.evaluations.values(), self.data):
            if source.get("class_names"):
                return list(source["class_names"])
        return list(self.validations[-1].get("iou") or {}) if self.validations else []

    @cached_property
    def ignore_index(self) -> int | None:
        """The class id that the run ignores."""
        for source in (*self.evaluations.values(), self.data, self.config):
            if source.get("ignore_index") is not None:
                return int(source["ignore_index"])
        return None

    def shown_split(self, wanted: str | None = None) -> str | None:
        """The split whose evaluation is shown, None where there is none."""
        splits = SPLITS if wanted is None else (wanted,)
        return next((split for split in splits if split in self.evaluations), None)

    def class_shares(self, split: str) -> dict[str, float]:
        """The share of each class in the valid pixels of a split, by name; empty where it is not known."""
        for summary in self.data.get("splits", []):
            if summary["name"] == split:
                counts = summary["class_counts"]
                total = sum(counts)
                return {name: n / total for name, n in zip(self.class_names, counts, strict=False)} if total else {}
        return {}


def read_run(path: str | Path) -> RunContents:
    """Read a run's folder.

    Raises:
        CheckpointError: it is no run's folder, or its config cannot be read.
    """
    folder = Path(path)
    config_file = folder / "config.yaml"
    read = {split: read_evaluation(folder / f"evaluation-{split}.json") for split in SPLITS}
    evaluations = {split: found for split, found in read.items() if found.get("confusion") or found.get("counts")}
    is_run = config_file.is_file() or (folder / "metrics.jsonl").is_file()
    if evaluations and not is_run:
        return _evaluated_only(folder, evaluations)
    if not config_file.is_file():
        nested = sorted(str(found.parent) for found in folder.glob("*/config.yaml"))[:3]
        got = "no config.yaml there" if folder.is_dir() else "no such folder"
        hint = f" Did you mean {' or '.join(nested)}?" if nested else ""
        raise CheckpointError(
            f"{folder}: got {got}, expected the folder of a run, as train --output_path names it.{hint}"
        )
    remedy = "Copy it again, from where the run was trained."
    config = cast(dict[str, Any], read_yaml(config_file, _Config, error=CheckpointError, remedy=remedy))
    records = read_metrics(folder / "metrics.jsonl")
    return RunContents(
        folder=folder,
        name=folder.resolve().name,
        config=config,
        data=read_data_file(folder / "data.json"),
        environment=read_environment(folder),
        train=[record for record in records if record.get("split") == "train"],
        validations=[record for record in records if record.get("split") == "validation"],
        evaluations=evaluations,
        has_model=any((folder / name / "config.json").is_file() for name in ("best", "last")),
    )


def _evaluated_only(folder: Path, evaluations: Mapping[str, dict[str, Any]]) -> RunContents:
    """What evaluate --output_path left of a model that is no run's."""
    said = next(iter(evaluations.values()))
    return RunContents(
        folder=folder,
        name=folder.resolve().name,
        config={"model": str(said.get("model")), "data_path": str(said.get("data")), "total_steps": 0},
        data={},
        environment=read_environment(folder),
        train=[],
        validations=[],
        evaluations=evaluations,
        has_model=False,
        is_run=False,
    )
