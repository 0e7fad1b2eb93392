"""Proves that the memory format of training follows device and wish, and that what a run computes, saves and resumes does
not follow it: what a GPU does with channels last is done here on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from unet_dist.cli import main
from unet_dist.machine.memory_format import choose_memory_format, memory_format_of
from unet_dist.models.segformer import SegFormer
from unet_dist.models.unet import UNet
from unet_dist.runs.metrics_log import read_metrics

LAST, CONTIGUOUS = torch.channels_last, torch.contiguous_format
TINY: dict[str, Any] = {
    "synthetic_images": 9, "synthetic_size": "48x80", "base_channels": 4, "depth": 2, "norm": "weight", "input_size": 60,
    "batch_size": 4, "micro_batch_size": 2, "ema_decay": 0.9, "max_grad_norm": 1.0, "loss": "cross_entropy+dice",
    "total_steps": 4, "eval_steps": 2, "log_steps": 1, "trackers": "[]", "mixed_precision": "no",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _alone(own_process: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield
    torch.use_deterministic_algorithms(False)  # the debug mode sets it for good


def train(folder: Path, **keys: Any) -> list[float]:
    """Train a tiny run; returns the losses of its steps."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    keys = {**TINY, "cache_path": folder.parent / "cache", "output_path": folder, **keys}
    with pytest.raises(SystemExit) as leaving:
        main(["train", *(f"--{key}={value}" for key, value in keys.items())])
    assert not leaving.value.code
    return [r["loss"] for r in read_metrics(folder / "metrics.jsonl") if r["split"] == "train"]


@pytest.mark.parametrize(
    ("wish", "device_type", "capability", "chosen"),
    [
        ("auto", "cuda", "AVX2", LAST),
        ("auto", "cpu", "AVX512", LAST),
        ("auto", "cpu", "AVX2", CONTIGUOUS),
        ("auto", "cpu", "DEFAULT", CONTIGUOUS),
        ("contiguous", "cuda", "AVX512", CONTIGUOUS),
        ("contiguous", "cpu", "AVX512", CONTIGUOUS),
        ("channels_last", "cpu", "AVX2", LAST),
    ],
)
def test_the_fastest_of_the_device_unless_another_is_wished(
    monkeypatch: pytest.MonkeyPatch, wish: str, device_type: str, capability: str, chosen: torch.memory_format
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert choose_memory_format(wish, device_type) == chosen


def test_a_transformer_takes_it_on_a_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert UNet.is_convolutional
    assert not SegFormer.is_convolutional
    formats = [choose_memory_format("auto", device_type, is_convolutional=False) for device_type in ("cpu", "cuda")]
    assert formats == [CONTIGUOUS, LAST]


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("memory_format", [LAST, CONTIGUOUS])
def test_a_network_says_in_which_it_is(in_channels: int, memory_format: torch.memory_format) -> None:
    model = UNet(in_channels, 5, base_channels=2, depth=1).to(memory_format=memory_format)
    assert memory_format_of(model) == memory_format


def test_a_run_is_the_same_in_both(tmp_path: Path) -> None:
    runs = [train(tmp_path / wish, memory_format=wish, dtype="float64") for wish in ("contiguous", "channels_last")]
    assert len(runs[0]) == 4
    assert runs[0] == pytest.approx(runs[1], rel=1e-10)
    for name in ("last/model", "best/model", "checkpoints/step-00000004/optimizer"):
        files = [load_file(tmp_path / wish / f"{name}.safetensors") for wish in ("contiguous", "channels_last")]
        assert files[0].keys() == files[1].keys(), name
        assert all(torch.allclose(files[0][key], files[1][key], rtol=1e-8, atol=1e-10) for key in files[0]), name


@pytest.mark.slow
def test_channels_last_resumes_to_the_byte_and_goes_on_in_the_other(tmp_path: Path) -> None:
    undisturbed = train(tmp_path / "undisturbed", memory_format="channels_last")
    for wish, tolerance in (("channels_last", 0.0), ("contiguous", 1e-3)):
        folder = tmp_path / wish
        train(folder, memory_format="channels_last", total_steps=4)
        (folder / "checkpoints/step-00000004").rename(tmp_path / f"later-{wish}")  # as if it had ended after step 2
        assert train(folder, memory_format=wish) == pytest.approx(undisturbed, rel=tolerance, abs=0.0)
    ends = [(tmp_path / name / "last/model.safetensors").read_bytes() for name in ("undisturbed", "channels_last")]
    assert ends[0] == ends[1]


def test_the_debug_mode_takes_channels_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(
        tmp_path / "run",
        debug=True,
        memory_format="channels_last",
        loss="cross_entropy",
        base_channels=8,
        learning_rate=0.01,
        total_steps=80,
    )
    assert "steps made again: the same bits" in capsys.readouterr().out
