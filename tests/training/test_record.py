"""Proves what a training prints of its pace: after its first step, where the rest takes long."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from unet_dist.training.record import Record


def first_step(seconds: float, *, device: str = "cpu", total: int = 6000) -> list[str]:
    """What is printed after a first step of so many seconds."""
    said: list[str] = []
    record: Any = Record.__new__(Record)
    record._progress = SimpleNamespace(step=1)
    record._parts = SimpleNamespace(
        config=SimpleNamespace(schedule=SimpleNamespace(total_steps=total)),
        processes=SimpleNamespace(device=SimpleNamespace(type=device)),
        teller=SimpleNamespace(say=said.append),
    )
    record.first_step(seconds)
    return said


def test_first_step_tells_how_long_the_rest_takes() -> None:
    (said,) = first_step(9.0)
    assert said.startswith("The first step took 9.0 s; at this pace the other 5,999 need about 14 h 59 min")


@pytest.mark.parametrize(
    "quiet", [{"seconds": 0.001}, {"seconds": 9.0, "total": 2}, {"seconds": 9.0, "device": "cuda"}]
)
def test_first_step_is_silent_where_little_is_left_or_the_device_is_ahead(quiet: dict[str, Any]) -> None:
    assert first_step(**quiet) == []
