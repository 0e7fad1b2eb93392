"""Proves that values on their way to the files are those that were computed, and lie apart from what computes the next ones."""

from __future__ import annotations

import errno
import mmap

import numpy as np
import pytest
import torch

from unet_dist.prediction.fetching import Fetching


def test_values_arrive_as_they_were_when_they_were_given() -> None:
    labels = torch.arange(2 * 7 * 9, dtype=torch.uint8).reshape(2, 7, 9)
    shares = torch.rand(3, 5, 4).half()
    before, kept = labels.clone(), shares.clone()
    fetching = Fetching([{"labels": labels[1, :5, :4], "probabilities": shares}, None])
    labels.zero_()
    shares.zero_()
    values, nothing = fetching.wait()
    assert nothing is None
    assert values is not None
    np.testing.assert_array_equal(values["labels"], before[1, :5, :4].numpy())
    np.testing.assert_array_equal(values["probabilities"], kept.numpy())
    assert values["probabilities"].dtype == np.float16


def test_a_batch_of_background_has_nothing_to_wait_for() -> None:
    assert Fetching([None, None]).wait() == [None, None]


def test_values_stay_in_the_heap_where_the_system_has_no_memory_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heap may have kept enough of the freed memory: a smaller tile is of no use if its labels then find no place."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    labels = torch.arange(63, dtype=torch.uint8).reshape(7, 9)
    (values,) = Fetching([{"labels": labels}]).wait()
    labels.zero_()
    assert values is not None
    np.testing.assert_array_equal(values["labels"], np.arange(63, dtype=np.uint8).reshape(7, 9))
