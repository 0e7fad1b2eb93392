"""Proves, with real launchers and processes, that a launch that cannot be what it says ends at once, and says why once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.conftest import Laboratory
from tests.distributed.processes import PATIENCE_S, ROOT, launch, quiet_environment
from unet_dist.checkpoint import list_checkpoints, read_checkpoint
from unet_dist.locking import lock_run


@pytest.mark.processes
def test_several_processes_that_accelerate_starts_as_one(tmp_path: Path) -> None:
    """`accelerate launch --cpu --num_processes 2` starts one process: a run of half the wish, unless it is refused."""
    words = ["--cpu", "--num_processes", "2", "-m", "unet_dist", "train", "--output_path", str(tmp_path / "run")]
    command = [sys.executable, "-m", "accelerate.commands.launch", *words]
    done = subprocess.run(
        command, cwd=ROOT, env=quiet_environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("unet-dist: error: ")]
    assert said == [
        "unet-dist: error: accelerate launch: got one process though several were asked for: on a host without GPUs, --cpu and "
        "use_cpu start one only. Use accelerate launch --multi_gpu --num_processes N -m unet_dist ... (it starts CPU processes too)."  # noqa: E501
    ]
    assert not (tmp_path / "run").exists()


def test_other_number_of_processes_than_expected(lab: Laboratory, capsys: pytest.CaptureFixture[str]) -> None:
    lab.alone(lab.train("unexpected", expected_processes=2), code=2)
    assert capsys.readouterr().err == (
        "unet-dist: error: expected_processes: got 1 process, expected 2. On a host without GPUs several processes come from "
        "accelerate launch --multi_gpu --num_processes 2; on a cluster check that every node's launcher was told the same.\n"
    )
    assert not (lab.folder / "unexpected").exists()


def test_folder_of_another_run(lab: Laboratory, capsys: pytest.CaptureFixture[str]) -> None:
    folder = lab.folder / "held"
    with lock_run(folder):
        lab.alone(lab.train("held"), code=2)
    error = capsys.readouterr().err
    assert error.startswith(f"unet-dist: error: output_path: {folder} is held by another run: ")
    assert f'"pid": {os.getpid()}' in error
    assert [path.name for path in folder.iterdir()] == [".lock"]


@pytest.mark.processes
def test_error_that_all_processes_see_is_said_once(lab: Laboratory) -> None:
    """A diverged run of two processes: the state is saved before the first of them leaves, and one of them speaks."""
    words = lab.train("diverged-2", total_steps=6, eval_steps=2, learning_rate=1e18)
    with launch(2, [words], lab.folder / "launch-diverged") as group:
        assert group.wait() == [2, 2], group.said
    said = [line for text in group.said for line in text.splitlines() if "error: " in line]
    assert len(said) == 1, said
    assert said[0].startswith("unet-dist: error: Step 2 is not finite: the loss of scene-")
    assert "Traceback" not in "".join(group.said)
    (checkpoint,) = list_checkpoints(lab.folder / "diverged-2/checkpoints")
    assert read_checkpoint(checkpoint).step == 1
