"""Proves, with real launchers and processes, that a launch that cannot be what it says ends at once, and says why once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.conftest import Laboratory
from tests.distributed.processes import PATIENCE_S, ROOT, launch, quiet_environment
from tests.ports import free_ports
from unet_dist.runs.checkpoint import list_checkpoints, read_checkpoint
from unet_dist.storage.lock import lock_run


@pytest.mark.processes
@pytest.mark.slow
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
        "accelerate launch --multi_gpu --num_processes 2; on a cluster check that every node's launcher has the same value.\n"
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
@pytest.mark.slow
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


# One rank raises what nobody foresaw, while the others wait for it.
RAISING = """
import torch
from unet_dist.processes.group import open_processes

torch.set_num_threads(1)
with open_processes(mixed_precision="no") as processes:
    processes.barrier()
    if processes.rank == 1:
        raise ValueError("of its own")
    processes.barrier()
"""


@pytest.mark.processes
@pytest.mark.slow
def test_error_of_one_process_is_shown_with_its_traceback_and_no_other(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    ranks = []
    for rank in range(3):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 3, "LOCAL_WORLD_SIZE": 3, "MASTER_PORT": port}
        environment = {**quiet_environment(), **{k: str(v) for k, v in place.items()}, "MASTER_ADDR": "127.0.0.1"}
        with (tmp_path / f"{rank}.txt").open("w", encoding="utf-8") as said:
            ranks.append(
                subprocess.Popen(
                    [sys.executable, "-c", RAISING], env=environment, stdout=said, stderr=subprocess.STDOUT
                )
            )
    assert [process.wait(timeout=PATIENCE_S) for process in ranks] == [1, 1, 1]
    said = [(tmp_path / f"{rank}.txt").read_text(encoding="utf-8") for rank in range(3)]
    assert said[1].startswith("unet-dist: error on rank 1 of 3:\nTraceback (most recent call last):\n")
    assert said[1].endswith("ValueError: of its own\n")
    assert said[0] == said[2] == ""
