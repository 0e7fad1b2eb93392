"""Proves that restored = saved to the last bit, and that a damaged or failed checkpoint costs no earlier one."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unet_dist.config.sections import ScheduleConfig
from unet_dist.errors import CheckpointError
from unet_dist.runs.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    average_weights,
    list_checkpoints,
    newest_whole,
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    state_digest,
    write_checkpoint,
)
from unet_dist.training.optimizer import build_optimizer, set_step

SCHEDULE = ScheduleConfig(total_steps=20, learning_rate=1e-2)


def build(
    seed: int = 0, channels: int = 3, dtype: torch.dtype = torch.float32
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network with parameters, running statistics and a counter, and its optimizer."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, channels, 3), nn.BatchNorm2d(channels), nn.Conv2d(channels, 2, 1)).to(dtype)
    return model, build_optimizer(model, SCHEDULE)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    """Make the steps `first` to `last`: a pure function of the state and the step."""
    dtype = next(model.parameters()).dtype
    for step in range(first, last + 1):
        images = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(step)).to(dtype)
        set_step(optimizer, SCHEDULE, step)
        model(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def saved(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Checkpoint:
    return Checkpoint(
        step=step,
        model=dict(model.state_dict()),
        optimizer=optimizer_tensors(model, optimizer),
        config={"seed": 0, "trackers": ["tensorboard"]},
        progress={"best_miou": 0.1 + 0.2, "scaler": None},
    )


@pytest.fixture
def checkpoint() -> Checkpoint:
    model, optimizer = build()
    train(model, optimizer, 1, 3)
    return saved(model, optimizer, 3).on_host()


def assert_same(now: dict[str, Tensor], then: dict[str, Tensor]) -> None:
    assert now.keys() == then.keys()
    for name, tensor in now.items():
        assert (tensor.dtype, tensor.shape) == (then[name].dtype, then[name].shape), name
        assert torch.equal(tensor, then[name]), name


# ---------------------------------------------------------------------------------------------------------- restoring


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_resumed_run_ends_like_the_uninterrupted_one(tmp_path: Path, dtype: torch.dtype) -> None:
    """Weights, running statistics and moments, to the last bit, through the files."""
    model, optimizer = build(dtype=dtype)
    train(model, optimizer, 1, 3)
    path = write_checkpoint(tmp_path, saved(model, optimizer, 3))
    assert path == tmp_path / "step-00000003"

    found = read_checkpoint(path)
    assert_same(found.model, saved(model, optimizer, 3).model)
    assert_same(found.optimizer, saved(model, optimizer, 3).optimizer)
    assert (found.step, found.config) == (3, {"seed": 0, "trackers": ["tensorboard"]})
    assert found.progress == {"best_miou": 0.1 + 0.2, "scaler": None}

    resumed, resumed_optimizer = build(seed=1, dtype=dtype)
    resumed.load_state_dict(found.model)
    restore_optimizer(resumed, resumed_optimizer, found.optimizer)
    train(model, optimizer, 4, 8)
    train(resumed, resumed_optimizer, 4, 8)
    assert_same(saved(resumed, resumed_optimizer, 8).model, saved(model, optimizer, 8).model)
    assert_same(saved(resumed, resumed_optimizer, 8).optimizer, saved(model, optimizer, 8).optimizer)


def test_copy_on_the_host_is_not_changed_by_later_steps(tmp_path: Path) -> None:
    model, optimizer = build()
    train(model, optimizer, 1, 2)
    writer = CheckpointWriter(tmp_path, keep=2)
    before = saved(model, optimizer, 2).on_host()
    writer.write(saved(model, optimizer, 2))
    train(model, optimizer, 3, 4)
    writer.close()
    assert_same(read_checkpoint(tmp_path / "step-00000002").model, before.model)
    assert not torch.equal(next(model.parameters()), before.model["0.weight"])


def test_optimizer_of_another_model_is_refused(checkpoint: Checkpoint) -> None:
    model, optimizer = build(channels=4)
    with pytest.raises(CheckpointError, match=r"exp_avg\.0\.weight: got shape \(3, 2, 3, 3\), expected \(4, 2, 3, 3\)"):
        restore_optimizer(model, optimizer, checkpoint.optimizer)
    model, optimizer = build()
    others = {name: value for name, value in checkpoint.optimizer.items() if not name.endswith(".2.bias")}
    with pytest.raises(CheckpointError, match=r"got no state for parameter 2\.bias, expected some"):
        restore_optimizer(model, optimizer, others)


# ------------------------------------------------------------------------------------------------------------- damage


def flip_a_bit(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def edit_state(folder: Path, **changes: Any) -> None:
    """Change what a state says, as its writer would: with the digest of what it says then."""
    state = {**json.loads((folder / "state.json").read_text()), **changes}
    if "state.json" in state["sha256"]:
        state["sha256"]["state.json"] = state_digest(state)
    (folder / "state.json").write_text(json.dumps(state))


def change_a_digit(folder: Path, key: str) -> None:
    text = (folder / "state.json").read_text()
    changed = re.sub(rf'("{key}": )\d', r"\g<1>7", text, count=1)
    assert changed != text
    (folder / "state.json").write_text(changed)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "header": (lambda f: flip_a_bit(f / "model.safetensors", 0), "model.safetensors: damaged: its SHA-256"),
    "tensor byte": (lambda f: flip_a_bit(f / "optimizer.safetensors", -1), "optimizer.safetensors: damaged: its SHA-256"),
    "truncated": (lambda f: os.truncate(f / "model.safetensors", 200), "model.safetensors: damaged: its SHA-256"),
    "empty": (lambda f: os.truncate(f / "model.safetensors", 0), "model.safetensors: damaged: its SHA-256"),
    "no model": (lambda f: (f / "model.safetensors").unlink(), "not a whole checkpoint: model.safetensors is missing."),
    "no moments": (lambda f: (f / "optimizer.safetensors").unlink(), "optimizer.safetensors is missing."),
    "no state": (lambda f: (f / "state.json").unlink(), "not a whole checkpoint: state.json is missing."),
    "half JSON": (lambda f: os.truncate(f / "state.json", 40), "state.json is damaged: Expecting value"),
    "not text": (lambda f: (f / "state.json").write_bytes(b"\xff\xfe\x00"), "state.json cannot be read: 'utf-"),
    "other JSON": (lambda f: (f / "state.json").write_text("[1]"), "state.json: got a list, expected an object"),
    "lacks a key": (lambda f: (f / "state.json").write_text('{"version": 1}'), 'got an object without "config"'),
    "other version": (lambda f: edit_state(f, version=2), "got version 2, expected 1. Resume it with the release that wrote it."),
    "a digit of a setting": (lambda f: change_a_digit(f, "seed"), "state.json: damaged: its SHA-256 is not the one it names."),
    "a digit of the step": (lambda f: change_a_digit(f, "step"), "state.json: damaged: its SHA-256 is not the one it names."),
    "no digests": (lambda f: edit_state(f, sha256={}), "damaged: KeyError: "),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_checkpoint_is_named_and_the_next_older_taken(
    tmp_path: Path, checkpoint: Checkpoint, kind: str
) -> None:
    for step in (2, 3):
        write_checkpoint(tmp_path, replace(checkpoint, step=step))
    damage, complaint = DAMAGES[kind]
    damage(tmp_path / "step-00000003")
    said: list[str] = []
    found = newest_whole(tmp_path, said.append)
    assert found is not None
    assert found.step == 2
    assert_same(found.model, checkpoint.model)
    assert len(said) == 1
    assert said[0].startswith(str(tmp_path / "step-00000003"))
    assert complaint in said[0]
    assert said[0].endswith(" Taking the next older one.")


def test_all_damaged_is_an_error_and_none_is_a_new_run(tmp_path: Path, checkpoint: Checkpoint) -> None:
    said: list[str] = []
    assert newest_whole(tmp_path / "nowhere", said.append) is None
    assert newest_whole(tmp_path, said.append) is None
    for step in (2, 3):
        flip_a_bit(write_checkpoint(tmp_path, replace(checkpoint, step=step)) / "model.safetensors", -1)
    with pytest.raises(CheckpointError, match=r"got 2 checkpoint\(s\), all damaged; expected a whole one\. Start anew"):
        newest_whole(tmp_path, said.append)


def test_nothing_is_unpickled(tmp_path: Path, checkpoint: Checkpoint) -> None:
    """A file that torch.load would execute is damage like any other."""

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "executed"),))

    path = write_checkpoint(tmp_path, checkpoint)
    torch.save({"a": Bomb()}, path / "model.safetensors")
    from unet_dist.storage.files import digest

    edit_state(path, sha256={name: digest(path / name) for name in ("model.safetensors", "optimizer.safetensors")})
    with pytest.raises(CheckpointError, match="damaged: SafetensorError"):
        read_checkpoint(path)
    assert not (tmp_path / "executed").exists()


def test_state_of_the_first_checkpoints_is_read_without_its_own_digest(tmp_path: Path, checkpoint: Checkpoint) -> None:
    path = write_checkpoint(tmp_path, checkpoint)
    digests = json.loads((path / "state.json").read_text())["sha256"]
    del digests["state.json"]
    edit_state(path, sha256=digests)
    assert_same(read_checkpoint(path).model, checkpoint.model)


# ------------------------------------------------------------------------------------------------- writing and keeping


def test_only_the_newest_are_kept_and_what_is_not_a_checkpoint_stays(tmp_path: Path, checkpoint: Checkpoint) -> None:
    (tmp_path / "step-00000001.txt").write_text("mine")
    (tmp_path / "notes").mkdir()
    writer = CheckpointWriter(tmp_path, keep=2)
    for step in (1, 2, 10, 100000000):
        writer.write(replace(checkpoint, step=step))
    writer.close()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000010", "step-100000000"]
    assert {path.name for path in tmp_path.iterdir()} - {path.name for path in list_checkpoints(tmp_path)} == {
        *("step-00000001.txt", "notes")
    }


def test_half_written_and_half_replaced_ones_are_passed_over(tmp_path: Path, checkpoint: Checkpoint) -> None:
    """What a kill leaves: a folder beside that was not renamed, or an old one moved away before its successor came."""
    write_checkpoint(tmp_path, replace(checkpoint, step=2))
    shutil.copytree(tmp_path / "step-00000002", tmp_path / ".step-00000007.partial")
    os.truncate(tmp_path / ".step-00000007.partial/model.safetensors", 100)
    write_checkpoint(tmp_path, replace(checkpoint, step=3))
    os.rename(tmp_path / "step-00000003", tmp_path / ".step-00000003.old")
    found = newest_whole(tmp_path, pytest.fail)
    assert found is not None
    assert found.step == 3
    write_checkpoint(tmp_path, replace(checkpoint, step=4))
    assert {path.name for path in tmp_path.iterdir()} == {f"step-0000000{step}" for step in (2, 3, 4)}


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """The kernel refuses to let a file grow beyond: what a full disk looks like, to root too."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("num_bytes", [100, 900])
def test_full_disk_is_named_and_costs_no_earlier_checkpoint(
    tmp_path: Path, checkpoint: Checkpoint, num_bytes: int
) -> None:
    """Full in the weights, or in the moments after the weights: the write behind is reported at the next one."""
    writer = CheckpointWriter(tmp_path, keep=1)
    writer.write(replace(checkpoint, step=2))
    writer.wait()
    sizes = [path.stat().st_size for path in (tmp_path / "step-00000002").iterdir()]
    assert any(size > num_bytes for size in sizes)
    with largest_file(num_bytes):
        writer.write(replace(checkpoint, step=3))
        with pytest.raises(CheckpointError) as failure:
            writer.wait()
    assert str(failure.value).startswith(f"{tmp_path}/step-00000003 could not be written: ")
    assert "File too large" in str(failure.value)
    assert str(failure.value).endswith(" start the same command again. Earlier checkpoints are untouched.")
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
    found = newest_whole(tmp_path, pytest.fail)
    assert found is not None
    assert found.step == 2
    writer.write(replace(checkpoint, step=3))  # there is room again
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def test_folder_that_is_none_is_named(tmp_path: Path, checkpoint: Checkpoint) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(CheckpointError, match=r"checkpoints/step-00000003 could not be written: "):
        write_checkpoint(tmp_path / "checkpoints", checkpoint)
    assert (tmp_path / "checkpoints").read_text() == "a file"


