"""Proves how config, launcher and device settle on precision and accumulation, and which launches are refused as they are."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from unet_dist.cli import run
from unet_dist.errors import ConfigError, ExtraError, LaunchError
from unet_dist.processes import group as distributed
from unet_dist.processes.launcher import launcher_accumulation
from unet_dist.processes.precision import has_fast_bf16, resolve_precision

NO, FP16, BF16 = ({"ACCELERATE_MIXED_PRECISION": word} for word in ("no", "fp16", "bf16"))


@pytest.mark.parametrize(
    ("wish", "launcher", "device", "fast_bf16", "precision"),
    [
        # Nobody says anything, or accelerate launch exports its default: as the device is.
        ("auto", {}, "cuda", True, "bf16"),
        ("auto", {}, "cuda", False, "no"),
        ("auto", {}, "cpu", True, "bf16"),
        ("auto", {}, "cpu", False, "no"),
        ("auto", NO, "cuda", True, "bf16"),
        # The launcher wishes.
        ("auto", BF16, "cuda", False, "bf16"),
        ("auto", FP16, "cuda", True, "fp16"),
        ("bf16", BF16, "cuda", False, "bf16"),
        # The config wishes, and the launcher's default is no contradiction.
        ("no", {}, "cuda", True, "no"),
        ("no", NO, "cuda", True, "no"),
        ("fp16", NO, "cuda", True, "fp16"),
        ("bf16", NO, "cpu", False, "bf16"),
    ],
)
def test_precision(wish: Any, launcher: dict[str, str], device: str, fast_bf16: bool, precision: str) -> None:
    assert resolve_precision(wish, launcher, device, fast_bf16) == precision


@pytest.mark.parametrize(
    ("wish", "launcher", "device", "sentence"),
    [
        (
            "no",
            BF16,
            "cuda",
            "mixed_precision: got no from the config and bf16 from accelerate launch, expected one of them. Remove "
            "--mixed_precision on one side.",
        ),
        (
            "bf16",
            FP16,
            "cuda",
            "mixed_precision: got bf16 from the config and fp16 from accelerate launch, expected one of them. Remove "
            "--mixed_precision on one side.",
        ),
        ("fp16", {}, "cpu", "mixed_precision: got fp16 on a CPU, expected no or bf16 there. Set --mixed_precision no."),
        (
            "auto",
            FP16,
            "cpu",
            "mixed_precision: got fp16 on a CPU, expected no or bf16 there. Set --mixed_precision no.",
        ),
    ],
)
def test_precision_that_contradicts(wish: Any, launcher: dict[str, str], device: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        resolve_precision(wish, launcher, device, True)
    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    ("accelerator", "environment", "device"),
    [
        (None, {}, "cpu"),
        ("cuda", {}, "cuda"),
        ("cuda", {"ACCELERATE_USE_CPU": "False"}, "cuda"),  # what accelerate launch exports unasked
        ("cuda", {"ACCELERATE_USE_CPU": "True"}, "cpu"),
        ("cuda", {"ACCELERATE_USE_CPU": "1"}, "cpu"),
        ("xpu", {}, "xpu"),
        ("mps", {}, "cpu"),  # no float64
    ],
)
def test_device(accelerator: str | None, environment: dict[str, str], device: str) -> None:
    assert distributed.choose_device_type(accelerator, environment) == device


def test_apples_gpu_is_left_alone_by_accelerate_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import state

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    monkeypatch.setattr(state, "is_mps_available", lambda: True)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    state.AcceleratorState._reset_state(reset_partial_state=True)
    with distributed.open_processes(mixed_precision="no") as processes:
        assert processes.device == torch.device("cpu")
    state.AcceleratorState._reset_state(reset_partial_state=True)


def test_several_processes_on_one_gpu_are_refused() -> None:
    agent = {"TORCHELASTIC_RUN_ID": "none"}
    for fitting in ({}, {**agent, "LOCAL_WORLD_SIZE": "2"}, {"LOCAL_WORLD_SIZE": "4"}):
        distributed.refuse_shared_devices(fitting, 2)
    with pytest.raises(LaunchError) as refusal:
        distributed.refuse_shared_devices({**agent, "LOCAL_WORLD_SIZE": "4"}, 2)
    assert str(refusal.value) == (
        "num_processes: got 4 on this node, expected 2 at most, one for each GPU that is visible. Set a smaller --num_processes, "
        "or look at CUDA_VISIBLE_DEVICES (set to nothing, all processes compute on the CPU)."
    )


def test_bf16_is_fast_only_where_it_is_known_to_be() -> None:
    assert not has_fast_bf16("mps")
    assert has_fast_bf16("cpu") in (True, False)


@pytest.mark.parametrize(
    ("launched", "wish", "steps"), [(None, None, None), ("1", None, None), ("1", 4, 4), ("4", None, 4), ("4", 4, 4)]
)
def test_accumulation(launched: str | None, wish: int | None, steps: int | None) -> None:
    environment = {} if launched is None else {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": launched}
    assert launcher_accumulation(environment, wish) == steps


def test_accumulation_that_contradicts() -> None:
    with pytest.raises(ConfigError) as refusal:
        launcher_accumulation({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, 2)
    assert str(refusal.value) == (
        "gradient_accumulation_steps: got 2 from the config and 4 from accelerate launch, expected one of them. "
        "Remove --gradient_accumulation_steps on one side."
    )


def test_accelerate_does_not_divide_the_loss_by_the_launchers_accumulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is divided once, by the whole batch: a quarter of the gradient would hide behind AdamW."""
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    AcceleratorState._reset_state(reset_partial_state=True)
    weight = torch.ones(1, requires_grad=True)
    with distributed.open_processes(mixed_precision="no") as processes:
        processes.accelerator.backward((weight * 8).sum())
    AcceleratorState._reset_state(reset_partial_state=True)
    assert weight.grad is not None
    assert weight.grad.item() == 8


