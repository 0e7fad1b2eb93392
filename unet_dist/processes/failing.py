"""The end of several processes of which one failed: who says why, and that none waits for the dead.

Owns the messages of a failure, and the notes that processes leave for each other in the rendezvous store. Must not know what they
were doing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import traceback
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from unet_dist.errors import UnetDistError
from unet_dist.storage.refusals import refusal_of_disk
from unet_dist.wording import hanging

GRACE_S = 3.0
"""Time for the process that failed first to say why: a launcher ends all processes when the first of them leaves."""
MOMENT_S = 0.5
"""Time that one who only lost another leaves to those who may know why."""

# In the rendezvous store: who failed first, who failed at all, and which process is which rank.
_FIRST, _FAILED, _PLACE = "unet_dist/first_to_fail", "unet_dist/failed/{}", "unet_dist/place/{}"


def announce(rank: int, world_size: int) -> None:
    """Tell the others which process this rank is, so that they can name it."""
    if world_size > 1:
        # With the store's own patience: communicators that are made later wait for each other by it.
        _store().set(_PLACE.format(rank), f"pid {os.getpid()} on {socket.gethostname()}")


def end_together(error: BaseException, *, rank: int, world_size: int, timeout_s: float) -> None:
    """Say what happened, on the first process it happened to, and leave at once, so that no other waits for this one.

    Args:
        timeout_s: how long a collective waits for the others.

    Raises:
        BaseException: the error, where there is one process only.
    """
    if world_size == 1:
        raise error
    if is_lost_peer(error):
        time.sleep(MOMENT_S)
    if _is_first_to_fail(rank):
        _say(error, rank, world_size, timeout_s)
        sys.stderr.flush()
        _let_others_ask(rank, world_size)
    else:
        # Rank 0 may hold the store, which the first to fail asks until its grace is over.
        time.sleep(GRACE_S + (2 * MOMENT_S if rank == 0 else 0))
    sys.stderr.flush()
    sys.stdout.flush()
    # Leaving in order would wait for processes that may never come: their collectives end when this one's sockets close.
    os._exit(2 if isinstance(error, UnetDistError) else 1)


def is_lost_peer(error: BaseException) -> bool:
    """Whether a collective failed because another process is gone. (gloo has no type of its own for it, only words.)"""
    words = ("Connection reset by peer", "Connection closed by peer", "Broken pipe", "remote process exited")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def is_timeout(error: BaseException) -> bool:
    """Whether a collective waited for another process longer than it may."""
    return isinstance(error, RuntimeError) and "Timed out waiting" in str(error)


def _say(error: BaseException, rank: int, world_size: int, timeout_s: float) -> None:
    resume = "Run the same command to resume from the last checkpoint."
    if isinstance(error, UnetDistError):
        print(f"unet-dist: error: {hanging(str(error))}", file=sys.stderr)
    elif refused := refusal_of_disk(error):
        print(f"unet-dist: error: rank {rank} of {world_size}: {hanging(refused)}", file=sys.stderr)
    elif isinstance(error, KeyboardInterrupt):
        print("unet-dist: interrupted", file=sys.stderr)
    elif is_lost_peer(error):
        places = _read_places(world_size)
        # Of two processes the other one is meant, without a look.
        silent = _name([1 - rank] if world_size == 2 else _find_silent(world_size), places)
        print(
            f"unet-dist: error: rank {rank} of {world_size} lost {silent}: the process was killed or its node is down; check "
            f"its log. {resume}",
            file=sys.stderr,
        )
    elif is_timeout(error):
        places = _read_places(world_size)
        silent = _name(_find_silent(world_size), places)
        print(
            f"unet-dist: error: rank {rank} of {world_size} waited {timeout_s:g} s for {silent}, which "
            "hangs: it sent no answer and no error. Look at its node and its stack (py-spy dump --pid PID). If it was only "
            f"slow, set a larger --collective_timeout_s. {resume}",
            file=sys.stderr,
        )
    else:
        print(f"unet-dist: error on rank {rank} of {world_size}:", file=sys.stderr)
        traceback.print_exception(type(error), error, error.__traceback__)


def _store() -> Any:
    """The store that the processes met at; torch has no public name for it."""
    return dist.distributed_c10d._get_default_store()


def _impatient_store() -> Any:
    """The same store with a short timeout: the process that holds it may be gone."""
    store = _store()
    store.set_timeout(timedelta(seconds=5))
    return store


def _is_first_to_fail(rank: int) -> bool:
    """Ask the rendezvous store who failed first: the others only see the broken connections that follow."""
    try:
        store = _impatient_store()
        is_first = bool(store.compare_set(_FIRST, "", str(rank)) == str(rank).encode())
        store.set(_FAILED.format(rank), "")
        return is_first
    except (RuntimeError, ValueError):  # the store went with the process that held it
        return True


def _find_silent(world_size: int) -> list[int]:
    """The ranks that have not failed within the grace, as this one did; the first, where the store that it holds is silent."""
    silent = list(range(world_size))
    deadline = time.monotonic() + GRACE_S
    try:
        store = _impatient_store()
        while silent and time.monotonic() < deadline:
            silent = [rank for rank in silent if not store.check([_FAILED.format(rank)])]
            time.sleep(0.02)
    except (RuntimeError, ValueError):
        return [0]
    return silent


def _read_places(world_size: int) -> dict[int, str]:
    """What each rank announced of itself, as far as the store knows. Ask early: the store leaves with the process that holds it."""
    places = {}
    with contextlib.suppress(RuntimeError, ValueError):
        for rank in range(world_size):
            places[rank] = _impatient_store().get(_PLACE.format(rank)).decode()
    return places


def _name(ranks: list[int], places: dict[int, str]) -> str:
    """Ranks with their places, as `rank 1 (pid 7 on node3)`."""
    named = [f"rank {rank} ({places[rank]})" if rank in places else f"rank {rank}" for rank in ranks]
    return ", ".join(named) or "another process"


def _let_others_ask(rank: int, world_size: int) -> None:
    """Keep the store, which goes with the main process, until the others have seen that somebody spoke, or the grace is over.

    An error that all processes raise together is else said again by those that ask too late.
    """
    if rank == 0:
        _find_silent(world_size)
