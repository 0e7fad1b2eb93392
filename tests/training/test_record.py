"""Proves what a training prints of its pace: after its first seconds, where the rest takes long."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from unet_dist.training.pace import Forecast
from unet_dist.training.record import Record


def said_after(*seconds: float, device: str = "cpu", total: int = 6000) -> list[str]:
    """The line after steps of so many seconds."""
    said: list[str] = []
    record: Any = Record.__new__(Record)
    record._forecast = Forecast()
    record._progress = SimpleNamespace(step=0)
    record._parts = SimpleNamespace(
        config=SimpleNamespace(schedule=SimpleNamespace(total_steps=total)),
        processes=SimpleNamespace(device=SimpleNamespace(type=device)),
        teller=SimpleNamespace(say=said.append),
    )
    for each in seconds:
        record._progress.step += 1
        record.pace(each)
    return said


def test_the_rest_is_told_by_the_steps_after_the_first() -> None:
    """The first step of 30 s warms up; 5,996 steps of 2 s are 3 h 20 min."""
    (said,) = said_after(30.0, 2.0, 2.0, 2.0, 2.0, 2.0)
    assert said.startswith(
        "A step takes about 2.0 s, so the other 5,996 need about 3 h 19 min, and the validations more."
    )
    assert said.endswith("--time 1h chooses settings for a time.")
    assert "configure" not in said_after(30.0, 9.0, total=200)[0]


@pytest.mark.parametrize(
    ("seconds", "others"),
    [([9.0], {}), ([9.0, 1.0, 1.0], {}), ([0.001] * 9, {}), ([9.0] * 2, {"total": 3}), ([9.0] * 3, {"device": "cuda"})],
)
def test_nothing_is_told_too_early_or_where_little_is_left(seconds: list[float], others: dict[str, Any]) -> None:
    assert said_after(*seconds, **others) == []
