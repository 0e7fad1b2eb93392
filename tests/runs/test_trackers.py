"""Proves that trackers see one run over all its starts: no curve goes back, no start is a run of its own, no key is a sentence."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.faults.runs import TINY, before_step, sentence_of, train
from unet_dist.runs.metrics_log import read_metrics
from unet_dist.runs.trackers import TRACKING_FILE, refused_by, show_pictures, tracker_settings, tracking_id

WORDS = [
    *TINY[: TINY.index("--trackers")],
    *TINY[TINY.index("--trackers") + 2 :],
    "--total_steps",
    "8",
    "--log_steps",
    "1",
]


class Killed(BaseException):
    """Ends a run with nothing saved, as a kill does."""


def test_curve_of_a_killed_run_never_goes_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own_process: None
) -> None:
    """Steps after the last checkpoint are written twice, the first time by a process that died: they count once."""
    words = [*WORDS, "--checkpoint_steps", "2", "--cache_path", tmp_path / "cache", "--output_path", tmp_path / "run"]
    words += ["--trackers", "[tensorboard]"]

    def die() -> None:
        raise Killed

    with monkeypatch.context() as patch:
        before_step(patch, 6, die)
        with pytest.raises(Killed):
            train(capfd, *map(str, words))
    assert read_metrics(tmp_path / "run/metrics.jsonl")[-1]["step"] == 5
    assert train(capfd, *map(str, words))[0] == 0
    curves = EventAccumulator(str(tmp_path / "run/tensorboard"))
    curves.Reload()
    recorded = {row["step"]: row["loss"] for row in read_metrics(tmp_path / "run/metrics.jsonl") if "loss" in row}
    shown = [(event.step, event.value) for event in curves.Scalars("train/loss")]
    assert [step for step, _ in shown] == list(range(1, 9))
    assert dict(shown) == pytest.approx(recorded)


def test_every_start_is_the_same_run(tmp_path: Path) -> None:
    first = tracker_settings(["wandb", "trackio"], tmp_path, 0)
    again = tracker_settings(["trackio", "wandb"], tmp_path, 40)
    assert first == again
    assert first["wandb"]["resume"] == "allow"
    other = tmp_path / "other"
    other.mkdir()
    assert tracker_settings(["wandb"], other, 0)["wandb"]["id"] != first["wandb"]["id"]
    (other / TRACKING_FILE).write_text("{")
    assert tracking_id(other) == tracking_id(other), "a damaged file is written anew"


def test_runs_without_them_are_told_nothing(tmp_path: Path) -> None:
    assert tracker_settings(["tensorboard"], tmp_path, 0) == {}
    assert not list(tmp_path.iterdir())


def test_tracker_that_does_not_start_is_a_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own_process: None
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no room for events.\nMore of it.")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", refuse)
    words = [*WORDS, "--cache_path", tmp_path / "cache", "--output_path", tmp_path / "run"]
    words += ["--trackers", "[tensorboard]"]
    assert sentence_of(capfd, *map(str, words)) == (
        "trackers: tensorboard did not start: no room for events. Look at tensorboard's settings; or take it out of trackers."
    )


def test_missing_key_names_what_to_do() -> None:
    """The words and the type are those of wandb 0.23 without a key."""
    kind = type("UsageError", (Exception,), {"__module__": "wandb.errors.errors"})
    said = str(refused_by(["tensorboard", "wandb"], kind("No API key configured. Use `wandb login` to log in.")))
    assert said.startswith(
        "trackers: wandb did not start: No API key configured. Use `wandb login` to log in. Run wandb"
    )
    assert said.endswith("login, or set WANDB_API_KEY, or WANDB_MODE=offline; or take it out of trackers.")


def test_tensorboard_gets_pictures_of_a_run_that_has_curves(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3)).save(picture)
    show_pictures(tmp_path, {"test/a": picture}, 70)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"], "no curves, no pictures"
    (tmp_path / "tensorboard").mkdir()
    show_pictures(tmp_path, {"test/a": picture}, 70)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (found,) = events.Images("test/a")
    assert (found.step, found.width, found.height) == (70, 5, 4)
    shown = np.asarray(Image.open(io.BytesIO(found.encoded_image_string)))
    assert np.array_equal(shown, np.asarray(Image.open(picture)))
