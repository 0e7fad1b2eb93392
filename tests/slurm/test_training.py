"""Proves that SLURM loses no step: a two-node training preempted at random moments ends with the undisturbed run's weights.

Real SLURM, real scripts, real launcher, real training of a tiny network by gloo on the CPU.
"""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path

import pytest

from tests.slurm.checkout import ACCELERATE, Job, make_root
from tests.slurm.lab import Lab, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.processes, pytest.mark.timeout(900), pytest.mark.slow]

TOTAL_STEPS = 120
TRAINING = {
    "synthetic_images": 10,
    "synthetic_size": "90x120",
    "base_channels": 4,
    "depth": 2,
    "input_size": 124,
    "batch_size": 4,
    "total_steps": TOTAL_STEPS,
    "eval_steps": 40,
    "log_steps": 1,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the real accelerate."""
    return make_root(tmp_path_factory.mktemp("root"), ACCELERATE)


def submit(lab: Lab, root: Path, run: str) -> Job:
    """Submit the training on two nodes, one process each."""
    keys = {**TRAINING, "cache_path": root / "cache", "output_path": run}
    words = [str(word) for key, value in keys.items() for word in (f"--{key}", value)]
    options = ("--gpus-per-node=0", "--cpus-per-task=1", f"--output={root}/slurm-{run}-%j.log")
    return Job(lab.submit("launch/slurm/several_nodes.sbatch", *words, cwd=root, options=options), root)


def logged_step(folder: Path) -> int:
    """The last step whose loss was written, 0 before the first."""
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    steps = [json.loads(line)["step"] for line in lines if line.endswith("}")]
    return max(steps, default=0)


def has_reached(folder: Path, step: int) -> bool:
    """Tell whether the run in a folder got to a step."""
    return logged_step(folder) >= step


def has_come_back(lab: Lab, job: Job, times: int) -> bool:
    """Tell whether the job was put back in the queue so many times."""
    return lab.starts(job.id) == times


def weights(folder: Path) -> dict[str, bytes]:
    """The model files that a finished run leaves."""
    return {name: (folder / name / "model.safetensors").read_bytes() for name in ("best", "last")}


@pytest.fixture(scope="module")
def undisturbed(lab: Lab, root: Path) -> dict[str, bytes]:
    """The weights of the run that nobody stopped."""
    job = submit(lab, root, "undisturbed")
    assert lab.wait_for_end(job.id) == "COMPLETED", job.log
    return weights(root / "undisturbed")


def test_preempted_three_times_ends_like_the_undisturbed(lab: Lab, root: Path, undisturbed: dict[str, bytes]) -> None:
    job = submit(lab, root, "preempted")
    rng = random.Random()
    for life in range(3):
        # A moment within the next steps of this life; the last life is left enough to do.
        moment = logged_step(root / "preempted") + rng.randint(1, TOTAL_STEPS // 8)
        wait_until(partial(has_reached, root / "preempted", moment), 400, lambda: job.log)
        lab.preempt(job.id)
        wait_until(partial(has_come_back, lab, job, life + 1), 400, lambda: job.log)
    assert lab.wait_for_end(job.id) == "COMPLETED", job.log
    assert lab.starts(job.id) == 3
    assert weights(root / "preempted") == undisturbed


def test_cancelled_stays_cancelled_and_resumes_when_asked(lab: Lab, root: Path, undisturbed: dict[str, bytes]) -> None:
    job = submit(lab, root, "cancelled")
    wait_until(lambda: logged_step(root / "cancelled") >= 10, 400, lambda: job.log)
    lab.run("scancel", job.id)
    assert lab.wait_for_end(job.id) == "CANCELLED", job.log
    assert not (root / "cancelled/requeue").exists()
    assert list((root / "cancelled/checkpoints").glob("step-*")), job.log  # saved on the way out: step 40 is far
    again = submit(lab, root, "cancelled")
    assert lab.wait_for_end(again.id) == "COMPLETED", again.log
    assert weights(root / "cancelled") == undisturbed
