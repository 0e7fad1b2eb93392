"""Proves that processes which a launcher started again meet the living, whatever its store still holds of the dead."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

from unet_dist.processes.rendezvous import agree_on_session

LONG = timedelta(seconds=60)
SHORT = timedelta(seconds=0.3)


@pytest.fixture
def store() -> Any:
    return dist.HashStore()


def meet(store: Any, order: list[int]) -> set[str]:
    """The sessions that the ranks of an attempt take, each one started when the ones before it are on their way."""
    with ThreadPoolExecutor(len(order)) as pool:
        coming = [pool.submit(agree_on_session, store, rank, len(order), LONG) for rank in order]
        return {one.result() for one in coming}


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_every_attempt_meets_in_a_session_of_its_own(store: Any, order: list[int]) -> None:
    sessions = [meet(store, order) for _ in range(5)]
    assert [len(session) for session in sessions] == [1] * 5
    assert len(set().union(*sessions)) == 5


def test_the_dead_are_not_met(store: Any) -> None:
    """An attempt of which one came, was never answered, and is gone; the next one's rank 0 sees that word first."""
    with pytest.raises(dist.DistStoreError):
        agree_on_session(store, 1, 2, SHORT)
    with pytest.raises(dist.DistStoreError, match=r"rank 1 did not come in 0.3 s"):
        agree_on_session(store, 0, 2, SHORT)
    assert len(meet(store, [0, 1])) == 1


def test_what_is_missing_is_named(store: Any) -> None:
    with pytest.raises(dist.DistStoreError, match=r"rank 1, 2 did not come in 0.3 s"):
        agree_on_session(store, 0, 3, SHORT)


def test_one_process_waits_for_nobody(store: Any) -> None:
    assert agree_on_session(store, 0, 1, SHORT)
