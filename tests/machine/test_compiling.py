"""Proves what compiling leaves alone: the run's losses, its files and their names; and that its lack is one sentence.

The backend aot_eager captures both passes in one graph, as any would, and runs it uncompiled: in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from unet_dist.assembly.training import _backend
from unet_dist.cli import main
from unet_dist.config.sections import Config
from unet_dist.machine import compiling
from unet_dist.machine.compiling import CompiledNetwork, choose_backend, compile_static, is_compiled, uncompiled
from unet_dist.models.unet import UNet
from unet_dist.processes.batch_norm import share_statistics
from unet_dist.processes.group import open_processes
from unet_dist.runs.metrics_log import read_metrics
from unet_dist.terminal import Teller
from unet_dist.training.trainer import Trainer

INDUCTOR_WARNS = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
TINY: dict[str, Any] = {
    "synthetic_images": 9, "synthetic_size": "48x80", "base_channels": 2, "depth": 2, "input_size": 60, "batch_size": 4,
    "micro_batch_size": 2, "ema_decay": 0.9, "max_grad_norm": 1.0, "loss": "cross_entropy+dice", "dropout": 0.1,
    "total_steps": 3, "eval_steps": 2, "log_steps": 1, "dtype": "float64", "trackers": "[]", "deep_supervision": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "ACCELERATE_DYNAMO_BACKEND"):
        monkeypatch.delenv(key, raising=False)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def train(folder: Path, **keys: Any) -> list[float]:
    """Train a tiny run; returns the losses of its steps."""
    keys = {**TINY, "cache_path": folder.parent / "cache", "output_path": folder, **keys}
    with pytest.raises(SystemExit) as leaving:
        main(["train", *(f"--{key}={value}" for key, value in keys.items())])
    assert not leaving.value.code
    return [r["loss"] for r in read_metrics(folder / "metrics.jsonl") if r["split"] == "train"]


def no_compiler() -> Any:
    """What CXX=/nowhere/c++ is to a new process."""
    from torch._inductor import config

    return config.patch({"cpp.cxx": (None, "/nowhere/c++")})


@pytest.mark.parametrize(
    ("wish", "launched", "backend"),
    [
        (False, None, None),
        (False, "no", None),
        (True, None, "inductor"),
        (True, "NO", "inductor"),
        (False, "AOT_EAGER", "aot_eager"),
        (True, "aot_eager", "aot_eager"),
    ],
)
def test_the_launcher_is_honoured(wish: bool, launched: str | None, backend: str | None) -> None:
    environment = {} if launched is None else {"ACCELERATE_DYNAMO_BACKEND": launched}
    assert choose_backend(wish, environment) == backend


@pytest.mark.slow
def test_a_compiled_run_is_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = train(tmp_path / "plain")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "aot_eager")
    compiled = train(tmp_path / "compiled")
    assert "The network is compiled, by aot_eager: " in capsys.readouterr().out
    assert len(plain) == 3
    assert compiled == pytest.approx(plain, rel=1e-10)
    for name in ("last/model", "best/model", "checkpoints/step-00000002/model", "checkpoints/step-00000003/optimizer"):
        files = [load_file(tmp_path / run / f"{name}.safetensors") for run in ("plain", "compiled")]
        assert files[0].keys() == files[1].keys(), name
        assert all(torch.allclose(files[0][key], files[1][key], rtol=1e-8, atol=1e-10) for key in files[0]), name
    # An interrupted run resumes with the other of the two.
    (tmp_path / "compiled/checkpoints/step-00000003").rename(tmp_path / "later")
    monkeypatch.delenv("ACCELERATE_DYNAMO_BACKEND")
    assert train(tmp_path / "compiled") == pytest.approx(plain, rel=1e-10)
    # And with what it ran by, coarse heads and all, to the byte.
    kept = {
        name: (tmp_path / f"plain/{name}.safetensors").read_bytes()
        for name in ("checkpoints/step-00000003/model", "last/model")
    }
    (tmp_path / "plain/checkpoints/step-00000003").rename(tmp_path / "later-plain")
    assert train(tmp_path / "plain") == plain
    assert kept == {name: (tmp_path / f"plain/{name}.safetensors").read_bytes() for name in kept}
    assert "heads.0.weight" in load_file(tmp_path / "plain/checkpoints/step-00000003/model.safetensors")


def test_the_network_itself_stays_uncompiled() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with open_processes(mixed_precision="no") as processes:
        compiled = processes.prepare(model, "aot_eager")
        assert compiled is not model
        assert all(a is b for a, b in zip(compiled.parameters(), model.parameters(), strict=True))
        assert list(model.state_dict()) == ["0.weight", "0.bias"]
        assert processes.prepare(model) is model


def test_a_graph_break_is_an_error_and_no_slow_remainder() -> None:
    def breaks(x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x

    compiled = compile_static(breaks, "aot_eager")
    with pytest.raises(RuntimeError, match="break"):
        compiled(torch.ones(2))
    with uncompiled():
        assert compiled(torch.ones(2)).tolist() == [2, 2]


def test_a_network_that_breaks_the_graph_runs_uncompiled_with_one_sentence() -> None:
    class Breaks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.sum() > 0 else x

    said: list[str] = []
    network = CompiledNetwork(Breaks(), "aot_eager", said.append)
    assert is_compiled(network)
    for _ in range(3):
        assert network(torch.ones(2)).tolist() == [2, 2]
    assert len(said) == 1
    assert said[0].startswith("compile: aot_eager does not work here, so the network runs uncompiled: ")
    assert not is_compiled(network)


def test_more_shapes_than_are_compiled_are_computed_uncompiled() -> None:
    said: list[str] = []
    network = CompiledNetwork(nn.ReLU(), "aot_eager", said.append)
    with torch._dynamo.config.patch(cache_size_limit=2):
        for size in range(2, 7):
            assert network(-torch.ones(size)).tolist() == [0] * size
    assert len(said) == 1
    # torch 2.6 ends otherwise there, in its own words
    assert (
        "its windows have more shapes than the 2 that are compiled" in said[0] or "cache_size_limit reached" in said[0]
    )


def test_lack_of_memory_is_no_failure_of_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(compiling, "compile_static", lambda *_: Full())
    network = CompiledNetwork(nn.ReLU(), "aot_eager", pytest.fail)
    with pytest.raises(torch.OutOfMemoryError):
        network(torch.ones(2))
    assert network.obstacle is None


def test_an_unknown_backend_is_named() -> None:
    said: list[str] = []
    assert not is_compiled(CompiledNetwork(nn.ReLU(), "fastest", said.append))
    assert "Invalid backend" in said[0]


@INDUCTOR_WARNS
@pytest.mark.filterwarnings("ignore:Skipping serialization:UserWarning")  # of torch 2.6
@pytest.mark.slow
def test_without_a_compiler_the_run_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with no_compiler():
        assert len(train(tmp_path / "run", compile=True)) == 3
    said = capsys.readouterr().out
    assert said.count("compile: inductor does not work here, so the network runs uncompiled: ") == 1
    assert "C++ compiler" in said, said


def test_the_network_itself_is_tried_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that all processes compute alike, and the weights of a step are made together, as without compiling."""
    forward, step, seen = UNet.forward, Trainer.step, []

    def undecided(self: UNet, images: torch.Tensor, dropout_keys: torch.Tensor | None = None) -> torch.Tensor:
        return forward(self, -images if images.sum() > 1e9 else images, dropout_keys)  # no single graph holds both ways

    def noted(self: Trainer, *arguments: Any) -> torch.Tensor:
        seen.append(is_compiled(self.parts.wrapped))
        return step(self, *arguments)

    monkeypatch.setattr(UNet, "forward", undecided)
    monkeypatch.setattr(Trainer, "step", noted)
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "aot_eager")
    assert len(train(tmp_path / "run")) == 3
    assert seen == [False] * 3
    said = capsys.readouterr().out
    assert said.count("compile: aot_eager does not work here, so the network runs uncompiled: ") == 1


@pytest.mark.slow
def test_the_trial_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in running statistics nor in random numbers."""
    plain = train(tmp_path / "plain", norm="batch", dropout=0.3)
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "aot_eager")
    assert train(tmp_path / "compiled", norm="batch", dropout=0.3) == pytest.approx(plain, rel=1e-10)
    files = [load_file(tmp_path / run / "last/model.safetensors") for run in ("plain", "compiled")]
    assert all(torch.allclose(files[0][key], files[1][key], rtol=1e-8, atol=1e-10) for key in files[0])


def test_batch_norm_over_processes_is_named_and_stays_uncompiled(capsys: pytest.CaptureFixture[str]) -> None:
    model = share_statistics(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
    with open_processes(mixed_precision="no") as processes:
        assert _backend(Config(compile=True), model, processes, Teller(speaks=True)) is None
    assert "compile: batch normalisation over several GPUs is a collective" in capsys.readouterr().out
