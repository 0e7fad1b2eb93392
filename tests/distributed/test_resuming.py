"""Proves where a started run resumes: nowhere when it is finished, from its own newest checkpoint, or off a named one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.conftest import TINY, Laboratory
from tests.distributed.processes import last_step
from unet_dist.config.sections import ScheduleConfig
from unet_dist.runs.checkpoint import list_checkpoints, read_checkpoint, state_digest
from unet_dist.runs.metrics_log import read_metrics
from unet_dist.training.optimizer import course

SHORT: dict[str, Any] = {"total_steps": 6, "eval_steps": 2, "keep_checkpoints": 9, "schedule": "constant"}


def content(folder: Path) -> dict[str, bytes]:
    """What a run leaves that others read."""
    names = ["best/model.safetensors", "last/model.safetensors", "metrics.jsonl", "splits.json"]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def finished(lab: Laboratory) -> Path:
    """A run of 6 steps with checkpoints at 2, 4 and 6."""
    return lab.alone_once("short", **SHORT)


def error_of(lab: Laboratory, capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """The one sentence on which a command ends."""
    capsys.readouterr()
    lab.alone(words, code=2)
    error = capsys.readouterr().err
    assert error.startswith("unet-dist: error: ")
    assert error.count("\n") == 1
    return error.removeprefix("unet-dist: error: ").rstrip()


def edit_config(checkpoint: Path, **changes: Any) -> None:
    """Change the settings that a checkpoint remembers."""
    state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    state["config"] |= changes
    state["sha256"]["state.json"] = state_digest(state)
    (checkpoint / "state.json").write_text(json.dumps(state), encoding="utf-8")


def test_finished_run_started_again_changes_nothing(lab: Laboratory, finished: Path) -> None:
    before = content(finished)
    lab.alone(lab.train("short", **SHORT))
    assert content(finished) == before
    assert [path.name for path in list_checkpoints(finished / "checkpoints")] == [f"step-0000000{n}" for n in (2, 4, 6)]


def moments(checkpoint: Path) -> dict[str, set[str]]:
    """The moments of each parameter."""
    kept: dict[str, set[str]] = {}
    for moment, _, name in (key.partition(".") for key in read_checkpoint(checkpoint).optimizer):
        kept.setdefault(name, set()).add(moment)
    return kept


def test_muon_resumes_to_the_byte_and_gives_way_to_adamw(lab: Laboratory) -> None:
    """Where the optimizer is another one, its moments begin at zero and those of the other are gone."""
    keys = {**SHORT, "optimizer": "muon", "base_channels": 8}
    whole = lab.alone_once("muon", **keys)
    begun = whole / "checkpoints/step-00000002"
    lab.alone(lab.train("muon-resumed", **keys, resume=begun))
    resumed, expected = content(lab.folder / "muon-resumed"), content(whole)
    assert {name for name in expected if resumed[name] != expected[name]} == {"metrics.jsonl"}, "which begins at step 3"
    adamw, muon = {"exp_avg", "exp_avg_sq", "step", "average"}, {"momentum", "average"}
    there = moments(begun)
    banks = {name for name in there if there[name] == muon}
    assert {name for name in there if there[name] == adamw} == there.keys() - banks
    assert 0 < len(banks) < len(there)
    for name, start, optimizer in (("adamw-then", begun, "adamw"), ("muon-then", None, "muon")):
        start = start or lab.folder / "adamw-then/checkpoints/step-00000004"
        lab.alone(lab.train(name, **{**keys, "optimizer": optimizer}, resume=start, allow_config_change=True))
        now = moments(lab.folder / name / "checkpoints/step-00000006")
        assert now == (there if optimizer == "muon" else dict.fromkeys(there, adamw))
        losses = [row["loss"] for row in read_metrics(lab.folder / name / "metrics.jsonl") if row["split"] == "train"]
        assert all(0 < loss < 10 for loss in losses)


def test_more_steps_ask_how_the_learning_rate_goes_on(
    lab: Laboratory, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = lab.train("short", **{**SHORT, "total_steps": 8})
    assert error_of(lab, capsys, words) == (
        f"{finished} holds a run at step 6 with other settings: total_steps: 6 -> 8. To train longer, choose the "
        "learning rate: --extend_schedule continue (the course of 8 steps, entered at step 6) or --extend_schedule restart (a new "
        "course over the 2 steps left). To resume it as it was, give its settings again. To start another run, set another "
        "--output_path."
    )
    sentence = error_of(lab, capsys, [*words, "--seed=1"])
    assert "total_steps: 6 -> 8; seed: 20261123 -> 1. To train longer, choose the" in sentence
    assert sentence.endswith(
        "To resume it as it was, give its settings again. To resume it with the new settings, set --allow_config_change true. "
        "To start another run, set another --output_path."
    )


@pytest.mark.parametrize(("extension", "length", "first"), [("continue", 8, 7), ("restart", 2, 1)])
def test_more_steps_go_on_in_the_old_course_or_a_new_one(
    lab: Laboratory, finished: Path, extension: str, length: int, first: int
) -> None:
    """Six steps, and two more; the second of them after another start, which must not begin yet another course."""
    folder = lab.folder / f"longer-{extension}"
    shutil.copytree(finished, folder)
    keys = {**SHORT, "total_steps": 8, "schedule": "onecycle", "checkpoint_steps": 1, "extend_schedule": extension}
    edit_config(list_checkpoints(folder / "checkpoints")[-1], schedule="onecycle")
    words = lab.train(folder.name, **keys)
    lab.alone(words)
    weights = content(folder)["last/model.safetensors"]
    shutil.rmtree(folder / "checkpoints/step-00000008")
    lab.alone(words)
    assert content(folder)["last/model.safetensors"] == weights
    course_ = course(ScheduleConfig(total_steps=length, learning_rate=TINY["learning_rate"]))
    rates = [r["learning_rate"] for r in read_metrics(folder / "metrics.jsonl") if r["split"] == "train"][6:]
    assert rates == [course_(first)[0], course_(first + 1)[0]]


def test_never_refuses_a_folder_with_a_run(lab: Laboratory, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(finished)
    assert error_of(lab, capsys, lab.train("short", **SHORT, resume="never")) == (
        f"resume: got never, but {finished} holds a run with 3 checkpoint(s). Choose another --output_path, or remove the folder."
    )
    assert content(finished) == before


def test_named_checkpoint_is_branched_off_into_another_folder(lab: Laboratory, finished: Path) -> None:
    """From step 2 of another folder, with the same settings: the same end. Started again, it resumes from its own."""
    named = finished / "checkpoints/step-00000002"
    words = lab.train("branch", **SHORT, resume=named)
    lab.alone(words)
    branch = lab.folder / "branch"
    assert content(branch)["last/model.safetensors"] == content(finished)["last/model.safetensors"]
    assert [path.name for path in list_checkpoints(branch / "checkpoints")] == ["step-00000004", "step-00000006"]
    assert (branch / "best").is_dir(), "the best of the other folder stays there: this one has its own"

    shutil.rmtree(branch / "checkpoints/step-00000006")
    shutil.rmtree(branch / "last")
    lab.alone(words)
    records = [r["step"] for r in read_metrics(branch / "metrics.jsonl") if r["split"] == "train"]
    assert records == [3, 4, 5, 6]
    assert content(branch)["last/model.safetensors"] == content(finished)["last/model.safetensors"]


def test_older_checkpoint_of_the_same_folder_is_refused(
    lab: Laboratory, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps after it would be removed as the oldest, and the next start would resume from the abandoned ones."""
    named = finished / "checkpoints/step-00000002"
    assert error_of(lab, capsys, lab.train("short", **SHORT, resume=named)) == (
        f"resume: got {named}, but {finished} holds a run of its own at step 6. Choose another --output_path to branch off, or "
        "set --resume auto to resume the run in the folder."
    )
    lab.alone(lab.train("short", **SHORT, resume=finished / "checkpoints/step-00000006"))


