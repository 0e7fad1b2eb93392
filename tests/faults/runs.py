"""What the tests of faults share: the words of a tiny run, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unet_dist.cli import main
from unet_dist.training.trainer import Trainer

TINY = (
    *("--synthetic_images", "4", "--synthetic_size", "48x80", "--depth", "1", "--base_channels", "2"),
    *("--input_size", "40", "--batch_size", "2", "--total_steps", "4", "--eval_steps", "2"),
    *("--trackers", "[]", "--mixed_precision", "no"),
)


def end_of(*words: str) -> int:
    """Run `train`; its exit code."""
    with pytest.raises(SystemExit) as leaving:
        main(["train", *words])
    assert isinstance(leaving.value.code, int)
    return leaving.value.code


def train(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run `train`; the exit code and the printed text. A traceback anywhere fails the test."""
    capfd.readouterr()
    code = end_of(*words)
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def sentence_of(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """The sentence that `train` ends with."""
    code, _, err = train(capfd, *words)
    assert code == 2, err
    lines = [line for line in err.splitlines() if line.startswith("unet-dist: error: ")]
    assert len(lines) == 1, err
    return lines[0].removeprefix("unet-dist: error: ")


def model_of(folder: Path) -> bytes:
    return (folder / "last/model.safetensors").read_bytes()


def before_step(patch: pytest.MonkeyPatch, step: int, happens: Callable[[], object]) -> None:
    """Let something happen to a run just before it makes a step."""
    make = Trainer.step

    def watched(trainer: Trainer, *share: Any) -> Any:
        if trainer.progress.step + 1 == step:
            trainer.boundary.writer.wait()  # what is being written stands
            happens()
        return make(trainer, *share)

    patch.setattr(Trainer, "step", watched)
