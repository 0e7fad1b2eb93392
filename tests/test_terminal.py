"""Proves that metrics.jsonl has every step once after a resumption, is JSON for everybody, and that one process speaks."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from unet_dist.metrics.confusion import Scores
from unet_dist.metrics.table import scores_table
from unet_dist.runs.metrics_log import MetricsLog, read_metrics
from unet_dist.terminal import Teller
from unet_dist.wording import duration


def train_record(step: int) -> dict[str, object]:
    return {"step": step, "split": "train", "loss": 1 / step}


def test_lines_come_back_as_they_were(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    records = [train_record(step) for step in (1, 2)] + [{"step": 2, "split": "validation", "iou": {"road": None}}]
    for record in records:
        log.append(record)
    assert read_metrics(log.path) == records
    assert read_metrics(tmp_path / "nowhere.jsonl") == []


def test_number_that_is_none_is_null_in_strict_json(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append({"step": 1, "split": "train", "loss": float("nan"), "grad_norm": float("inf"), "learning_rate": 0.1})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = json.loads(log.path.read_text(), parse_constant=refuse)
    assert line == {"step": 1, "split": "train", "loss": None, "grad_norm": None, "learning_rate": 0.1}


@given(st.integers(0, 12), st.integers(0, 400))
def test_resumed_log_has_every_step_once(step: int, length: int) -> None:
    """Killed while it wrote any byte of a line, resumed from a checkpoint at or before it: no step twice, none missing."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = MetricsLog(Path(folder) / "metrics.jsonl")
        for number in range(1, 11):
            log.append(train_record(number))
        data = log.path.read_bytes()[:length]
        log.path.write_bytes(data)
        whole_lines = data.count(b"\n") + (not data.endswith(b"\n") and data.endswith(b"}"))
        resumed_at = min(step, whole_lines)  # a step is in the log before its checkpoint is written
        log.rewind(resumed_at)
        for number in range(resumed_at + 1, 11):
            log.append(train_record(number))
        assert read_metrics(log.path) == [train_record(number) for number in range(1, 11)]


# -------------------------------------------------------------------------------------------------- what people see


def told(*, speaks: bool = True) -> tuple[Teller, io.StringIO]:
    text = io.StringIO()
    return Teller(speaks=speaks, console=Console(file=text, soft_wrap=True, highlight=False)), text


def test_lines_in_a_log_are_dated_and_taken_as_they_are() -> None:
    teller, text = told()
    teller.say("[bold]a path like [/tmp]")
    with teller.progress("step", 10, done=4) as bar:
        bar.advance()
        bar.tell("loss 1.0")
    first, second = text.getvalue().splitlines()
    date = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "
    assert re.fullmatch(date + re.escape("[bold]a path like [/tmp]"), first)
    assert re.fullmatch(date + re.escape("step 5/10  loss 1.0"), second)


def test_other_processes_are_silent() -> None:
    teller, text = told(speaks=False)
    teller.say("a")
    teller.table(scores_table("t", Scores.of(torch.eye(2, dtype=torch.int64)), ["a", "b"], None))
    with teller.progress("step", 10) as bar:
        bar.tell("b")
    assert text.getvalue() == ""


def test_table_leaves_out_the_ignored_class() -> None:
    teller, text = told()
    confusion = torch.tensor([[3, 1, 0], [1, 5, 0], [0, 0, 0]])
    names = ["road", "void", "sky"]
    teller.table(scores_table("validation", Scores.of(confusion, ignore_index=1), names, 1))
    rows = [[word for word in line.split() if word.strip("│")] for line in text.getvalue().splitlines()]
    assert ["road", "0.6000", "40.00%"] in rows
    assert "void" not in text.getvalue()
    assert "sky" in text.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3600, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