def test_run_without_progress_ends_early_and_stays_ended(lab: Laboratory) -> None:
    keys = {**SHORT, "total_steps": 40, "learning_rate": 1e-60, "early_stopping_evals": 2}
    lab.alone(lab.train("early", **keys))
    folder = lab.folder / "early"
    assert last_step(folder) == 6, "the first validation is the best, and two more are not"
    before = content(folder)
    lab.alone(lab.train("early", **keys))
    assert content(folder) == before


def test_time_limit_saves_and_asks_to_come_back(lab: Laboratory) -> None:
    """The limit is over at the first boundary of each start: nothing is done, nothing is lost, and each asks for a requeue."""
    folder = lab.folder / "limited"
    lab.alone(lab.train("limited", **SHORT, time_limit_min=1e-9))
    assert json.loads((folder / "requeue").read_text(encoding="utf-8")) == {"step": 0}
    assert not (folder / "last").exists()
    lab.alone(lab.train("limited", **SHORT))
    assert not (folder / "requeue").exists()
    assert (folder / "last").is_dir()


def test_diverged_run_names_the_step_and_goes_on_with_a_lower_rate(
    lab: Laboratory, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first update with an absurd rate makes the second step's loss infinite: weights and moments stay those before it."""
    folder = lab.folder / "diverged"
    sentence = error_of(lab, capsys, lab.train("diverged", **{**SHORT, "learning_rate": 1e18}))
    assert sentence.startswith("Step 2 is not finite: the loss of scene-")
    assert sentence.endswith("or look at those samples; then resume with --allow_config_change true.")
    assert "The state before it is saved." in sentence
    saved = read_checkpoint(folder / "checkpoints/step-00000001")
    assert all(torch.isfinite(tensor).all() for tensor in (*saved.model.values(), *saved.optimizer.values()))
    assert not (folder / "last").exists()
    lost = [record for record in read_metrics(folder / "metrics.jsonl") if record["loss"] is None]
    assert [record["step"] for record in lost] == [2]

    assert "Step 2 is not finite" in error_of(lab, capsys, lab.train("diverged", **{**SHORT, "learning_rate": 1e18}))
    keys = {**SHORT, "learning_rate": 1e-30, "allow_config_change": True, "seed": TINY["seed"] + 1}
    assert "Step 2 is not finite" in error_of(lab, capsys, lab.train("diverged", **keys)), (
        "the weights are still absurd"
    )


def test_step_one_that_is_not_finite_leaves_nothing_to_go_on_from(
    lab: Laboratory, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights so large that the first pass is not finite, as a diverged run leaves them."""
    from safetensors.torch import load_file, save_file

    poisoned = lab.folder / "poisoned"
    shutil.copytree(finished / "last", poisoned)
    weights = load_file(poisoned / "model.safetensors")
    weights["classifier.weight"][3] = 3e38
    save_file(weights, poisoned / "model.safetensors", metadata={"format": "pt"})
    sentence = error_of(lab, capsys, lab.train("from-poisoned", **SHORT, init_from=poisoned))
    assert sentence.startswith("Step 1 is not finite: the loss of scene-")
    assert "The state before it is saved" not in sentence
    assert not list_checkpoints(lab.folder / "from-poisoned/checkpoints")


def test_stop_within_a_validation_saves_the_step_before_it(
    lab: Laboratory, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wish comes when some of the images are done: nothing of the half is kept, and the next start makes all of it."""
    from unet_dist.assembly import training
    from unet_dist.processes import stopping

    folder = lab.folder / "in-validation"
    evaluate = training.evaluate_split

    def interrupted(*parts: Any, is_stopped: Any, **keys: Any) -> Any:
        rounds = iter(range(99))

        def watched() -> bool:
            if next(rounds) == 1:
                (folder / "stop").touch()
            return bool(is_stopped())

        return evaluate(*parts, is_stopped=watched, **keys)

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate_split", interrupted)
        patch.setattr(stopping, "LOOK_S", 0.0)
        lab.alone(lab.train("in-validation", **SHORT, window_batch=1))
    assert json.loads((folder / "requeue").read_text(encoding="utf-8")) == {"step": 2}
    saved = read_checkpoint(folder / "checkpoints/step-00000002")
    assert (saved.progress["evaluated_step"], saved.progress["best_step"]) == (0, 0)
    assert {record["split"] for record in read_metrics(folder / "metrics.jsonl")} == {"train"}
    lab.alone(lab.train("in-validation", **SHORT, window_batch=1))
    for name in ("best/model.safetensors", "last/model.safetensors"):
        assert content(folder)[name] == content(finished)[name]
