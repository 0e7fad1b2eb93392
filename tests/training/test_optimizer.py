"""Proves that the schedules are pure functions of the step, that onecycle is torch's, that AdamW and Muon update as published, and
that found_inf masks an update."""

from __future__ import annotations

import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unet_dist.assembly.objective import require_course
from unet_dist.config.sections import ScheduleConfig
from unet_dist.errors import ConfigError
from unet_dist.models.encoder_unet import EncoderUNet
from unet_dist.models.unet import UNet
from unet_dist.training.muon import BANKS, orthogonal
from unet_dist.training.optimizer import BETAS, build_optimizer, course, set_step


def courses(**keys: Any) -> tuple[list[float], list[float]]:
    """Learning rate and beta1 of every step."""
    schedule = ScheduleConfig(**keys)
    rates, momenta = zip(*(course(schedule)(step) for step in range(1, schedule.total_steps + 1)), strict=True)
    return list(rates), list(momenta)


@given(st.integers(1, 60), st.floats(0.0, 0.99), st.sampled_from([5e-4, 1.0, 3e-2]))
def test_onecycle_is_torchs_at_every_step(total_steps: int, warmup_fraction: float, peak: float) -> None:
    if warmup_fraction * total_steps == 1:
        warmup_fraction += 1e-9  # torch divides by zero where the rise is one step long
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=peak, betas=BETAS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimizer makes no step before the scheduler's
        theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps, pct_start=warmup_fraction)
        expected = []
        for step in range(1, total_steps + 1):
            group = optimizer.param_groups[0]
            expected.append((group["lr"], group["betas"][0]))
            if step < total_steps:
                theirs.step()
    rates, momenta = courses(
        schedule="onecycle", total_steps=total_steps, warmup_fraction=warmup_fraction, learning_rate=peak
    )
    assert rates == pytest.approx([rate for rate, _ in expected], rel=1e-9, abs=1e-15)
    assert momenta == pytest.approx([momentum for _, momentum in expected], rel=1e-9)


def test_onecycle_of_a_rise_of_one_step_starts_at_the_peak() -> None:
    rates, momenta = courses(total_steps=10, warmup_fraction=0.1, learning_rate=1.0)
    assert (rates[0], momenta[0]) == (1.0, 0.85)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "poly"])
@pytest.mark.parametrize(("total_steps", "warmup_fraction"), [(10, 0.3), (10, 0.0), (1, 0.0), (1, 0.9), (100, 0.99)])
def test_others_rise_in_a_line_and_never_rise_again(schedule: str, total_steps: int, warmup_fraction: float) -> None:
    rates, momenta = courses(
        schedule=schedule, total_steps=total_steps, warmup_fraction=warmup_fraction, learning_rate=2.0
    )
    warmup = round(warmup_fraction * total_steps)
    assert rates[:warmup] == pytest.approx([2.0 * step / warmup for step in range(1, warmup + 1)])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert max(rates) == 2.0
    assert min(rates) > 0, "the last step still learns"
    assert set(momenta) == {BETAS[0]}


def test_decays_by_hand() -> None:
    """Ten steps without warm-up: step 6 is half-way."""
    keys: dict[str, Any] = {"total_steps": 10, "warmup_fraction": 0.0, "learning_rate": 1.0}
    assert courses(schedule="constant", **keys)[0] == [1.0] * 10
    assert courses(schedule="cosine", **keys)[0][5] == pytest.approx(0.5)
    assert courses(schedule="poly", **keys)[0][5] == pytest.approx(0.5**0.9)
    assert courses(schedule="cosine", **keys)[0][9] == pytest.approx(0.5 * (1 - math.cos(0.1 * math.pi)))


# --------------------------------------------------------------------------------------------------------- optimizer


def small_network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3), nn.Conv2d(3, 2, 1)).to(dtype)


def backward(model: nn.Module, scale: float = 1.0) -> None:
    parameter = next(model.parameters())
    images = torch.linspace(-1, 1, 2 * 5 * 5, dtype=parameter.dtype).view(1, 2, 5, 5)
    model.zero_grad()
    (model(images).square().sum() * scale).backward()


