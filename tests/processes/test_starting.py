"""Proves what --processes and --device mean to a launcher and to the environment, and two processes started by the key."""

from __future__ import annotations

import doctest
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import unet_dist
from unet_dist.cli import main
from unet_dist.errors import ConfigError, LaunchError
from unet_dist.processes import starting
from unet_dist.processes.precision import choose_device_type
from unet_dist.processes.starting import (
    DEVICE_WISH,
    device_environment,
    is_launched,
    launch_command,
    num_gpus,
    past_a_clone,
    without_key,
)

FOLDER = Path("folder")


def test_launch_command_is_torchs_own_launcher() -> None:
    call = launch_command(["train", "--seed", "1"], 2, {}, folder=FOLDER)
    assert call[1:4] == ["-m", "unet_dist.processes.torchrun", "folder"]
    assert "--standalone" not in call, "its store listens on a port, and is unpickled"
    assert (
        call[call.index("--rdzv-id") + 1]
        != launch_command(["train"], 2, {}, folder=FOLDER)[call.index("--rdzv-id") + 1]
    )
    assert call[call.index("--nproc_per_node") + 1 :] == [
        "2",
        "-m",
        "unet_dist",
        "train",
        "--seed",
        "1",
        "--expected_processes",
        "2",
    ]
    assert launch_command(["train", "$HOME/a$$b"], 2, {}, folder=FOLDER)[-3] == "$$HOME/a$$$$b", "torch halves them"
    assert launch_command(["train", "--expected-processes", "3"], 2, {}, folder=FOLDER)[-2:] == [
        "--expected-processes",
        "3",
    ]


def test_processes_below_a_launcher_are_refused() -> None:
    with pytest.raises(
        LaunchError, match=r"^processes: got 2 below a launcher that has started 4, .* Remove --processes"
    ):
        launch_command(["train"], 2, {"RANK": "1", "WORLD_SIZE": "4"}, folder=FOLDER)


def test_processes_that_share_a_batch() -> None:
    assert doctest.testmod(starting) == doctest.TestResults(failed=0, attempted=1)


@pytest.mark.parametrize(
    ("environment", "launched"),
    [
        ({}, False),
        ({"SLURM_STEP_NUM_TASKS": "1", "OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"RANK": "0", "WORLD_SIZE": "1"}, True),
        ({"ACCELERATE_MIXED_PRECISION": "no"}, True),
    ],
)
def test_a_launcher_is_noticed_also_with_one_process(environment: dict[str, str], launched: bool) -> None:
    assert is_launched(environment) == launched


def test_gpus_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert [num_gpus(device) for device in ("auto", "cuda", "cuda:1", "cpu")] == [3, 3, 1, 0]


def test_words_without_a_key() -> None:
    words = ["c.yaml", "--processes", "2", "--seed", "1", "--processes=3", "--debug"]
    assert without_key(words, "processes") == ["c.yaml", "--seed", "1", "--debug"]


@pytest.mark.parametrize(
    ("device", "environment", "changes"),
    [
        ("auto", {}, {}),
        ("cpu", {}, {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}),
        ("cuda", {"WORLD_SIZE": "2"}, {DEVICE_WISH: "cuda"}),
        ("cuda:1", {}, {DEVICE_WISH: "cuda:1", "CUDA_VISIBLE_DEVICES": "1"}),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "4,GPU-ab"}, {DEVICE_WISH: "cuda:1", "CUDA_VISIBLE_DEVICES": "GPU-ab"}),
    ],
)
def test_device(device: str, environment: dict[str, str], changes: dict[str, str]) -> None:
    assert device_environment(device, environment) == changes


@pytest.mark.parametrize("environment", [{"CUDA_VISIBLE_DEVICES": "3"}, {"WORLD_SIZE": "2"}])
def test_device_that_is_not_there(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^device: got cuda:1"):
        device_environment("cuda:1", environment)


def test_gpu_by_name_is_no_cpu() -> None:
    with pytest.raises(ConfigError, match=r"^device: got cuda, and torch .* Set --device auto"):
        choose_device_type(None, {DEVICE_WISH: "cuda"})
    assert choose_device_type("cuda", {DEVICE_WISH: "cuda"}) == "cuda"
    assert choose_device_type("cuda", device_environment("cpu", {})) == "cpu"


@pytest.mark.slow
@pytest.mark.processes
def test_two_processes_by_the_key(tmp_path: Path) -> None:
    """The quick suite has launch_command above, the launcher in test_torchrun, and scripts on two processes in test_library."""
    words = ["--synthetic_images", "9", "--synthetic_size", "48x80", "--depth", "1", "--base_channels", "2"]
    words += ["--input_size", "44", "--batch_size", "2", "--total_steps", "2", "--eval_steps", "2", "--trackers", "[]"]
    command = [sys.executable, "-m", "unet_dist", "train", *words, "--processes", "2", "--device", "cpu"]
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "= 2 processes x" in found.stdout
    described = json.loads((tmp_path / "output" / "environment.json").read_text(encoding="utf-8"))
    assert described["starts"][-1]["processes"] == 2


def test_a_child_that_starts_beside_a_clone_finds_the_package(tmp_path: Path) -> None:
    """Not the clone's folder, which Python takes for a package without files."""
    assert past_a_clone(tmp_path) == {}
    (tmp_path / "unet_dist/unet_dist").mkdir(parents=True)
    assert past_a_clone(tmp_path) == {"PYTHONSAFEPATH": "1"}
    assert past_a_clone(Path(unet_dist.__file__).parents[1]) == {}, "the root of a checkout"


def test_a_caller_keeps_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python code beside a clone calls a command: what it starts afterwards finds its own modules."""
    (tmp_path / "unet_dist").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "PYTHONSAFEPATH" not in os.environ
