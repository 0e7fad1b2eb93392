"""Proves that crops centred on classes teach a class of 0.01 % of the pixels, which evenly laid crops do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unet_dist.cli import main
from unet_dist.runs.metrics_log import read_metrics

pytestmark = pytest.mark.usefixtures("own_process")


def call(*words: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([str(word) for word in words])
    assert leaving.value.code == code


def draw_data(folder: Path) -> None:
    """Noise with one bright square of 5x5 px in an image of 500x500: 0.01 % of the pixels."""
    for split, count in (("train", 4), ("validation", 2)):
        for number in range(count):
            random = np.random.default_rng([count, number])
            image = random.integers(0, 120, (500, 500, 3), dtype=np.uint8)
            mask = np.zeros((500, 500), dtype=np.uint8)
            row, col = random.integers(40, 455, 2)
            image[row : row + 5, col : col + 5] += 120
            mask[row : row + 5, col : col + 5] = 1
            for kind, picture in (("images", image), ("masks", mask)):
                path = folder / kind / split / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)


def test_a_rare_class_is_learnt(tmp_path: Path) -> None:
    draw_data(tmp_path / "data")
    scores = {}
    for share in (0.0, 0.7):
        run = tmp_path / f"run{share}"
        keys = {
            "data_path": tmp_path / "data", "cache_path": tmp_path / "cache", "depth": 1, "base_channels": 4, "norm": "weight",
            "input_size": 48, "batch_size": 4, "total_steps": 80, "eval_steps": 80, "learning_rate": 0.01, "class_balance": share,
            "trackers": "[]", "mixed_precision": "no", "output_path": run,
        }  # fmt: skip
        call("train", *(f"--{key}={value}" for key, value in keys.items()))
        record = next(one for one in read_metrics(run / "metrics.jsonl") if one["split"] == "validation")
        scores[share] = list(record["iou"].values())[1]
    assert scores[0.0] < 0.05
    assert scores[0.7] > 0.3


def test_whole_images_have_no_centre(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_data(tmp_path / "data")
    where = ["--data_path", tmp_path / "data", "--cache_path", tmp_path / "cache", "--output_path", tmp_path / "run"]
    call("train", *where, "--depth", 1, "--base_channels", 2, "--input_size", "full", "--class_balance", 0.5, code=2)
    assert "class_balance: got 0.5 together with input_size full" in " ".join(capsys.readouterr().err.split())
