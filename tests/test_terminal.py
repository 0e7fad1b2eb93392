"""Proves that metrics.jsonl has every step once after a resumption, is JSON for everybody, and that one process speaks."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from unet_dist.metrics.confusion import Scores
from unet_dist.metrics.table import scores_table
from unet_dist.runs.metrics_log import MetricsLog, read_metrics
from unet_dist.terminal import Teller, fitting
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


def test_fast_steps_are_a_line_a_second_and_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    teller, text = told()
    now = iter([100.0, 100.3, 100.6, 101.1, 101.2, 101.3, 101.4, 102.5, 102.6])
    monkeypatch.setattr("unet_dist.terminal.time.monotonic", lambda: next(now))

    def lines() -> list[str]:
        return [line.partition("  ")[2] for line in text.getvalue().splitlines()]

    with teller.progress("step", 9) as bar:
        for step in range(1, 10):
            bar.advance()
            if step == 6:
                bar.tell("validation")
            else:
                bar.tell(f"loss {step}", is_routine=True)
        assert lines()[-1] == "step 8/9  loss 8"
    shown = ["1/9  loss 1", "4/9  loss 4", "5/9  loss 5", "6/9  validation", "8/9  loss 8", "9/9  loss 9"]
    assert lines() == [f"step {line}" for line in shown]


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
    assert ["road", "0.6000", "━━━━━━", "40.00%"] in rows
    assert "void" not in text.getvalue()


def rows_of(classes: int, absent: int, **options: Any) -> str:
    """The table of so many classes, of IoU 0.00, 0.01, ... in their order, and some that do not occur."""
    teller, text = told()
    confusion = torch.zeros(classes + absent, classes + absent, dtype=torch.int64)
    for index in range(classes):
        confusion[index, index], confusion[index, (index + 1) % classes] = index, 100 - index
    names = [f"class{index}" for index in range(classes)] + [f"absent{index}" for index in range(absent)]
    scores = Scores.of(confusion)
    teller.table(scores_table("t", scores, names, None, **options))
    return text.getvalue()


def test_classes_that_do_not_occur_are_one_line() -> None:
    text = rows_of(3, 4)
    assert "Neither labelled nor predicted: absent0, absent1, absent2, absent3." in " ".join(text.split())
    assert not [line for line in text.splitlines() if line.startswith("absent0 ")]


def test_short_table_has_the_worst_and_the_mean() -> None:
    text = rows_of(14, 0, is_short=True)
    assert [f"class{index} " in text for index in range(14)] == [True] * 10 + [False] * 4
    assert "mean IoU" in text
    assert "4 others are better" in text


def test_table_shows_the_change_since() -> None:
    confusion = torch.tensor([[3, 1], [1, 5]])
    teller, text = told()
    teller.table(scores_table("t", Scores.of(confusion), ["a", "b"], None, before=[0.5, None]))
    (row,) = [line for line in text.getvalue().splitlines() if line.startswith("a ")]
    assert "+0.1000" in row


def test_names_are_neither_markup_nor_orders_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    teller = Teller(speaks=True)
    confusion = torch.tensor([[3, 1], [1, 5]])
    teller.table(scores_table("t", Scores.of(confusion), ["[void]", "a [/] b :car:"], None))
    teller.say("read \x1b]0;owned\x07 \x1b[31mred.png")
    text = capsys.readouterr().out
    assert "[void]" in text
    assert "a [/] b :car:" in text
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\\x1b[31mred.png" in text


@pytest.mark.parametrize(("room", "shown"), [(100, "a 1  b 22  c"), (11, "a 1  b 22"), (4, "a 1"), (2, "")])
def test_last_parts_of_a_detail_give_way_first(room: int, shown: str) -> None:
    assert fitting("a 1  b 22  c", room) == shown


def test_bar_of_80_columns_keeps_step_and_time_left() -> None:
    text = io.StringIO()
    teller = Teller(speaks=True, console=Console(file=text, force_terminal=True, width=80, legacy_windows=False))
    detail = "loss 0.1234  lr 1.00e-03  12.3 images/s  data wait 10%  1.20 GiB"
    with teller.progress("step", 6000, done=1234) as bar:
        bar.advance(1, detail)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())
    last = [line for line in re.split(r"[\r\n]", plain) if "loss" in line][-1]
    assert "1235/6000" in last
    assert re.search(r"\d:\d\d:\d\d|-:--:--", last)
    assert "loss 0.1234" in last
    assert "…" not in last
    assert len(last.rstrip()) <= 80


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


def test_a_picture_shows_where_there_are_colours_only(tmp_path: Path) -> None:
    path = tmp_path / "halves.png"
    Image.fromarray(np.repeat(np.array([[[255, 0, 0]], [[0, 0, 255]]], dtype=np.uint8), 3, axis=1)).save(path)
    shown = {}
    for system in ("truecolor", None):
        out = io.StringIO()
        console = Console(file=out, force_terminal=system is not None, color_system=system, width=80)
        Teller(speaks=True, console=console).picture(path)
        shown[system] = out.getvalue()
    assert shown[None] == ""
    assert shown["truecolor"] == "\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[0m" * 3 + "\n"


def test_a_legend_names_each_colour_and_lets_no_escape_through() -> None:
    shown = {}
    for system in ("truecolor", None):
        out = io.StringIO()
        console = Console(file=out, force_terminal=system is not None, color_system=system, width=80)
        colours = np.array([[255, 0, 0], [0, 0, 255]], dtype=np.uint8)
        Teller(speaks=True, console=console).legend(["road", "[red]\x1b[2J"], colours)
        shown[system] = out.getvalue()
    assert shown[None] == ""
    assert "\x1b[38;2;255;0;0m■ \x1b[0mroad" in shown["truecolor"]
    assert "\x1b[2J" not in shown["truecolor"]
    assert "[red]" in shown["truecolor"]
