"""Several runs as a table: a row per run, the published figure beside ours.

Owns the columns, their order and what each sorts by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from unet_dist.report.contents import RunContents
from unet_dist.report.patches import Patches, patches_of
from unet_dist.report.published import is_same_data, published_for
from unet_dist.report.summary import (
    images_per_second,
    number,
    peak_memory_bytes,
    training_seconds,
)
from unet_dist.wording import duration, size

FREE_OF_INTEREST = frozenset({"output_path", "cache_path", "trackers"})
"""Keys in which runs differ always, or without effect on the comparison."""


class Column(Enum):
    """The columns in their order, with their headings."""

    RUN = "run"
    MODEL = "model"
    INPUT = "input, px"
    OUTPUT = "output, px"
    ABUTTING = "patches, abutting"
    ALIGNED = "patches, aligned"
    STEPS = "steps"
    MIOU = "mean IoU"
    PUBLISHED = "published mean IoU"
    VALIDATION = "best validation mean IoU"
    ACCURACY = "pixel accuracy"
    CALIBRATION = "calibration error"
    TIME = "training time"
    PACE = "crops/s"
    MEMORY = "peak memory"
    PROCESSES = "processes"
    DEVICE = "device"

    @property
    def is_number(self) -> bool:
        """Whether larger and smaller mean something."""
        return self not in (Column.RUN, Column.MODEL, Column.DEVICE)


@dataclass(frozen=True)
class OwnMetric:
    """The column of a metric that a user brought, behind the others."""

    value: str
    name: str = ""
    is_number: bool = True


@dataclass(frozen=True)
class Cell:
    """The text to show, what it sorts by (None last), and a remark."""

    text: str
    key: float | str | None
    note: str = ""
    is_best: bool = False


def columns_of(runs: Sequence[RunContents], splits: Sequence[str | None]) -> list[Column | OwnMetric]:
    """The columns of the table; see compare."""
    found = dict.fromkeys(name for run, split in zip(runs, splits, strict=True) for name in _own_metrics(run, split))
    return [*Column, *map(OwnMetric, found)]


def compare(runs: Sequence[RunContents], splits: Sequence[str | None]) -> list[list[Cell]]:
    """The rows of the table, in the order of the runs, with a cell for each of columns_of.

    Args:
        splits: whose evaluation of each run is compared, None where there is none.
    """
    columns = columns_of(runs, splits)
    rows = [_row(run, split) for run, split in zip(runs, splits, strict=True)]
    for run, split, row in zip(runs, splits, rows, strict=True):
        scores = [_own_metrics(run, split).get(column.value) for column in columns[len(row) :]]
        row += [Cell(number(score, 4), score) for score in scores]
    for column, largest in ((Column.MIOU, True), (Column.VALIDATION, True), (Column.CALIBRATION, False)):
        at = columns.index(column)
        ours = [row for row, run in zip(rows, runs, strict=True) if run.is_run]  # others may have seen the split
        keys = [row[at].key for row in ours if isinstance(row[at].key, (int, float))]
        if len(keys) > 1:
            best = max(keys) if largest else min(keys)  # type: ignore[type-var]
            for row in ours:
                cell = row[at]
                row[at] = Cell(cell.text, cell.key, cell.note, is_best=cell.key == best)
    return rows


def _own_metrics(run: RunContents, split: str | None) -> Mapping[str, Any]:
    return {} if split is None else run.evaluations[split].get("metrics", {})


def _row(run: RunContents, split: str | None) -> list[Cell]:
    evaluation = {} if split is None else run.evaluations[split]
    starts = run.environment.get("starts") or [{}]
    published = published_for(run.config) if is_same_data(run.config) else None
    error = (evaluation.get("calibration") or {}).get("error")
    seconds, pace, memory = training_seconds(run), images_per_second(run), peak_memory_bytes(run)
    side, patches = run.config.get("input_size"), patches_of(run)
    cells = {
        Column.RUN: Cell(run.name, run.name),
        Column.MODEL: Cell(_model(run), _model(run)),
        Column.INPUT: Cell("–" if side is None else str(side), float(side) if isinstance(side, int) else None),
        Column.OUTPUT: _output_cell(patches),
        Column.ABUTTING: _grid_cell(None if patches is None else patches.abutting),
        Column.ALIGNED: _grid_cell(None if patches is None else patches.aligned),
        Column.STEPS: _steps_cell(run),
        Column.MIOU: Cell(number(evaluation.get("miou"), 4), evaluation.get("miou"), _evaluated_on(evaluation, split)),
        Column.PUBLISHED: Cell(
            "–" if published is None else f"{published.miou:.4f}",
            None if published is None else published.miou,
            "" if published is None else published.label,
        ),
        Column.VALIDATION: Cell(
            number(run.best["miou"] if run.best else None, 4),
            run.best["miou"] if run.best else None,
            f"at step {run.best['step']:,}" if run.best else "",
        ),
        Column.ACCURACY: Cell(number(evaluation.get("pixel_accuracy"), 4), evaluation.get("pixel_accuracy")),
        Column.CALIBRATION: Cell(number(error, 4), error),
        Column.TIME: Cell(duration(seconds) if run.train else "–", seconds if run.train else None),
        Column.PACE: Cell(number(pace, 2), pace),
        Column.MEMORY: Cell("–" if memory is None else size(memory), memory),
        Column.PROCESSES: Cell(str(starts[-1].get("processes", "–")), starts[-1].get("processes")),
        Column.DEVICE: Cell(str(starts[-1].get("device", "–")), starts[-1].get("device")),
    }
    return [cells[column] for column in Column]


def _steps_cell(run: RunContents) -> Cell:
    if not run.is_run:
        return Cell("–", None)
    return Cell(f"{run.step:,}", run.step, "" if run.step == run.total_steps else f"of {run.total_steps:,}")


def _evaluated_on(evaluation: Mapping[str, Any], split: str | None) -> str:
    """The split, and that the network may have seen its images where nobody knows what it was trained on."""
    if split is None:
        return "not evaluated"
    return f"{split} split" + ("; training split unknown" if evaluation.get("training_split") == "unknown" else "")


def _output_cell(patches: Patches | None) -> Cell:
    if patches is None:
        return Cell("–", None)
    return Cell("the image", math.inf) if patches.output is None else Cell(str(patches.output), patches.output)


def _grid_cell(grid: tuple[int, int] | None) -> Cell:
    """Rows x columns, sorted by their number."""
    return Cell("–", None) if grid is None else Cell(f"{grid[0]}x{grid[1]}", grid[0] * grid[1])


def _model(run: RunContents) -> str:
    config = run.config
    name = str(config.get("model", "unet"))
    if name != "unet":
        return name
    norm, stem_stride = config.get("norm", "none"), config.get("stem_stride", 1)
    told = [f"U-Net {config.get('base_channels')} wide, depth {config.get('depth')}"]
    told += [f"stem stride {stem_stride}"] * (stem_stride != 1) + [f"{norm} norm"] * (norm != "none")
    return ", ".join(told)


def differing_keys(runs: Sequence[RunContents]) -> list[tuple[str, list[Any]]]:
    """The keys whose values are not the same in all runs, with the values."""
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    values = {key: [run.config.get(key) for run in runs] for key in keys if key not in FREE_OF_INTEREST}
    return [(key, found) for key, found in values.items() if any(value != found[0] for value in found)]
