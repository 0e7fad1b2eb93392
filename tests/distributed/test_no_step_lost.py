"""Proves C4 with real processes: kill any of them at any instant, start the same command again, and the run ends with the
same bytes as one that was never killed. Asked to stop instead, it saves and leaves with 0.

The instants are drawn by a seed and then blurred by the scheduler: a validation, a checkpoint or both are always near.
"""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import pytest

from tests.distributed.conftest import LONG, STEPS_OF_LONG, Laboratory
from tests.distributed.processes import PATIENCE_S, Group, last_step, launch
from unet_dist.runs.checkpoint import list_checkpoints, read_checkpoint
from unet_dist.runs.metrics_log import read_metrics

pytestmark = pytest.mark.processes

MODELS = ["last/model.safetensors", "best/model.safetensors"]


def uninterrupted(lab: Laboratory, world_size: int) -> Path:
    """The folder of the run that nobody disturbed."""
    return lab.alone_once("long-1", **LONG) if world_size == 1 else lab.together(world_size) / f"long-{world_size}"


def assert_same_end(lab: Laboratory, folder: Path, world_size: int) -> None:
    """The run in a folder has the weights and the records of the uninterrupted one."""
    reference = uninterrupted(lab, world_size)
    for name in MODELS:
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name
    newest = [read_checkpoint(list_checkpoints(path / "checkpoints")[-1]) for path in (folder, reference)]
    assert newest[0].step == newest[1].step == STEPS_OF_LONG
    timeless = [{k: v for k, v in checkpoint.progress.items() if k != "seconds"} for checkpoint in newest]
    assert timeless[0] == timeless[1]
    measured = ("images_per_s", "data_wait", "memory_bytes", "seconds")
    records, expected = (
        [{k: v for k, v in record.items() if k not in measured} for record in read_metrics(path / "metrics.jsonl")]
        for path in (folder, reference)
    )
    assert records == expected
    assert [r["step"] for r in records if r["split"] == "train"] == list(range(1, STEPS_OF_LONG + 1))
    assert [r["step"] for r in records if r["split"] == "validation"] == list(range(10, STEPS_OF_LONG + 1, 10))


def kill_at_a_random_step(group: Group, folder: Path, victim: int, seed: int) -> None:
    """Kill one process once per step drawn by the seed has been recorded; the others must end by themselves."""
    group.wait_for_step(folder, random.Random(seed).randint(8, 40))
    group.ranks[victim].send_signal(signal.SIGKILL)
    codes = group.wait()
    assert codes[victim] == -signal.SIGKILL
    assert all(code != 0 for code in codes), "the others went on, or left as if all were well"
    assert last_step(folder) < STEPS_OF_LONG
    assert not (folder / "last").exists()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_all_is_saved(folder: Path) -> int:
    """The newest checkpoint is whole and of the last recorded step, which is returned."""
    step = last_step(folder)
    assert read_checkpoint(folder / f"checkpoints/step-{step:08d}").step == step < STEPS_OF_LONG
    assert "stop" not in names(folder)
    return step


@pytest.mark.slow
def test_one_process_killed_and_stopped(lab: Laboratory) -> None:
    """Killed with two workers reading for it; then asked to stop by the stop file, by SIGUSR1 and by SIGTERM; then left alone.

    The last start reads without workers, in a process that has run other things before: none of it is in the result.
    """
    folder = lab.folder / "killed-1"
    words = lab.train("killed-1", **LONG, num_workers=2)
    with launch(1, [words], lab.folder / "launch-kill-1") as group:
        kill_at_a_random_step(group, folder, victim=0, seed=1)

    with launch(1, [words] * 3, lab.folder / "launch-stop-1", holds=True) as group:
        (process,) = group.ranks
        for number, ask in enumerate(("stop file", signal.SIGUSR1, signal.SIGTERM), start=1):
            group.wait_for_step(folder, last_step(folder) + 2)
            if isinstance(ask, signal.Signals):
                process.send_signal(ask)
            else:
                (folder / "stop").touch()
            group.wait_for_codes(number)
            step = assert_all_is_saved(folder)
            if ask is signal.SIGTERM:
                assert "requeue" not in names(folder), "a cancelled job stays cancelled"
            else:
                assert json.loads((folder / "requeue").read_text(encoding="utf-8")) == {"step": step}
            group.go_on()
        assert group.wait() == [0]
        assert group.codes(0) == [0, 0, 0]

    lab.alone(lab.train("killed-1", **LONG))
    assert_same_end(lab, folder, world_size=1)


@pytest.mark.parametrize(("world_size", "victim"), [(2, 1), (3, 0)])
@pytest.mark.slow
def test_several_processes_killed(lab: Laboratory, world_size: int, victim: int) -> None:
    """One of them killed; all started again; the last one asked to stop, on which all agree; then left alone.

    At 3 processes DDP sums in another order after its first backward pass: a resumed run has to be past that, too.
    """
    name = f"killed-{world_size}"
    folder, words = lab.folder / name, lab.train(name, **LONG)
    with launch(world_size, [words], lab.folder / f"launch-kill-{world_size}") as group:
        kill_at_a_random_step(group, folder, victim, seed=world_size)
        told = [line for text in group.said for line in text.splitlines() if "error: " in line]
        # The first process holds what the others know of each other: without it all of them say what they lost.
        assert len(told) == (1 if victim else world_size - 1), group.said
        assert all(f" lost rank {victim}" in line for line in told), told
        assert "Traceback" not in "".join(group.said)

    with launch(world_size, [words, words], lab.folder / f"launch-again-{world_size}", holds=True) as group:
        group.wait_for_step(folder, last_step(folder) + 2)
        group.ranks[-1].send_signal(signal.SIGTERM)
        group.wait_for_codes(1)
        step = assert_all_is_saved(folder)
        assert "requeue" not in names(folder)
        group.go_on()
        assert group.wait() == [0] * world_size, group.said
        assert [group.codes(rank) for rank in range(world_size)] == [[0, 0]] * world_size
    assert f"Stopped as asked at step {step} of {STEPS_OF_LONG}; all is saved." in group.said[0]
    assert_same_end(lab, folder, world_size)


@pytest.mark.slow
def test_hanging_process_ends_all_and_is_named(lab: Laboratory) -> None:
    """One of three is frozen: the others wait as long as they may, and one of them says for whom."""
    folder = lab.folder / "hanging-3"
    words = lab.train("hanging-3", **LONG, collective_timeout_s=10)
    with launch(3, [words], lab.folder / "launch-hanging") as group:
        group.wait_for_step(folder, 8)
        frozen = group.ranks[1]
        frozen.send_signal(signal.SIGSTOP)
        assert [group.ranks[rank].wait(PATIENCE_S) for rank in (0, 2)] == [1, 1]
        frozen.kill()
        group.wait()
    told = [line for text in group.said for line in text.splitlines() if "error: " in line]
    assert len(told) == 1, group.said
    assert f" of 3 waited 10 s for rank 1 (pid {frozen.pid} on " in told[0]
    assert "Traceback" not in "".join(group.said)
    assert read_checkpoint(list_checkpoints(folder / "checkpoints")[-1]).step >= 7
