"""Proves that processes which a launcher started again meet the living, whatever its store still holds of the dead."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from unet_dist.errors import LaunchError
from unet_dist.processes.rendezvous import agree_on_session, meeting_file, stay_on_loopback

LONG = timedelta(seconds=60)
SHORT = timedelta(seconds=0.3)


@pytest.fixture
def store() -> Any:
    return dist.HashStore()


def meet(store: Any, order: list[int], secret: str = "") -> set[str]:
    """The sessions that the ranks of an attempt take, each one started when the ones before it are on their way."""
    with ThreadPoolExecutor(len(order)) as pool:
        coming = [pool.submit(agree_on_session, store, rank, len(order), LONG, secret) for rank in order]
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


def test_what_nccl_left_of_an_error_is_gone_before_the_next_attempt(store: Any) -> None:
    """Otherwise every restart would end itself after its heartbeat."""
    for key in ("exception_dump", "remote_error"):
        store.set(key, "1")
    meet(dist.PrefixStore("attempt", store), [0, 1])
    assert not store.check(["exception_dump"])
    assert not store.check(["remote_error"])


def test_stranger_without_the_secret_is_not_answered(store: Any) -> None:
    """It came first and unsigned, as rank 1; and it welcomes whoever comes to a session of its own."""
    stranger = StrangersStore(store)
    assert len(meet(stranger, [0, 1], secret="of the job")) == 1
    assert stranger.num_lies > 0
    store.set("unet_dist/came/1", "stranger ")
    with pytest.raises(dist.DistStoreError, match=r"rank 1 did not come in 0.3 s"):
        agree_on_session(store, 0, 2, SHORT, "of the job")
    assert not store.check(["unet_dist/welcome/stranger"])


class StrangersStore:
    """A store in which a stranger answers each word at once, unsigned, and writes over what came."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.num_lies = 0

    def set(self, key: str, value: str) -> None:
        self._store.set(key, value)
        if key.startswith("unet_dist/came/") and self.num_lies < 3:
            self._store.set(f"unet_dist/welcome/{value.split()[0]}", "theirs ")
            self._store.set(key, "theirs ")
            self.num_lies += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_other_secret_is_named(store: Any) -> None:
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(agree_on_session, store, 0, 2, SHORT, "a")
        second = pool.submit(agree_on_session, store, 1, 2, SHORT, "b")
        with pytest.raises(dist.DistStoreError, match=r"rank 1 did not come"):
            first.result()
        with pytest.raises(dist.DistStoreError, match=r"or signs with another UNET_DIST_SECRET"):
            second.result()


def test_place_on_one_node_is_private(tmp_path: Path) -> None:
    agent = {"TORCHELASTIC_RUN_ID": "none", "MASTER_PORT": "29500", "TORCHELASTIC_RESTART_COUNT": "0"}
    place = meeting_file(agent, tmp_path)
    assert place.parent.stat().st_mode & 0o777 == 0o700
    assert place == meeting_file(agent, tmp_path)
    assert place != meeting_file({**agent, "TORCHELASTIC_RESTART_COUNT": "1"}, tmp_path)
    assert place != meeting_file({**agent, "MASTER_PORT": "29501"}, tmp_path)
    store = dist.FileStore(str(place), 2)
    assert len(meet(store, [1, 0])) == 1
    assert len(meet(store, [0, 1])) == 1
    for spoil in (
        lambda own: own.chmod(0o777),
        lambda own: (own.rename(tmp_path / "b"), own.symlink_to(tmp_path / "b")),
    ):
        spoil(place.parent)
        with pytest.raises(LaunchError, match=r"expected a folder of yours that nobody else may read or write"):
            meeting_file(agent, tmp_path)


@pytest.mark.parametrize(
    ("environment", "device"),
    [
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}, "lo"),
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "GLOO_SOCKET_IFNAME": "eth0"}, "eth0"),
        ({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, None),
        ({"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}, None),
        ({}, None),
    ],
)
def test_one_node_opens_no_port_to_others(environment: dict[str, str], device: str | None) -> None:
    stay_on_loopback(environment)
    assert environment.get("GLOO_SOCKET_IFNAME") == device
