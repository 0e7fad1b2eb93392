"""Proves that a metric of the confusion matrix is found by name or import path, and is in the record and the table."""

from __future__ import annotations

import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from unet_dist.errors import ConfigError
from unet_dist.metrics.confusion import Scores
from unet_dist.metrics.registry import compute_metrics, make_metrics
from unet_dist.metrics.table import scores_table

CONFUSION = torch.tensor([[6, 2, 0], [1, 3, 0], [0, 0, 0]])


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "def share(confusion, of=0):\n    return confusion[of].sum().item() / confusion.sum().item()\n"
    (tmp_path / "their_metrics.py").write_text(text + "def words(confusion):\n    return 'good'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_metrics", raising=False)


def computed(
    words: str | None, confusion: Tensor = CONFUSION, ignore_index: int | None = None
) -> dict[str, float | None]:
    return compute_metrics(make_metrics(words, len(confusion), ignore_index), confusion)


def test_dice_by_hand() -> None:
    assert computed("mean_dice") == {"mean_dice": (12 / 15 + 6 / 9) / 2}
    assert computed("mean_dice", ignore_index=1) == {"mean_dice": 12 / 15}
    assert computed("mean_dice", torch.zeros(2, 2, dtype=torch.int64)) == {"mean_dice": None}
    assert computed(None) == {}


def test_one_of_somebody_else_is_in_the_record_and_the_table() -> None:
    others = computed("mean_dice, their_metrics:share( of = 1 )")
    assert others["their_metrics:share(of=1)"] == 4 / 12
    scores = replace(Scores.of(CONFUSION), others=others)
    assert scores.record(["a", "b", "c"])["metrics"] == others
    assert "metrics" not in Scores.of(CONFUSION).record(["a", "b", "c"])
    page = StringIO()
    Console(file=page, width=100).print(scores_table("title", scores, ["a", "b", "c"], None))
    assert any("their_metrics:share(of=1)" in line and "0.3333" in line for line in page.getvalue().splitlines())


def test_an_object_is_called_by_its_name_and_cannot_change_the_counts() -> None:
    def greedy(confusion: Tensor, ignore_index: int | None = None) -> float:
        confusion.zero_()
        return -1.0 if ignore_index is None else float(ignore_index)

    kept = CONFUSION.clone()
    assert compute_metrics(make_metrics([greedy], 3, 2), kept) == {"greedy": 2.0}
    assert torch.equal(kept, CONFUSION)
    with pytest.raises(ConfigError, match="metrics: got greedy twice"):
        make_metrics([greedy, greedy], 3, None)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("mean_dise", r"metrics: got 'mean_dise', expected one that exists.*Did you mean \"mean_dice\""),
        ("their_metrics:words", "metrics: their_metrics:words gave a str, expected a number"),
        ("their_metrics:share(on=1)", "does not fit: .*'on'"),
        (
            "their_metrics:share(of=9)",
            r"metrics: their_metrics:share\(of=9\) failed: IndexError: .*their_metrics.py, line 2",
        ),
    ],
)
def test_what_is_no_metric_is_answered_before_anything_is_computed(words: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make_metrics(words, 3, None)
