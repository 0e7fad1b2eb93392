"""A run's folder as train and evaluate leave it, made in a moment: records, an evaluation, pictures, no model.

Written through the code that writes a real one wherever there is such.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from unet_dist.config.sections import Config
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.machine.description import describe_machine
from unet_dist.metrics.confusion import CALIBRATION_BINS, Calibration, Scores
from unet_dist.report.figures import Sample
from unet_dist.report.pictures import PICTURES_FOLDER, picture_name, write_sample
from unet_dist.runs.environment import record_evaluation, record_start
from unet_dist.runs.metrics_log import MetricsLog
from unet_dist.scenes.classes import SIDEWALK_CLASSES
from unet_dist.scenes.synthetic import SyntheticScenes


def fabricate(
    folder: Path,
    *,
    steps: int = 300,
    done: int | None = None,
    is_evaluated: bool = True,
    class_names: list[str] | None = None,
    images: int = 6,
    pictures: int = 2,
    picture_size: tuple[int, int] = (60, 96),
    quality: float = 0.6,
    **config: Any,
) -> Path:
    """Make a run's folder.

    Args:
        done: steps that are recorded; by default all.
        is_evaluated: whether it was, on its test split.
        images: of the test split.
        pictures: kept of the spread, and as many of the worst.
        quality: share of the pixels that are right.
    """
    names = SIDEWALK_CLASSES if class_names is None else class_names
    done = steps if done is None else done
    folder.mkdir(parents=True)
    keys = Config().replace(total_steps=steps, output_path=str(folder), num_classes=len(names), **config).flat()
    (folder / "config.yaml").write_text(yaml.safe_dump(keys, sort_keys=False), encoding="utf-8")
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, len(names) + 1) ** 1.5
    shares /= shares.sum()
    _write_metrics(folder, keys, done, names, rng)
    splits = [
        {
            "name": name,
            "num_images": count,
            "sizes": {"1080x1920": count},
            "class_counts": [int(share * 1e8) for share in shares],
            "num_ignored": 0,
        }
        for name, count in (("train", 7 * images), ("validation", images), ("test", images))
    ]
    data = {"name": "fabricated", "class_names": names, "ignore_index": keys["ignore_index"], "splits": splits}
    (folder / "data.json").write_text(json.dumps(data), encoding="utf-8")
    machine = describe_machine(torch.device("cpu"), 1)
    record_start(folder, 0, machine, "2026-01-02 03:04:05")
    if done > 0:
        _model_folder(folder / "best")
    if done == steps:
        _model_folder(folder / "last")
    if is_evaluated:
        record_evaluation(folder, "test", machine, 12.0)
        kept = _write_pictures(folder, pictures, picture_size, quality, images, len(names), rng)
        _write_evaluation(folder, names, shares, keys["ignore_index"], images, kept, quality, rng)
    return folder


def _model_folder(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")


def _write_metrics(folder: Path, keys: dict[str, Any], done: int, names: list[str], rng: np.random.Generator) -> None:
    log = MetricsLog(folder / "metrics.jsonl")
    for step in range(keys["log_steps"], done + 1, keys["log_steps"]):
        share = step / keys["total_steps"]
        record = {
            "step": step,
            "split": "train",
            "loss": 0.4 + 3 * math.exp(-5 * share) + 0.1 * float(rng.random()),
            "learning_rate": keys["learning_rate"] * math.sin(math.pi * share),
            "grad_norm": 1.0,
            "images_per_s": 10.0,
            "data_wait": 0.02,
            "memory_bytes": 3 * 2.0**30,
        }
        log.append(record)
        if step % keys["eval_steps"] == 0:
            miou = 0.4 * (1 - math.exp(-4 * share))
            iou = {name: miou for i, name in enumerate(names) if i != keys["ignore_index"]}
            validation = {"miou": miou, "pixel_accuracy": 0.5 + miou, "iou": iou, "seconds": 5.0}
            log.append({"step": step, "split": "validation", **validation})


def _write_pictures(
    folder: Path,
    count: int,
    size: tuple[int, int],
    quality: float,
    images: int,
    num_classes: int,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    scenes = SyntheticScenes(images, *size, seed=0)
    kept = []
    for number in range(min(2 * count, images)):
        image, label = scenes.render(number)
        label = np.where(label == IGNORED, label, label % num_classes).astype(np.uint8)
        prediction = _wrong_in_patches(label, quality, num_classes, rng)
        name = picture_name("test", number)
        write_sample(folder / PICTURES_FOLDER, name, Sample(image, label, prediction), num_classes)
        reason = "spread" if number < count else "worst"
        kept.append({"name": name, "id": f"scene-{number}", "reason": reason, "miou": 0.1 + 0.01 * number})
    return kept


def _wrong_in_patches(label: np.ndarray, quality: float, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """A label with classes of other places in some of its squares, as a network's errors come in patches."""
    side = 12
    rows, cols = -(-label.shape[0] // side), -(-label.shape[1] // side)
    wrong = np.kron(rng.random((rows, cols)) > quality, np.ones((side, side), dtype=bool))
    other = np.roll(label, (side, 2 * side), axis=(0, 1))
    mixed = np.where(wrong[: label.shape[0], : label.shape[1]], other, label)
    return np.minimum(mixed, num_classes - 1).astype(np.uint8)


def _write_evaluation(
    folder: Path,
    names: list[str],
    shares: np.ndarray,
    ignore_index: int | None,
    images: int,
    kept: list[dict[str, Any]],
    quality: float,
    rng: np.random.Generator,
) -> None:
    num_classes = len(names)
    spread = rng.dirichlet(np.ones(num_classes), size=num_classes)
    mixed = quality * np.eye(num_classes) + (1 - quality) * spread
    confusion = torch.from_numpy((1e7 * shares[:, None] * mixed).astype(np.int64))
    if ignore_index is not None:
        confusion[ignore_index] = confusion[:, ignore_index] = 0
    middles = [(index + 0.5) / CALIBRATION_BINS for index in range(CALIBRATION_BINS)]
    pixels = [70_000 + round(300_000 * middle) for middle in middles]
    right = [round(count * middle / 1.1) for count, middle in zip(pixels, middles, strict=True)]
    record = {
        **Scores.of(confusion, ignore_index).record(names, ignore_index),
        "split": "test",
        "data": "fabricated",
        "images": images,
        "tile_size": 572,
        "class_names": names,
        "ignore_index": ignore_index,
        "calibration": Calibration(pixels, right, list(middles)).record(),
        "by_image": [
            {"id": f"scene-{i}", "miou": 0.1 + 0.3 * i / images, "pixel_accuracy": 0.6} for i in range(images)
        ],
        "pictures": kept,
    }
    record["step"] = max((int(line["step"]) for line in _validations(folder)), default=None)  # the last is the best
    (folder / "evaluation-test.json").write_text(json.dumps(record), encoding="utf-8")


def _validations(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["split"] == "validation"]
