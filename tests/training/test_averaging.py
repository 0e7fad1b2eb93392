"""Proves the average of the weights against its rule, that a step which did not count leaves it alone, and that lending it is
undone to the bit. That it survives a kill and any number of processes is proved in tests/distributed, where every run has one.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unet_dist.config.sections import ScheduleConfig
from unet_dist.training.averaging import MOMENT, WeightAverage
from unet_dist.training.optimizer import build_optimizer


def steps_of(
    decay: float | None, masked: frozenset[int] = frozenset(), count: int = 30
) -> tuple[nn.Linear, list[float], WeightAverage]:
    """A network after some steps, one of its weights after each, and the average."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    optimizer = build_optimizer(model, ScheduleConfig(learning_rate=0.1))
    average = WeightAverage(model, optimizer, decay)
    course = []
    for step in range(1, count + 1):
        model(torch.randn(4, 3).double()).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update(step, torch.tensor(step in masked))
        course.append(model.weight[0, 0].item())
    return model, course, average


@pytest.mark.parametrize("masked", [frozenset(), frozenset({4, 17})])
def test_average_is_the_rule(masked: frozenset[int]) -> None:
    model, course, average = steps_of(0.6, masked)
    expected = course[0]
    for step, weight in enumerate(course, start=1):
        if step not in masked:
            decay = min(0.6, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * weight
    with average.lent():
        assert model.weight[0, 0].item() == pytest.approx(expected, rel=1e-12)
    assert abs(expected - course[-1]) > 1e-4


def test_lending_is_undone_to_the_bit() -> None:
    model, _, average = steps_of(0.9)
    before = model.weight.detach().clone()

    def fail() -> None:
        with average.lent():
            assert not torch.equal(model.weight, before)
            raise RuntimeError("a validation that fails")

    with pytest.raises(RuntimeError, match="a validation that fails"):
        fail()
    assert torch.equal(model.weight, before)


def test_without_a_decay_there_is_none() -> None:
    model, _, average = steps_of(0.9)
    before = model.weight.detach().clone()
    optimizer = average._optimizer
    none = WeightAverage(model, optimizer, None)
    assert all(MOMENT not in state for state in optimizer.state.values())
    none.update(31, torch.tensor(False))
    with none.lent():
        assert torch.equal(model.weight, before)
    assert all(MOMENT not in state for state in optimizer.state.values())
