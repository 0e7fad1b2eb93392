"""Proves that `train --data_path DIR` alone chooses network and course, and that commands use all GPUs; other words do not."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.data.pictures import write_folder
from unet_dist import cli
from unet_dist.config.choosing import leaves_the_choice
from unet_dist.config.sections import Config
from unet_dist.runs.metrics_log import read_metrics

CHOSEN = "base_channels: 2  # a reason\ndepth: 1\ninput_size: 44\nbatch_size: 2\ntotal_steps: 2\neval_steps: 2\n"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words of each `configure`, which is not started."""
    called: list[list[str]] = []

    def started(command: list[str], **_: Any) -> SimpleNamespace:
        called.append(command[3:])
        return SimpleNamespace(returncode=3 if "broken" in command else 0, stdout=CHOSEN)

    monkeypatch.setattr(subprocess, "run", started)
    return called


@pytest.mark.usefixtures("own_process")
def test_data_alone_choose_the_rest_once(
    tmp_path: Path, calls: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = write_folder(tmp_path / "data", height=48, width=64), tmp_path / "run"
    where = ["--cache_path", str(tmp_path / "cache"), "--output_path", str(run), "--trackers", "[]"]
    words = ["train", "--data_path", str(data), *where]
    cli.run([*words, "--time", "2min"])
    expected = ["configure", str(data), "--time", "2min", "--processes", "1", *where[:4]]
    assert calls == [expected]
    assert "base_channels: 2  # a reason" in capsys.readouterr().out
    assert (run / "chosen.yaml").read_text(encoding="utf-8") == CHOSEN
    settled = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert (settled["base_channels"], settled["total_steps"], settled["trackers"]) == (2, 2, [])
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl") if row["split"] == "validation"] == [2]
    cli.run(words)
    assert calls == [expected], "a run that is there keeps its settings"
    assert f"Taking the settings of the run in {run} (config.yaml); --time is for a new run." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keys", "chooses"),
    [
        ({}, True),
        ({"ignore_index": 0, "num_classes": 3, "seed": 1, "resume": "never", "bands": "3,2,1"}, True),
        ({"data_path": "synthetic"}, False),
        ({"learning_rate": 5e-4}, False),
        ({"class_balance": 0.0}, False),
        ({"init_from": "runs/a"}, False),
        ({"debug": True}, False),
        ({"resume": "runs/a/checkpoints/step-00000001"}, False),
    ],
)
def test_only_words_about_the_data_leave_the_choice(keys: dict[str, object], chooses: bool) -> None:
    assert leaves_the_choice(Config(**{"data_path": "DIR", "output_path": "x"} | keys)) == chooses


def test_a_time_with_nothing_to_choose_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--data_path", "DIR", "--time", "1h"]
    with pytest.raises(SystemExit):
        cli.main([*words, "--depth", "2"])
    assert "error: time: got 1h beside settings of the network" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(SystemExit):
        cli.main(words)
    assert "error: time: got 1h beside settings of the network" in capsys.readouterr().err


def test_a_choice_that_fails_ends_with_its_own_sentence(tmp_path: Path, calls: list[list[str]]) -> None:
    with pytest.raises(SystemExit) as leaving:
        cli.main(["train", "--data_path", "broken", "--output_path", str(tmp_path / "run")])
    assert leaving.value.code == 3
    assert not (tmp_path / "run").exists()


class Launched(BaseException):
    """In place of becoming a launcher."""


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four GPUs, and a launcher that only says how it was called."""

    def execv(_: str, call: list[str]) -> None:
        raise Launched(*call[call.index("--nproc_per_node") + 1 :])

    monkeypatch.setattr(cli, "num_gpus", lambda device: 0 if device == "cpu" else 4)
    monkeypatch.setattr(cli.os, "execv", execv)


def program(*words: str) -> list[str]:
    """How the launcher is called, [] where there is none."""
    try:
        cli.run(words, is_program=True)
    except Launched as call:
        return list(call.args)
    return []


@pytest.mark.usefixtures("launches")
def test_all_gpus_train_what_was_chosen(tmp_path: Path, calls: list[list[str]]) -> None:
    folder = tmp_path / "run"
    call = program("train", "--data_path", "DIR", "--output_path", str(folder), "--time", "2h")
    assert calls[0][2:6] == ["--time", "2h", "--processes", "4"]
    file = str(folder / "chosen.yaml")
    own = [file, "--data_path", "DIR", "--output_path", str(folder)]
    assert call == ["2", "-m", "unet_dist", "train", *own, "--expected_processes", "2"], (
        "a batch of 2 keeps 2 GPUs busy"
    )


@pytest.mark.usefixtures("launches")
@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["train"], "4"),
        (["train", "--batch_size", "6"], "3"),
        (["train", "--batch_size", "16", "--micro_batch_size", "8"], "2"),
        (["train", "--batch_size", "1", "--split_sample", "true", "--input_size", "700", "--tile_size", "572"], "4"),
        (["predict", "RUN", "IMAGE"], "4"),
        (["evaluate", "RUN"], "4"),
    ],
)
def test_all_gpus_are_used(words: list[str], count: str) -> None:
    assert program(*words)[0] == count


@pytest.mark.usefixtures("launches")
@pytest.mark.parametrize(
    "words",
    [
        ["train", "--debug"],
        ["train", "--device", "cpu"],
        ["train", "--expected_processes", "1"],
        ["train", "--processes", "1"],
        ["bench"],
    ],
)
def test_one_process_stays_one(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # set back afterwards, as --device sets it
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    ran: list[object] = []
    monkeypatch.setattr(
        "unet_dist.command_line.command.Command.load_run", lambda command: lambda *_: ran.append(command)
    )
    assert program(*words) == []
    assert len(ran) == 1
