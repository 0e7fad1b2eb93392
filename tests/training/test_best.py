"""Proves what a run counts as its best validation, and that older checkpoints and records count as they did."""

from __future__ import annotations

from typing import Any

import torch

from unet_dist.metrics.confusion import Scores
from unet_dist.runs.metrics_log import find_best
from unet_dist.training.boundary import Boundary
from unet_dist.training.parts import Progress


def test_a_false_pixel_of_an_absent_class_does_not_lose_the_better_model() -> None:
    better = Scores.of(torch.tensor([[90, 9, 1], [10, 90, 0], [0, 0, 0]]))
    worse = Scores.of(torch.tensor([[80, 20, 0], [20, 80, 0], [0, 0, 0]]))
    assert better.miou < worse.miou, "by the published mean it would"
    written: list[str] = []
    boundary = object.__new__(Boundary)
    boundary._progress = Progress(step=1)
    boundary._parts = type("Alone", (), {"processes": type("One", (), {"is_main": True})})
    boundary.write_model = written.append  # type: ignore[method-assign]
    assert boundary._keep_best(worse)
    boundary._progress.step = 2
    assert boundary._keep_best(better)
    assert (boundary._progress.best_step, boundary._progress.best_miou) == (2, better.miou)
    assert written == ["best", "best"]


def test_older_checkpoints_and_records_count_by_the_published_mean() -> None:
    assert Progress(best_miou=0.4, best_step=3).best_present == 0.4
    assert Progress().best_present == 0.0
    rows: list[dict[str, Any]] = [
        {"step": 1, "miou": 0.3},
        {"step": 2, "miou": 0.2, "miou_present": 0.5},
        {"step": 3, "miou": None},
    ]
    assert find_best(rows) == rows[1]
    assert find_best([rows[0], {"step": 2, "miou": 0.3}]) == rows[0], "the first of equals"
    assert find_best([]) is None