MEETING = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    "environment",
    [
        {
            "MASTER_PORT": "29500",
            "ACCELERATE_MIXED_PRECISION": "no",
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
        },  # a launcher's rank
        {"ACCELERATE_MIXED_PRECISION": "no"},  # accelerate launch of one process
        {"MASTER_PORT": "29500"},  # a cluster's environment
        {"SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_STEP_NUM_TASKS": "2", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", **MEETING},
        {"OMPI_COMM_WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", **MEETING},
        {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", **MEETING},
        MEETING,
        {"OMPI_COMM_WORLD_SIZE": "1"},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {},
    ],
)
def test_launch_that_is_what_it_says(environment: dict[str, str]) -> None:
    distributed.refuse_silent_single_process(environment)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (
            {"MASTER_PORT": "29500", "ACCELERATE_MIXED_PRECISION": "no"},
            "accelerate launch: got one process though several ",
        ),
        (
            {"SLURM_STEP_NUM_TASKS": "2"},
            "srun: got 2 tasks that know nothing of each other, expected one launcher per node.",
        ),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "pod-0", "MASTER_PORT": "23456"},
            "LOCAL_RANK: got none beside RANK 0 of 2 processes, expected the number of the process on its machine, by which it "
            "takes its GPU. Where each pod or machine runs one process, set LOCAL_RANK=0; ",
        ),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK: got 0 without RANK and WORLD_SIZE, expected all three or none."),
        (
            {"OMPI_COMM_WORLD_SIZE": "2"},
            "mpirun: got 2 processes (OMPI_COMM_WORLD_SIZE) that know nothing of each other",
        ),
        ({"PMI_SIZE": "4"}, "mpirun: got 4 processes (PMI_SIZE) that know nothing of each other, "),
    ],
)
def test_launch_that_would_train_several_times(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(LaunchError) as refusal:
        distributed.refuse_silent_single_process(environment)
    assert str(refusal.value).startswith(sentence)


def test_half_an_environment_is_refused_by_name() -> None:
    """Whatever is missing of what a launcher exports: torch ended in a traceback, or each process trained alone."""
    whole = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", **MEETING}
    for count in range(1, len(whole)):
        for keys in itertools.combinations(whole, count):
            if set(keys) <= set(MEETING):  # a cluster's environment: says nothing of others
                distributed.refuse_silent_single_process({key: whole[key] for key in keys})
                continue
            with pytest.raises(LaunchError, match=r"^(RANK|WORLD_SIZE|LOCAL_RANK|MASTER_ADDR|MASTER_PORT): got "):
                distributed.refuse_silent_single_process({key: whole[key] for key in keys})


@pytest.mark.parametrize("word", ["", "two", "-1", "2(x3)", "\u00b2"])
@pytest.mark.parametrize(
    "key", ["WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"]
)
def test_numbers_of_a_launcher_are_judged_before_they_are_read(
    key: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(key, word)
    with pytest.raises(LaunchError, match=f"^{key}: got .* from the launcher, expected a whole number"):
        run(["train", "--device", "cuda:0", "--data_path", "none"])


def test_trackers_are_known_and_installed() -> None:
    distributed._require_trackers(["tensorboard"])
    with pytest.raises(ConfigError, match=r"^trackers: got 'tensorbord', .* Did you mean \"tensorboard\"\?"):
        distributed._require_trackers(["tensorbord"])
    with pytest.raises(ExtraError, match=r"^trackers: aim is not installed\. Run pip install aim"):
        distributed._require_trackers(["aim"])


@pytest.mark.parametrize(
    ("environment", "has_gpu", "sign"),
    [
        ({"SLURM_GPUS_ON_NODE": "4"}, False, "SLURM_GPUS_ON_NODE is 4"),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, False, "CUDA_VISIBLE_DEVICES is 0,1"),
        ({}, True, "/dev/nvidia0 is there"),
        ({"ACCELERATE_USE_CPU": "false"}, True, "/dev/nvidia0 is there"),
    ],
)
def test_gpu_that_torch_cannot_use_is_no_silent_cpu(environment: dict[str, str], has_gpu: bool, sign: str) -> None:
    with pytest.raises(LaunchError) as refusal:
        distributed.refuse_idle_gpu(environment, has_gpu=has_gpu, why=lambda: "torch 2.13.0+cpu is a build for CPUs")
    assert str(refusal.value) == (
        f"device: got no usable GPU though {sign}: torch 2.13.0+cpu is a build for CPUs. Install a build of torch whose CUDA "
        "the driver knows (in the launch scripts UNET_DIST_TORCH=cuda, or cu126 and the like for an older driver), or ask for "
        "the CPU: CUDA_VISIBLE_DEVICES= before the command."
    )


@pytest.mark.parametrize(
    ("environment", "has_gpu"),
    [
        ({}, False),
        ({"SLURM_GPUS_ON_NODE": "0"}, False),
        ({"CUDA_VISIBLE_DEVICES": "", "SLURM_GPUS_ON_NODE": "4"}, True),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, True),
        ({"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "0"}, True),
    ],
)
def test_cpu_that_was_asked_for(environment: dict[str, str], has_gpu: bool) -> None:
    distributed.refuse_idle_gpu(environment, has_gpu=has_gpu, why=lambda: "nobody asks")


@pytest.mark.parametrize(("rank", "devices", "bypass"), [("1", 1, "true"), ("0", 1, None), ("3", 4, None)])
def test_process_that_sees_its_own_gpu_only(rank: str, devices: int, bypass: str | None) -> None:
    environment = {"LOCAL_RANK": rank}
    distributed.accept_own_device(environment, devices)
    assert environment.get("ACCELERATE_BYPASS_DEVICE_MAP") == bypass
