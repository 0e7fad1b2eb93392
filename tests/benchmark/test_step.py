"""Proves that the timing is of the run itself: the loop makes the steps that training makes, and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unet_dist.benchmark.ceilings import Ceilings
from unet_dist.benchmark.setting import Setting
from unet_dist.benchmark.step import pixels_of, read_seconds, run_loop, windows_of
from unet_dist.benchmark.subject import Limits
from unet_dist.training.parts import Progress
from unet_dist.training.trainer import Trainer

Build = Callable[..., Setting]


def weights(setting: Setting) -> list[torch.Tensor]:
    return [p.detach().clone() for p in setting.parts.model.parameters()]


def trained_by_hand(setting: Setting, steps: range) -> list[torch.Tensor]:
    parts = setting.parts
    trainer = Trainer(parts, Progress(step=steps.start - 1, evaluated_step=steps.start - 1))
    for step in steps:
        share = parts.shares[step]
        trainer.step(share, share.divisor(parts.loss))
    return weights(setting)


@pytest.mark.parametrize(("steps", "made"), [(4, range(2, 7)), (1, range(1, 3)), (5, range(2, 7))])
def test_the_loop_makes_the_steps_of_the_run(build: Build, tmp_path: Path, steps: int, made: range) -> None:
    """log_steps is 2: the first step of the loop ends a lap, which warms up; then come as many whole laps as there are steps."""
    expected = trained_by_hand(build(), made)
    setting = build()
    laps = run_loop(setting.parts, steps, tmp_path / "loop")
    assert len(laps) == max(1, steps // 2)
    assert all(lap.seconds > 0 and 0 <= lap.data_wait <= 1 for lap in laps)
    assert all(torch.equal(a, b) for a, b in zip(weights(setting), expected, strict=True))
    assert [path.name for path in (tmp_path / "loop").rglob("*") if path.is_file()] == ["metrics.jsonl"]


def test_the_bare_step_is_a_step_on_resident_data(build: Build) -> None:
    setting = build()
    share = setting.parts.shares[1]
    assert setting.subject.bare.seconds(1) > 0
    by_hand = trained_by_hand(build(), range(1, 2))
    assert all(torch.equal(a, b) for a, b in zip(weights(setting), by_hand, strict=True))
    assert (windows_of(share), pixels_of(share)) == (4, 4 * 60 * 60)


def test_tiles_and_micro_batches_count_as_windows(build: Build) -> None:
    setting = build(input_size=92, tile_size=60, batch_size=2, micro_batch_size=1)
    assert windows_of(setting.subject.bare.share) == 2 * 9
    one = build(input_size=60, batch_size=1)
    assert setting.amounts.flops == 2 * 9 * one.amounts.flops
    recomputing = build(input_size=60, batch_size=1, checkpoint_activations=True)
    assert recomputing.amounts.flops == one.amounts.flops  # what the model takes, not what is computed twice


@pytest.mark.parametrize("num_workers", [0, 1])
def test_data_path_alone(build: Build, num_workers: int) -> None:
    assert read_seconds(build(num_workers=num_workers).parts, 2) > 0


def test_prediction_is_that_of_the_saved_network(build: Build, tmp_path: Path) -> None:
    prediction: Any = build().subject.prediction
    assert prediction.seconds() > 0
    assert prediction.bare_seconds() > 0
    assert (prediction.pixels, prediction.image_shape) == (8 * 48 * 80, (48, 80))
    assert not list((tmp_path).rglob("*overlay*")), "outputs are removed"


def test_without_exact_tiles_there_is_no_prediction(build: Build) -> None:
    setting = build(norm="group")
    assert setting.subject.prediction is None


@pytest.mark.parametrize("loss", ["cross_entropy+dice", "focal+0.5*lovasz"])
def test_layers_of_any_loss(build: Build, loss: str) -> None:
    setting = build(loss=loss, ema_decay=0.9)
    before = weights(setting)
    layers = setting.layers(Ceilings(1e9, 1e9), Limits(rounds=1, steps=1, seconds=1.0))
    assert sum(layer.flops for layer in layers) == setting.amounts.flops
    assert any(not torch.equal(a, b) for a, b in zip(weights(setting), before, strict=True)), (
        "a step is made for its time"
    )
    assert not any(p.grad is not None and p.grad.any() for p in setting.parts.model.parameters())