def test_average_of_the_newest_checkpoints(tmp_path: Path) -> None:
    model, optimizer = build()
    states = []
    for step in (1, 2, 3):
        train(model, optimizer, step, step)
        write_checkpoint(tmp_path, saved(model, optimizer, step).on_host())
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    average = average_weights(tmp_path, 2)
    expected = ((states[1]["0.weight"].double() + states[2]["0.weight"].double()) / 2).float()
    assert torch.equal(average["0.weight"], expected)
    assert not torch.equal(expected, states[2]["0.weight"])
    assert average["1.num_batches_tracked"].item() == 3
    with pytest.raises(
        CheckpointError, match=r"holds 3 checkpoints, expected 4 to average\. Train with --keep_checkpoints 4"
    ):
        average_weights(tmp_path, 4)


def test_weights_for_a_model_folder_come_by_the_buffer_of_the_checkpoints(tmp_path: Path) -> None:
    """In memory of their own, which the next checkpoint does not change; one tensor of two names stays one."""
    writer = CheckpointWriter(tmp_path, keep=1)
    tensors = {"a": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), "count": torch.tensor(7)}
    tensors["tied"] = tensors["a"]
    got = writer.on_host(tensors)
    assert all(torch.equal(got[name], tensor) and got[name].is_contiguous() for name, tensor in tensors.items())
    assert got["tied"] is got["a"]
    assert got["a"].untyped_storage().nbytes() == 4 * tensors["a"].numel()
    assert got["a"].data_ptr() != tensors["a"].data_ptr()
    writer.close()
