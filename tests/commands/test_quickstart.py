"""Proves the quick start's steps: their order, the number of processes, and the sentence of a failed step."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from unet_dist.cli import main, parse
from unet_dist.commands import quickstart
from unet_dist.commands.quickstart import StepError, run


@pytest.fixture
def configs() -> list[dict[str, Any]]:
    """The configs that are trained."""
    return []


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, configs: list[dict[str, Any]]) -> list[list[str]]:
    """The words of the programs that are called; none is started."""
    called: list[list[str]] = []

    def started(command: list[str], **_: Any) -> SimpleNamespace:
        called.append(command[3:])
        if command[3] == "train":
            configs.append(yaml.safe_load(Path(command[4]).read_text(encoding="utf-8")))
        stdout = (
            "base_channels: 16  # a reason\ntotal_steps: 70\nbatch_size: 4\n" if command[3] == "configure" else None
        )
        return SimpleNamespace(returncode=int(command[3] == "report" and "fails" in command[-1]), stdout=stdout)

    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(subprocess, "run", started)
    monkeypatch.setattr(quickstart, "num_cores", lambda: 2)
    monkeypatch.setattr(quickstart.torch.cuda, "device_count", lambda: 0)
    return called


def start(folder: Path, *words: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "evaluation-test.json").write_text(json.dumps({"miou": 0.5}), encoding="utf-8")
    run(*parse("quickstart", [*words, "--output_path", str(folder)]))


def test_scenes_are_trained_evaluated_predicted_and_reported(
    tmp_path: Path, calls: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    start(tmp_path / "run", "--synthetic_size", "48x80")
    assert [call[0] for call in calls] == ["train", "evaluate", "predict", "report"]
    assert all(call[-2:] == ["--processes", "2"] for call in calls[:3])
    assert len(list((tmp_path / "run" / "scenes").glob("scene-*.png"))) == 3
    out = capsys.readouterr().out
    assert "mean IoU 0.500" in out
    assert "--multi_gpu" not in out
    assert out.rstrip().endswith("scene-0_overlay.png")


def test_own_data_are_configured_and_what_is_given_stands(
    tmp_path: Path, calls: list[list[str]], configs: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--data_path",
        str(tmp_path),
        "--total_steps",
        "50",
        "--ignore_index",
        "3",
        "--num_classes",
        "7",
        "--time",
        "2min",
    ]
    start(tmp_path / "run", *words)
    assert [call[0] for call in calls] == ["configure", "train", "evaluate", "report"]
    kept = ["--ignore_index", "3", "--num_classes", "7", "--output_path", str(tmp_path / "run")]
    configured = ["configure", str(tmp_path), "--time", "2min", "--processes", "1", *kept]
    assert calls[0] == configured
    (trained,) = configs
    assert (trained["base_channels"], trained["total_steps"], trained["learning_rate"]) == (16, 50, 5e-4)
    assert trained["ema_decay"] is None, "nothing of what suits the scenes"
    out = capsys.readouterr().out
    assert "base_channels: 16  # a reason" in out
    assert "predictions/" not in out


def test_a_run_of_own_data_keeps_its_config(
    tmp_path: Path, calls: list[list[str]], configs: list[dict[str, Any]]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("base_channels: 24\n", encoding="utf-8")
    start(tmp_path / "run", "--data_path", str(tmp_path))
    assert [call[0] for call in calls] == ["train", "evaluate", "report"]
    assert configs[0]["base_channels"] == 24


def test_own_network_is_not_configured(tmp_path: Path, calls: list[list[str]]) -> None:
    start(tmp_path / "run", "--data_path", str(tmp_path), "--batch_size", "3", "--base_channels", "8")
    assert [call[0] for call in calls] == ["train", "evaluate", "report"]
    assert not any("--processes" in call for call in calls)


def test_step_that_fails_ends_it(tmp_path: Path, calls: list[list[str]]) -> None:
    with pytest.raises(StepError, match=r"^report ended with exit code 1; its lines above say why"):
        start(tmp_path / "fails", "--data_path", str(tmp_path))
    assert calls[-1][0] == "report"


def test_names_are_shown_as_they_are(
    tmp_path: Path, calls: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a\x1b[31m\n== forged"
    data = tmp_path / "d\x1b[31m\n== forged"
    start(folder, "--data_path", str(data))
    start(folder, "--synthetic_size", "48x80")
    out = capsys.readouterr().out
    assert "\\x1b[31m" in out
    assert "\x1b" not in out
    assert "\n== forged" not in out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--time", "banana"], "time"),
        (["--time", "-1"], "time"),
        (["--time", "0s"], "time"),
        (["--time", "1e400h"], "time"),
        (["--data_path", "/nonexistent"], "/nonexistent"),
        (["--data_path", ""], "data_path"),
        (["--data_path", "/dev/null"], "/dev/null"),
        (["--processes", "0"], "processes"),
        (["--total_steps", "0"], "total_steps"),
        (["--synthetic_size", "0x0"], "synthetic_size"),
        (["--output_path", "/proc/x"], "/proc/x"),
        (["--output_path", "a\0b"], "output_path"),
        (["nothing.yaml"], "nothing.yaml"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else None,
)
def test_nonsense_is_one_sentence(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], named: str
) -> None:
    """Before anything is trained."""
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit) as leaving:
        main(["quickstart", *words])
    out, err = capfd.readouterr()
    assert leaving.value.code == 2
    *before, error = err.splitlines()
    assert all(line == "unet-dist configure: starting; loading takes some seconds" for line in before), before
    assert error.startswith("unet-dist: error: ")
    assert named in err
    assert "== train" not in out
