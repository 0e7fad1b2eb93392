"""Numbers of a run that a reader asks for first, derived from what its folder holds.

Owns every figure of the page that is not in a file as it stands: times, paces, confusions, rankings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unet_dist.report.contents import RunContents
from unet_dist.wording import duration, size


def training_seconds(run: RunContents) -> float:
    """Wall time of the recorded steps without the validations, s: each record tells the pace since the one before."""
    seconds, before = 0.0, 0
    for record in run.train:
        pace = record.get("images_per_s")
        if pace:
            seconds += (record["step"] - before) * int(run.config["batch_size"]) / pace
        before = record["step"]
    return seconds


def validation_seconds(run: RunContents) -> float:
    """Wall time of the validations, s."""
    return float(sum(record.get("seconds") or 0.0 for record in run.validations))


def images_per_second(run: RunContents) -> float | None:
    """The median pace of training, crops/s: a first step that compiles, or a busy minute, moves it little."""
    return _median([record["images_per_s"] for record in run.train if record.get("images_per_s")])


def data_wait(run: RunContents) -> float | None:
    """The median share of time that the device waited for data, 0 to 1."""
    return _median([record["data_wait"] for record in run.train if record.get("data_wait") is not None])


def peak_memory_bytes(run: RunContents) -> float | None:
    """The largest memory that the main process recorded."""
    return max((record["memory_bytes"] for record in run.train if record.get("memory_bytes")), default=None)


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


@dataclass(frozen=True)
class ClassScore:
    """A class in numbers: IoU (None where it occurs neither in label nor in prediction) and its share of the pixels."""

    name: str
    iou: float | None
    train_share: float | None
    split_share: float | None
    taken_for: str | None = None
    """The class that its pixels are most often taken for, where it is another one."""
    taken_share: float = 0.0


def class_scores(run: RunContents, split: str | None) -> list[ClassScore]:
    """Every class but the ignored one, in the order of ids, from an evaluation; without one, from the last validation."""
    train = run.class_shares("train")
    if split is not None:
        return _evaluated_scores(run, split, train)
    if not run.validations or not run.validations[-1].get("iou"):
        return []
    shares = run.class_shares("validation")
    ious = run.validations[-1]["iou"]
    return [ClassScore(name, iou, train.get(name), shares.get(name)) for name, iou in ious.items()]


def _evaluated_scores(run: RunContents, split: str, train: Mapping[str, float]) -> list[ClassScore]:
    evaluation = run.evaluations[split]
    if "counts" in evaluation:
        return _overlapping_scores(evaluation, train)
    confusion = np.asarray(evaluation["confusion"], dtype=np.int64)  # (K, K), rows are labels
    total = max(1, int(confusion.sum()))
    scores = []
    for index, name in enumerate(run.class_names):
        if index == run.ignore_index or name not in evaluation["iou"]:
            continue
        row = confusion[index]
        others = np.where(np.arange(len(row)) == index, -1, row)
        other = int(others.argmax())
        taken = int(others[other]) / int(row.sum()) if row.sum() else 0.0
        scores.append(
            ClassScore(
                name,
                evaluation["iou"][name],
                train.get(name),
                int(row.sum()) / total,
                run.class_names[other] if taken > 0 else None,
                taken,
            )
        )
    return scores


def _overlapping_scores(evaluation: Mapping[str, Any], train: Mapping[str, float]) -> list[ClassScore]:
    """Of classes that overlap: none of them is taken for another."""
    scores = []
    for name, counts in evaluation["counts"].items():
        labelled = counts["true_positives"] + counts["false_negatives"]
        share = labelled / max(1, sum(counts.values()))
        scores.append(ClassScore(name, evaluation["iou"].get(name), train.get(name), share))
    return scores


def worst_classes(scores: Sequence[ClassScore], count: int = 8) -> list[ClassScore]:
    """The classes of the lowest IoU among those that occur in the labels, the lowest first; of equals the more frequent."""
    present = [score for score in scores if score.iou is not None and score.split_share != 0]
    return sorted(present, key=lambda score: (score.iou, -(score.split_share or 0.0)))[:count]


@dataclass(frozen=True)
class Headline:
    """A headline number."""

    title: str
    value: str
    note: str = ""


def headline(run: RunContents, split: str | None) -> list[Headline]:
    """The numbers at the head of the page."""
    tiles = []
    if split is not None:
        evaluation = run.evaluations[split]
        known = sum(iou is not None for iou in evaluation["iou"].values())
        tiles.append(Headline("mean IoU", number(evaluation["miou"], 4), f"{split} split, {known} classes that occur"))
        tiles.append(Headline("pixel accuracy", f"{evaluation['pixel_accuracy']:.1%}", f"{split} split"))
        for name, value in evaluation.get("metrics", {}).items():
            tiles.append(Headline(name, "–" if value is None else f"{value:.4f}", f"{split} split"))
    if run.best is not None:
        note = f"validation, at step {run.best['step']:,}"
        tiles.append(Headline("best mean IoU", number(run.best["miou"], 4), note))
    if split is not None and run.evaluations[split].get("calibration"):
        error = run.evaluations[split]["calibration"]["error"]
        tiles.append(Headline("calibration error", f"{error:.1%}", "expected (ECE)"))
    tiles.append(Headline("steps", f"{run.step:,}", f"of {run.total_steps:,}, batch {run.config['batch_size']}"))
    if run.train:
        note = f"training; validations {duration(validation_seconds(run))}"
        tiles.append(Headline("time", duration(training_seconds(run)), note))
    pace = images_per_second(run)
    if pace is not None:
        waits = data_wait(run)
        note = "median" + ("" if waits is None else f"; waiting for data {waits:.0%}")
        tiles.append(Headline("crops per second", number(pace, 2 if pace < 10 else 1), note))
    memory = peak_memory_bytes(run)
    if memory is not None:
        kind = "device" if device_type(run) == "cuda" else "resident, main process"
        tiles.append(Headline("peak memory", size(memory), kind))
    return tiles


def status(run: RunContents) -> str:
    """How far the run is."""
    if not run.is_run:
        return "evaluated, trained elsewhere"
    if run.is_finished and run.step < run.total_steps:
        return f"ended early at step {run.step:,} of {run.total_steps:,}"
    if run.is_finished:
        return f"finished, {run.step:,} steps"
    if run.step == 0:
        return "started, nothing recorded yet"
    return f"unfinished: step {run.step:,} of {run.total_steps:,}"


def missing(run: RunContents, split: str | None, wanted: str | None = None) -> list[tuple[str, str | None]]:
    """What the page lacks, in sentences, each with the command that adds it."""
    notes: list[tuple[str, str | None]] = []
    if not run.is_run:
        return notes if split is not None else [("The model was not evaluated on this split.", None)]
    command = f"unet-dist evaluate {run.folder} --split {wanted or _held_out_split(run)}"
    if split is None and not run.has_model:
        notes.append(("There is no model to evaluate yet: the first comes with the first validation.", None))
    elif split is None:
        notes.append(
            (
                f"The run was not evaluated{'' if wanted is None else ' on this split'}: confusion matrix, pictures, worst images "
                "and calibration come from an evaluation. This adds them:",
                command,
            )
        )
    else:
        evaluation = run.evaluations[split]
        command = f"unet-dist evaluate {run.folder} --split {split}"
        is_older = not evaluation.get("calibration") or not evaluation.get("by_image")
        if is_older and "counts" not in evaluation:  # classes that overlap have neither
            text = "The evaluation is of an older release: pictures, worst images and calibration are missing. This adds them:"
            notes.append((text, command))
        step = evaluation.get("step")
        if step is not None and run.best is not None and run.best["step"] > step:
            text = f"The evaluation is of step {step:,}; the best model is now that of step {run.best['step']:,}. This renews it:"
            notes.append((text, command))
    if not run.is_finished and run.step:
        notes.append(("The run is unfinished: the page shows the records so far.", None))
    return notes


def missing_together(
    runs: Sequence[RunContents], splits: Sequence[str | None], wanted: str | None
) -> list[tuple[str, list[str], list[str]]]:
    """What runs lack: a sentence once, the names of the runs it is true of, and their commands."""
    together: dict[str, tuple[list[str], list[str]]] = {}
    for run, shown in zip(runs, splits, strict=True):
        for text, command in missing(run, shown, wanted):
            names, commands = together.setdefault(text, ([], []))
            names.append(run.name)
            commands += [] if command is None else [command]
    return [(text, *found) for text, found in together.items()]


def _held_out_split(run: RunContents) -> str:
    """The split that a run is to be evaluated on: the last that its data has besides its training images."""
    names = [part["name"] for part in run.data.get("splits") or () if part["name"] != "train"]
    return "test" if "test" in names or not names else str(names[-1])


def device_type(run: RunContents) -> str | None:
    """cuda, cpu, ... of the last start, None where it is not recorded."""
    starts = run.environment.get("starts") or []
    return starts[-1].get("device_type") if starts else None


def number(value: float | None, digits: int) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def hardware_rows(run: RunContents) -> list[tuple[str, list[str]]]:
    """The machine of each start and evaluation: a heading and a value a column."""
    columns: list[tuple[str, Mapping[str, Any]]] = [
        (f"from step {start.get('step', 0):,}" if start.get("step") else "training", start)
        for start in run.environment.get("starts") or []
    ]
    columns += [(f"evaluation, {split}", place) for split, place in run.environment.get("evaluations", {}).items()]
    if not columns:
        return []
    rows = [("", [heading for heading, _ in columns])]
    for key, title in _HARDWARE.items():
        values = [_hardware_value(key, place.get(key)) for _, place in columns]
        if any(values):
            rows.append((title, values))
    return rows


_HARDWARE = {
    "device": "device",
    "processes": "processes",
    "device_memory_bytes": "device memory",
    "cores": "CPU cores",
    "threads": "threads per process",
    "memory_bytes": "memory",
    "torch": "torch",
    "cuda": "CUDA",
    "accelerate": "accelerate",
    "python": "Python",
    "unet_dist": "unet_dist",
    "started": "started",
    "seconds": "took",
}


def _hardware_value(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key.endswith("_bytes"):
        return size(value)
    return duration(value) if key == "seconds" else str(value)