def test_biases_and_gains_are_not_decayed() -> None:
    model = small_network()
    optimizer = build_optimizer(model, ScheduleConfig(weight_decay=0.05))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        "0.weight": 0.05,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "2.weight": 0.05,
        "2.bias": 0.0,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_update_is_adamw_as_published(dtype: torch.dtype) -> None:
    """Loshchilov and Hutter 2019, algorithm 2, two steps written out for the first weight, with the rates of the course."""
    schedule = ScheduleConfig(total_steps=4, learning_rate=1e-2, weight_decay=0.1)
    model = small_network(dtype)
    optimizer = build_optimizer(model, schedule)
    weight = next(model.parameters())
    expected = weight.detach().double().clone()
    first = second = torch.zeros_like(expected)
    for step in (1, 2):
        backward(model)
        assert weight.grad is not None
        gradient = weight.grad.double().clone()
        rate = set_step(optimizer, schedule, step)
        beta1 = course(schedule)(step)[1]
        assert rate == course(schedule)(step)[0]
        optimizer.step()
        first = beta1 * first + (1 - beta1) * gradient
        second = 0.999 * second + 0.001 * gradient**2
        # torch corrects by the current beta1, which the course moves.
        update = (first / (1 - beta1**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        expected = expected - rate * 0.1 * expected - rate * update
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(weight.detach().double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_found_inf_leaves_weights_and_moments_alone(dtype: torch.dtype) -> None:
    """The switch that keeps a step with a non-finite gradient from damaging the state; it is torch's own, and fused only."""
    model = small_network(dtype)
    schedule = ScheduleConfig(total_steps=10)
    optimizer = build_optimizer(model, schedule)
    optimizer.grad_scale = None  # type: ignore[attr-defined]

    def step(number: int, found_inf: float, scale: float = 1.0) -> None:
        set_step(optimizer, schedule, number)
        backward(model, scale)
        optimizer.found_inf = torch.tensor(found_inf)  # type: ignore[attr-defined]
        optimizer.step()

    def state() -> list[torch.Tensor]:
        moments = [value for parameter in model.parameters() for value in optimizer.state[parameter].values()]
        return [t.detach().clone() for t in (*model.parameters(), *moments)]

    step(1, 0.0)
    before = state()
    step(2, 1.0, scale=float("inf"))
    for now, then in zip(state(), before, strict=True):
        torch.testing.assert_close(now, then, rtol=0, atol=0)
    step(2, 0.0)
    assert all(torch.isfinite(value).all() for value in state())
    assert not any(torch.equal(now, then) for now, then in zip(state(), before, strict=True))


def wide_network(dtype: torch.dtype = torch.float64) -> nn.Module:
    """Three layers of which Muon takes the middle one; the last has filters of one pixel."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 16, 3), nn.Conv2d(16, 24, 3), nn.Conv2d(24, 16, 1)).to(dtype)


def test_muon_takes_banks_of_wide_filters_and_no_published_weights() -> None:
    unet = UNet(3, 35, base_channels=16, depth=1)
    optimizer = build_optimizer(unet, ScheduleConfig(optimizer="muon"))
    banks = {id(p) for group in optimizer.param_groups if group.get(BANKS) for p in group["params"]}
    taken = {name for name, p in unet.named_parameters() if id(p) in banks}
    assert taken == {name for name, p in unet.named_parameters() if p.ndim == 4} - {
        next(name for name, p in unet.named_parameters() if p.shape[1] == 3),  # of colours: 27 values per filter
        next(name for name, p in unet.named_parameters() if p.shape[0] == 35),  # the classifier
    }
    encoder = EncoderUNet(3, 4, depth=2, base_channels=16)
    optimizer = build_optimizer(encoder, ScheduleConfig(optimizer="muon"))
    banks = {id(p) for group in optimizer.param_groups if group.get(BANKS) for p in group["params"]}
    assert banks, "of the decoder"
    assert not banks & {id(p) for p in encoder.pretrained_parameters()}
    assert len([p for group in optimizer.param_groups for p in group["params"]]) == len([*encoder.parameters()])


@pytest.mark.parametrize("shape", [(2, 24, 144), (1, 144, 24), (3, 32, 32)])
def test_orthogonal_is_the_published_iteration(shape: tuple[int, int, int]) -> None:
    """Jordan et al. 2024 multiply the matrix itself five times; the singular values end near 1, the vectors stay."""
    banks = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = orthogonal(banks)
    for bank, turned in zip(banks.numpy(), got.numpy(), strict=True):
        expected = bank / np.linalg.norm(bank)
        for _ in range(5):
            gram = expected @ expected.T
            expected = 3.4445 * expected + (-4.7750 * gram + 2.0315 * gram @ gram) @ expected
        np.testing.assert_allclose(turned, expected, rtol=0, atol=1e-10)
        left, _, right = np.linalg.svd(bank, full_matrices=False)
        values = np.diag(left.T @ turned @ right.T)
        np.testing.assert_allclose(left @ np.diag(values) @ right, turned, rtol=0, atol=1e-10)
        assert values.min() > 0.3
        assert values.max() < 1.3
    torch.testing.assert_close(orthogonal(banks.float()).double(), got, rtol=0, atol=1e-4)


def test_update_is_muon_as_published() -> None:
    """Two steps written out: momentum 0.95, Nesterov's look ahead, 0.2 sqrt(max(rows, columns)), decoupled decay."""
    schedule = ScheduleConfig(total_steps=4, learning_rate=1e-2, weight_decay=0.1, optimizer="muon")
    model = wide_network()
    optimizer = build_optimizer(model, schedule)
    weight = model[1].weight
    expected, momentum = weight.detach().clone(), torch.zeros_like(weight)
    for step in (1, 2):
        backward(model)
        gradient = weight.grad.clone()
        rate = set_step(optimizer, schedule, step)
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        ahead = 0.05 * gradient + 0.95 * momentum
        update = 0.2 * 144**0.5 * orthogonal(ahead.reshape(1, 24, 144)).reshape(weight.shape)
        expected = expected - rate * (update + 0.1 * expected)
    torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-12)


def test_muon_leaves_weights_and_moments_alone_where_found_inf_is_set() -> None:
    model = wide_network()
    optimizer = build_optimizer(model, ScheduleConfig(total_steps=10, optimizer="muon"))

    def step(found_inf: float, scale: float = 1.0) -> list[torch.Tensor]:
        backward(model, scale)
        optimizer.grad_scale = None  # type: ignore[attr-defined]
        optimizer.found_inf = torch.tensor(found_inf)  # type: ignore[attr-defined]
        optimizer.step()
        moments = [value for parameter in model.parameters() for value in optimizer.state[parameter].values()]
        return [t.detach().clone() for t in (*model.parameters(), *moments)]

    before = step(0.0)
    for now, then in zip(step(1.0, scale=float("inf")), before, strict=True):
        torch.testing.assert_close(now, then, rtol=0, atol=0)
    after = step(0.0)
    assert all(torch.isfinite(value).all() for value in after)
    assert not any(torch.equal(now, then) for now, then in zip(after, before, strict=True))


THEIRS = """
def steps(learning_rate, total_steps, every=10):
    "The peak, halved again and again."
    return lambda step: (learning_rate * 0.5 ** ((step - 1) // every), 0.9)

def text(learning_rate):
    return lambda step: "fast"
"""


def test_a_course_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_courses.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_courses", raising=False)
    word = "their_courses:steps(every=2)"
    require_course(ScheduleConfig(schedule=word))
    rates, momenta = courses(schedule=word, total_steps=5, learning_rate=4.0)
    assert (rates, momenta) == ([4.0, 4.0, 2.0, 2.0, 1.0], [0.9] * 5)
    with pytest.raises(
        ConfigError, match=r"warmup_fraction: got 0\.5, which has no effect as the schedule is their_courses"
    ):
        require_course(ScheduleConfig(schedule=word, warmup_fraction=0.5))
    with pytest.raises(
        ConfigError, match=r"schedule: their_courses:text gave 'fast' for step 1\. Expected the learning rate"
    ):
        require_course(ScheduleConfig(schedule="their_courses:text"))
    with pytest.raises(ConfigError, match=r"schedule: got 'onecicle', expected one that.* Did you mean \"onecycle\"\?"):
        ScheduleConfig(schedule="onecicle")


def test_an_encoder_has_a_learning_rate_of_its_own_and_stays_frozen_at_first() -> None:
    schedule = ScheduleConfig(
        learning_rate=0.5, total_steps=8, encoder_learning_rate_factor=0.1, encoder_frozen_steps=2
    )
    model = EncoderUNet(1, 2, depth=1, base_channels=2)
    optimizer = build_optimizer(model, schedule)
    encoder = set(model.pretrained_parameters())
    of_encoder = [group for group in optimizer.param_groups if set(group["params"]) <= encoder]
    others = [group for group in optimizer.param_groups if not set(group["params"]) & encoder]
    assert len(of_encoder) == len(others) == 2
    assert {p for group in of_encoder for p in group["params"]} == encoder
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for step in range(1, 5):
        rate = set_step(optimizer, schedule, step)
        assert rate > 0
        assert [group["lr"] for group in others] == [rate, rate]
        assert [group["lr"] for group in of_encoder] == [0.1 * rate if step > 2 else 0.0] * 2
        model(torch.randn(1, 1, model.window_sizes.minimum, model.window_sizes.minimum)).square().sum().backward()
        optimizer.step()
        moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        assert any(name.startswith("backbone") for name in moved) == (step > 2)
        assert any(name.startswith("classifier") for name in moved)


def test_networks_without_an_encoder_have_the_groups_they_had() -> None:
    groups = build_optimizer(nn.Conv2d(1, 2, 3), ScheduleConfig()).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(1, 0.01), (1, 0.0)]


@pytest.mark.parametrize("is_scaled", [False, True])
def test_the_update_is_torchs_to_the_bit(is_scaled: bool) -> None:
    """Also of a step that does not count, of a parameter without a gradient and of one that a scaler has multiplied."""
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    optimizer = build_optimizer(ours, ScheduleConfig(weight_decay=0.1))
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    parameters = ([theirs.weight], [theirs.bias])
    reference = torch.optim.AdamW([{**g, "params": p} for g, p in zip(groups, parameters, strict=True)], fused=True)
    for step in range(6):
        for model, update in ((ours, optimizer), (theirs, reference)):
            torch.manual_seed(step)
            model.weight.grad = torch.randn(3, 5)
            model.bias.grad = None if step == 3 else torch.randn(3)
            update.found_inf = torch.tensor(float(step == 2))  # type: ignore[attr-defined]
            update.grad_scale = torch.tensor(8.0) if is_scaled else None  # type: ignore[attr-defined]
            update.step()
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)
    for mine, other in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        for name, value in reference.state[other].items():
            assert torch.equal(optimizer.state[mine][name], value), name
    assert [float(optimizer.state[p]["step"]) for p in (ours.weight, ours.bias)] == [5, 4]
