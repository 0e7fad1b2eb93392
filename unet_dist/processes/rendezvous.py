"""How the processes of a run find each other, also those that a launcher started again.

Owns the session under which they meet, and the words where they do not. Must not know what they do then.

A launcher that restarts failed processes may keep its store (torchrun's static rendezvous does, which accelerate uses), and
with it the addresses of the dead. A process that reads them waits for the dead until its collectives time out. So
the processes that are alive first agree on a session, and meet under its name.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import torch.distributed as dist
from torch.distributed.rendezvous import register_rendezvous_handler

from unet_dist.errors import LaunchError
from unet_dist.wording import first_line

MEETING = "session://"
"""The init_method of torch.distributed.init_process_group: as "env://", in a session that no earlier attempt knows."""

_CAME, _WELCOME, _JOINED = "unet_dist/came/{}", "unet_dist/welcome/{}", "unet_dist/joined/{}/{}"
_PAUSE_S = 0.01


def agree_on_session(store: Any, rank: int, world_size: int, timeout: timedelta) -> str:
    """Return the name of a session that the living processes share, and no process before them did.

    Rank 0 makes it. Every other leaves a word that only it knows, and goes by the answer to that word: what the store
    still holds of an earlier attempt answers nobody.

    Args:
        store: that all of them reach; earlier attempts may have written to it.
        timeout: how long they wait for each other.

    Raises:
        torch.distributed.DistStoreError: a process did not come in time.
    """
    mine = uuid.uuid4().hex
    if rank > 0:
        store.set(_CAME.format(rank), mine)
        welcome = _WELCOME.format(mine)
        store.wait([welcome], timeout)
        session: str = store.get(welcome).decode()
        store.set(_JOINED.format(session, rank), "")
        return session
    deadline = time.monotonic() + timeout.total_seconds()
    missing = list(range(1, world_size))
    while missing := [other for other in missing if not store.check([_JOINED.format(mine, other)])]:
        if time.monotonic() > deadline:
            raise dist.DistStoreError(
                f"rank {', '.join(map(str, missing))} did not come in {timeout.total_seconds():g} s"
            )
        for other in missing:
            if store.check([_CAME.format(other)]):  # the word may be a dead process's: that of the living overwrites it
                store.set(_WELCOME.format(store.get(_CAME.format(other)).decode()), mine)
        time.sleep(_PAUSE_S)
    return mine


def _meet(url: str, timeout: timedelta, **options: Any) -> Iterator[tuple[Any, int, int]]:
    """Meet as the environment says, in a session of this attempt."""
    as_environment_says = urlsplit(url)._replace(scheme="env").geturl()
    for store, rank, world_size in dist.rendezvous(as_environment_says, timeout=timeout, **options):
        yield dist.PrefixStore(agree_on_session(store, rank, world_size, timeout), store), rank, world_size


register_rendezvous_handler(urlsplit(MEETING).scheme, _meet)


@contextlib.contextmanager
def naming_the_place(environment: Mapping[str, str]) -> Iterator[None]:
    """Say where the processes could not meet.

    Raises:
        LaunchError: the port is taken, the host cannot be reached, or another process did not come in time.
    """
    try:
        yield
    except dist.DistError as error:
        place = f"{environment.get('MASTER_ADDR')}:{environment.get('MASTER_PORT')}"
        reason = first_line(error)
        raise LaunchError(
            f"MASTER_ADDR and MASTER_PORT: the processes could not meet at {place}: {reason}. Set another --main_process_port, and "
            "check that every process was started and reaches that host."
        ) from None
