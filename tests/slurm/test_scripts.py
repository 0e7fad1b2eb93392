"""Proves what the batch scripts do besides starting a program: rendezvous, world size, stop wish, requeue and its bounds.

Real SLURM, real scripts; only the launcher is a stand-in. The jobs of all tests are submitted together, so that they wait
together.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.checkout import ROOT, SCRIPTS, STAND_IN, Job, make_root
from tests.slurm.lab import Lab, wait_until

ONE_PROCESS = ("--gpus-per-node=0", "--cpus-per-task=1")


@pytest.fixture(scope="module")
def jobs(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """All jobs of this module, by name."""

    def submit(
        name: str, script: str, *words: str, options: tuple[str, ...] = ONE_PROCESS, behaviour: str = "finish"
    ) -> None:
        root = make_root(tmp_path_factory.mktemp("root"), STAND_IN)
        environment = {"STAND_IN": behaviour, "UNET_DIST_FRUITLESS_REQUEUES": "1"}
        if script == "predict.sbatch":
            for folder, names in (
                ("a", ("1.png", "2.png", "3 with space.png", "notes.txt")),
                ("b", ("4.png", "5.tif")),
            ):
                (root / folder).mkdir()
                for image in names:
                    (root / folder / image).touch()
        found[name] = Job(
            lab.submit(f"launch/slurm/{script}", *words, cwd=root, options=options, environment=environment), root
        )

    found: dict[str, Job] = {}
    run = ("--output_path", "runs/a run")
    submit("never gets on", "one_node.sbatch", *run, behaviour="never gets on")
    submit("clears first", "one_node.sbatch", *run, behaviour="clears first")
    submit(
        "time limit",
        "one_node.sbatch",
        *run,
        behaviour="asked once",
        options=(*ONE_PROCESS, "--time=1", "--signal=B:USR1@58"),
    )
    submit("array", "input_sizes.sbatch", *run, behaviour="asked once", options=(*ONE_PROCESS, "--array=444,572"))
    submit(
        "one node", "one_node.sbatch", *run, "--total_steps", "5", options=("--gpus-per-node=2", "--cpus-per-task=4")
    )
    submit("two nodes", "several_nodes.sbatch", *run, options=("--gpus-per-node=2", "--cpus-per-task=2"))
    # As a site may have it: no variables come along, and a limit of the login node's would.
    submit("exports none", "one_node.sbatch", *run, options=(*ONE_PROCESS, "--export=NONE"))
    submit("fails", "one_node.sbatch", *run, behaviour="fail")
    submit("misspelt", "one_node.sbatch", "--output_pth", "runs/a")
    submit("predict", "predict.sbatch", "runs/best", "out", "a", "b", options=(*ONE_PROCESS, "--array=0-2"))
    submit("debug", "debug.sbatch", options=("--gpus-per-node=1", "--cpus-per-task=1"))
    return found


def value(call: dict[str, Any], key: str) -> str:
    """The word after a key."""
    return str(call["words"][call["words"].index(key) + 1])


@pytest.mark.slurm
def test_one_node_starts_a_process_a_gpu(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["one node"]
    assert lab.wait_for_end(job.id) == "COMPLETED", job.log
    (call,) = job.calls
    assert value(call, "--config_file") == "configs/accelerate/several_gpus.yaml"
    assert value(call, "--num_processes") == value(call, "--expected_processes") == "2"
    assert call["threads"] == "2"
    after = call["words"][call["words"].index("-m") :]
    assert after == [
        "-m",
        "unet_dist",
        "train",
        "--output_path",
        "runs/a run",
        "--total_steps",
        "5",
        "--expected_processes",
        "2",
    ]


@pytest.mark.slurm
def test_two_nodes_meet_at_the_first(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["two nodes"]
    assert lab.wait_for_end(job.id) == "COMPLETED", job.log
    calls = sorted(job.calls, key=lambda call: int(call["node"]))
    assert [value(call, "--machine_rank") for call in calls] == ["0", "1"]
    for call in calls:
        assert value(call, "--config_file") == "configs/accelerate/several_nodes.yaml"
        assert (value(call, "--num_machines"), value(call, "--num_processes")) == ("2", "4")
        assert value(call, "--expected_processes") == "4"
        assert value(call, "--main_process_ip") == "127.0.0.1"
        assert int(value(call, "--main_process_port")) == 20000 + int(job.id) % 10000
    assert len({call["secret"] for call in calls}) == 1
    assert len(calls[0]["secret"]) == 64


@pytest.mark.slurm
def test_submitted_without_variables(lab: Lab, jobs: dict[str, Job]) -> None:
    """srun, which obeys the words to sbatch, would find no program."""
    job = jobs["exports none"]
    assert lab.wait_for_end(job.id) == "COMPLETED", job.log
    (call,) = job.calls
    assert call["words"][:3] == ["-m", "unet_dist", "train"]


# Sourced in place of a job, with a stand-in for scontrol that this site refuses.
GPUS = """
scontrol() { echo "Access denied" >&2; return 1; }
export -f scontrol
source launch/slurm/job.sh
trap - USR1 USR2
echo "$(gpus_on_node) $(find_address)"
"""


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SLURM_GPUS_ON_NODE": "8"}, "8 node7"),
        ({"SLURM_GPUS_PER_NODE": "a100:4(S:0-1)"}, "4 node7"),
        ({"SLURM_GPUS_PER_NODE": "2"}, "2 node7"),
        ({"SLURM_JOB_GPUS": "0,1,2"}, "3 node7"),
        ({"CUDA_VISIBLE_DEVICES": "4,5"}, "2 node7"),
        ({}, "0 node7"),
    ],
)
def test_gpus_and_address_of_a_node(tmp_path: Path, environment: dict[str, str], said: str) -> None:
    root = make_root(tmp_path, STAND_IN)
    slurm = {"SLURM_JOB_NAME": "j", "SLURMD_NODENAME": "node7", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", GPUS], cwd=root, env={**slurm, **environment}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, said), done.stderr


@pytest.mark.slurm
def test_failure_is_not_requeued(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["fails"]
    assert lab.wait_for_end(job.id) == "FAILED"
    assert lab.starts(job.id) == 0
    assert "ended with exit code 3" in job.log


@pytest.mark.slurm
def test_misspelt_key_ends_the_job_before_a_launch(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["misspelt"]
    assert lab.wait_for_end(job.id) == "FAILED"
    assert not (job.root / "calls.jsonl").exists()
    assert "--output_path" in job.log


@pytest.mark.slurm
def test_predict_shares_every_image_once(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["predict"]
    for task in range(3):
        assert lab.wait_for_end(f"{job.id}_{task}") == "COMPLETED", job.log
    shares = [call["share"] for call in job.calls]
    assert sorted(image for share in shares for image in share) == [
        "1.png",
        "2.png",
        "3 with space.png",
        "4.png",
        "5.tif",
    ]
    assert sorted(len(share) for share in shares) == [1, 2, 2]
    assert sorted(value(call, "--output") for call in job.calls) == ["out/task-0", "out/task-1", "out/task-2"]


@pytest.mark.slurm
def test_debug_starts_one_process_of_the_debug_mode(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["debug"]
    assert lab.wait_for_end(job.id) == "COMPLETED", job.log
    (call,) = job.calls
    assert call["words"] == ["-m", "unet_dist", "train", "--debug", "--expected_processes", "1"]
    assert lab.show(job.id)["Partition"] == "debug"


@pytest.mark.slurm
def test_submitted_from_elsewhere_says_so(lab: Lab, tmp_path: Path) -> None:
    job = Job(lab.submit(str(SCRIPTS / "one_node.sbatch"), cwd=tmp_path, options=ONE_PROCESS), tmp_path)
    assert lab.wait_for_end(job.id) == "FAILED"
    assert f"No launch/slurm/job.sh in {tmp_path}: submit from the repository" in job.log


@pytest.mark.slurm
@pytest.mark.slow
def test_wish_survives_a_run_that_clears_the_stop_file_at_its_start(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["clears first"]
    wait_until((job.root / "runs/a run/started").exists, 60, lambda: job.log)
    lab.preempt(job.id)
    assert lab.wait_for_end(job.id) == "COMPLETED", job.log
    assert lab.starts(job.id) == 1
    assert not (job.root / "runs/a run/stop").exists()


@pytest.mark.slurm
@pytest.mark.slow
def test_requeues_without_progress_are_bounded(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["never gets on"]
    assert lab.wait_for_end(job.id) == "FAILED", job.log
    assert lab.starts(job.id) == 2  # the first life may come back, and once more without getting on
    assert "Stopped for good at step 7: 2 requeues in a row got no further." in job.log


@pytest.mark.slurm
@pytest.mark.slow
def test_one_array_task_is_requeued_alone(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["array"]
    stopped, other = f"{job.id}_572", f"{job.id}_444"
    folders = {size: job.root / f"runs/a run/input-{size}" for size in ("444", "572")}
    for folder in folders.values():
        wait_until((folder / "started").exists, 60, lambda: job.log)
    lab.preempt(stopped)
    assert lab.wait_for_end(stopped) == "COMPLETED", job.log
    assert lab.state(other) == "RUNNING"
    (folders["444"] / "stop").touch()
    assert lab.wait_for_end(other) == "COMPLETED", job.log
    assert (lab.starts(stopped), lab.starts(other)) == (1, 1)
    lives = [(value(call, "--input_size"), call["restarts"]) for call in job.calls]
    assert sorted(lives) == [("444", 0), ("444", 1), ("572", 0), ("572", 1)]


@pytest.mark.slurm
@pytest.mark.slow
def test_time_limit_becomes_a_stop_file_and_a_requeue(lab: Lab, jobs: dict[str, Job]) -> None:
    job = jobs["time limit"]
    assert lab.wait_for_end(job.id) == "COMPLETED", job.log
    assert [call["restarts"] for call in job.calls] == [0, 1]
    assert "Saved at step 7; back in the queue." in job.log
    assert "Done." in job.log  # one log over both lives


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.sbatch")))
def test_script_begins_with_its_requests(script: str) -> None:
    lines = (SCRIPTS / script).read_text(encoding="utf-8").splitlines()
    requests = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert requests == list(range(1, len(requests) + 1))
    assert len(lines) <= 60


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck; on Debian: apt install shellcheck")
def test_shell_scripts_are_clean() -> None:
    scripts = [*ROOT.glob("launch/*.sh"), *SCRIPTS.glob("*.sbatch"), SCRIPTS / "job.sh", ROOT / ".ci/run"]
    result = subprocess.run(["shellcheck", "-x", *scripts], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
