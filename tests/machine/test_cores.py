"""Proves that the cores are known where the system does not say which of them a process may use."""

from __future__ import annotations

import os

import pytest

from unet_dist.machine.cores import num_cores


def test_cores_of_a_process_and_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert num_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert num_cores() == 12
