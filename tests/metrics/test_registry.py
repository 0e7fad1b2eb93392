"""Proves that a metric of the confusion matrix is found by name or import path, and is in the record and the table."""

from __future__ import annotations

import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from unet_dist.errors import ConfigError
from unet_dist.metrics.confusion import Scores
from unet_dist.metrics.registry import compute_metrics, require_metrics
from unet_dist.metrics.table import scores_table

CONFUSION = torch.tensor([[6, 2, 0], [1, 3, 0], [0, 0, 0]])


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "def share(confusion, of=0):\n    return confusion[of].sum().item() / confusion.sum().item()\n"
    (tmp_path / "their_metrics.py").write_text(text + "def words(confusion):\n    return 'good'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_metrics", raising=False)


def test_dice_by_hand() -> None:
    assert compute_metrics("mean_dice", CONFUSION, None) == {"mean_dice": (12 / 15 + 6 / 9) / 2}
    assert compute_metrics("mean_dice", CONFUSION, 1) == {"mean_dice": 12 / 15}
    assert compute_metrics("mean_dice", torch.zeros(2, 2, dtype=torch.int64), None) == {"mean_dice": None}
    assert compute_metrics(None, CONFUSION, None) == {}


def test_one_of_somebody_else_is_seen_everywhere() -> None:
    words = "mean_dice, their_metrics:share( of = 1 )"
    require_metrics(words)
    others = compute_metrics(words, CONFUSION, None)
    assert others["their_metrics:share(of=1)"] == 4 / 12
    scores = replace(Scores.of(CONFUSION), others=others)
    assert scores.record(["a", "b", "c"])["metrics"] == others
    assert "metrics" not in Scores.of(CONFUSION).record(["a", "b", "c"])
    page = StringIO()
    Console(file=page, width=100).print(scores_table("title", scores, ["a", "b", "c"], None))
    assert any("their_metrics:share(of=1)" in line and "0.3333" in line for line in page.getvalue().splitlines())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("mean_dise", r"metrics: got 'mean_dise', expected one that exists.*Did you mean \"mean_dice\""),
        ("their_metrics:words", "metrics: their_metrics:words gave a str, expected a number"),
        ("their_metrics:share(on=1)", "does not fit: .*'on'"),
    ],
)
def test_what_is_no_metric_is_answered_before_anything_is_computed(words: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        require_metrics(words)
