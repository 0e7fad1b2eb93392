"""Proves that threads which ask something of a GPU do so on their process's own, seen on a CPU by what they ask torch first."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from tests.data.batches.test_shares import shares_of
from tests.prediction.parts import Prediction, write_images
from unet_dist.data.batches.ahead import read_ahead
from unet_dist.machine.threads import stay_on_device


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The device that each thread chose, in a process that computes on the fourth GPU."""
    chosen: dict[str, int] = {}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda device: chosen.update({threading.current_thread().name: device})
    )
    return chosen


def test_without_a_gpu_there_is_nothing_to_choose() -> None:
    if torch.cuda.is_initialized():
        pytest.skip("a GPU is in use")
    assert stay_on_device() is None


def test_thread_that_reads_crops_into_page_locked_memory(chosen: dict[str, int]) -> None:
    shares = list(read_ahead(shares_of("crops", 10**9), range(1, 3), num_workers=0, pin_memory=False))
    assert len(shares) == 2
    assert chosen == {"crops_0": 3}


def test_threads_that_read_windows_and_wait_for_labels(chosen: dict[str, int], tmp_path: Path) -> None:
    assert Prediction(tmp_path / "out", write_images(tmp_path / "images", [(40, 50)])).launch()
    assert chosen == {"reader_0": 3, "writer_0": 3}
