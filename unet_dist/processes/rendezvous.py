"""How the processes of a run find each other, also those that a launcher started again, and no others.

Owns the session under which they meet, the place where they do, and the words where they do not. Must not know what they do then.

A launcher that restarts failed processes may keep its store (torchrun's static rendezvous does, which accelerate uses), and
with it the addresses of the dead. A process that reads them waits for the dead until its collectives time out. So
the processes that are alive first agree on a session, and meet under its name.

That store listens on every address of the machine and asks nobody for a password. Where a launcher's agent has all processes on
one node, they therefore meet in a file of their own user instead. Elsewhere they sign their words with the secret that the
launch scripts give to a job's own processes, where there is one.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import socket
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, MutableMapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch.distributed as dist
from torch.distributed.rendezvous import register_rendezvous_handler

from unet_dist.errors import LaunchError
from unet_dist.wording import first_line

MEETING = "session://"
"""The init_method of torch.distributed.init_process_group: as "env://", in a session that no earlier attempt knows."""
SECRET = "UNET_DIST_SECRET"
"""In the environment: by what the processes of one launch know each other."""

_CAME, _WELCOME, _JOINED = "unet_dist/came/{}", "unet_dist/welcome/{}", "unet_dist/joined/{}/{}"
# What NCCL leaves in the store after an error: each later attempt would read it, and end itself after its heartbeat.
_LEFT_BY_NCCL = ("exception_dump", "remote_error")
_PAUSE_S = 0.01


def agree_on_session(store: Any, rank: int, world_size: int, timeout: timedelta, secret: str = "") -> str:
    """Return the name of a session that the living processes share, and no process before them did.

    Rank 0 makes it. Every other leaves a word that only it knows, and goes by the answer to that word: what the store
    still holds of an earlier attempt answers nobody. With a secret every word is signed, and others count for nothing.

    Args:
        store: that all of them reach; earlier attempts may have written to it, and strangers.
        timeout: how long they wait for each other.
        secret: that all of them know, and nobody else.

    Raises:
        torch.distributed.DistStoreError: a process did not come in time.
    """
    mine = uuid.uuid4().hex
    deadline = time.monotonic() + timeout.total_seconds()
    if rank > 0:
        return _join(store, rank, mine, deadline, secret)
    for key in _LEFT_BY_NCCL:
        _base(store).delete_key(key)
    missing = list(range(1, world_size))
    while missing := [n for n in missing if _read(store, _JOINED.format(mine, n), secret) != str(n)]:
        if time.monotonic() > deadline:
            raise dist.DistStoreError(
                f"rank {', '.join(map(str, missing))} did not come in {timeout.total_seconds():g} s"
            )
        for other in missing:  # the word may be a dead process's: that of the living overwrites it
            if (came := _read(store, _CAME.format(other), secret)) is not None:
                _write(store, _WELCOME.format(came), mine, secret)
        time.sleep(_PAUSE_S)
    return mine


def _join(store: Any, rank: int, mine: str, deadline: float, secret: str) -> str:
    """Leave a word until rank 0 answers it; returns its session."""
    while (session := _read(store, _WELCOME.format(mine), secret)) is None:
        if time.monotonic() > deadline:
            why = f"or signs with another {SECRET}" if secret else "or asks for a secret that this process has not"
            raise dist.DistStoreError(f"rank 0 did not answer rank {rank}: it did not come in time, {why}")
        if _read(store, _CAME.format(rank), secret) != mine:  # or again, where somebody wrote over it
            _write(store, _CAME.format(rank), mine, secret)
        time.sleep(_PAUSE_S)
    _write(store, _JOINED.format(session, rank), str(rank), secret)
    return session


def _sign(secret: str, key: str, word: str) -> str:
    """What only a process with the secret can write beside a word; nothing without one."""
    return hmac.new(secret.encode(), f"{key}\n{word}".encode(), hashlib.sha256).hexdigest() if secret else ""


def _write(store: Any, key: str, word: str, secret: str) -> None:
    store.set(key, f"{word} {_sign(secret, key, word)}")


def _read(store: Any, key: str, secret: str) -> str | None:
    """A word that is there and signed as it should be, else None."""
    if not store.check([key]):
        return None
    word, _, signature = store.get(key).decode(errors="replace").partition(" ")
    is_ours = hmac.compare_digest(signature.encode(), _sign(secret, key, word).encode())
    return word if is_ours else None


def _base(store: Any) -> Any:
    """The store below all prefixes."""
    while isinstance(store, dist.PrefixStore):
        store = store.underlying_store
    return store


def is_one_node(environment: Mapping[str, str]) -> bool:
    """Whether all processes are on this node, as the launcher says."""
    size = environment.get("WORLD_SIZE", "1")
    return int(size) > 1 and environment.get("LOCAL_WORLD_SIZE") == size


def stay_on_loopback(environment: MutableMapping[str, str]) -> None:
    """Let the processes of one node open no port to others: their collectives then listen on the loopback address only.

    What the user has set stays.
    """
    if is_one_node(environment) and any(name == "lo" for _, name in socket.if_nameindex()):
        for key in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            environment.setdefault(key, "lo")


def meeting_file(environment: Mapping[str, str], folder: Path) -> Path:
    """Where the processes of one agent on this node meet: a file in a folder of this user, into which nobody else may look.

    Args:
        folder: for temporary files; others may write there.

    Raises:
        LaunchError: somebody else has the folder's name, or it cannot be made.
    """
    own = folder / f"unet-dist-{os.geteuid()}"
    try:
        with contextlib.suppress(FileExistsError):
            own.mkdir(mode=0o700)
        found = own.lstat()
    except OSError as error:
        raise LaunchError(
            f"{own}: cannot be made ({error.strerror}). Set TMPDIR to a folder that you may write to."
        ) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise LaunchError(
            f"{own}: expected a folder of yours that nobody else may read or write (mode 700). Processes meet there. Remove it, "
            "or set TMPDIR to another folder."
        )
    # The port is the agent's as long as it lives; namespaces, as those of containers, may have the same ports.
    keys = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT")
    words = [socket.gethostname(), *(environment.get(key, "") for key in keys)]
    with contextlib.suppress(OSError):
        words.append(str(os.stat("/proc/self/ns/net").st_ino))
    return own / hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]


def _meet(url: str, timeout: timedelta, **options: Any) -> Iterator[tuple[Any, int, int]]:
    """Meet as the environment says, in a session of this attempt."""
    if is_one_node(os.environ) and "TORCHELASTIC_RUN_ID" in os.environ:
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        store = dist.FileStore(str(meeting_file(os.environ, Path(tempfile.gettempdir()))), world_size)
        yield dist.PrefixStore(agree_on_session(store, rank, world_size, timeout), store), rank, world_size
        return
    as_environment_says = urlsplit(url)._replace(scheme="env").geturl()
    secret = os.environ.get(SECRET, "")
    for store, rank, world_size in dist.rendezvous(as_environment_says, timeout=timeout, **options):
        yield dist.PrefixStore(agree_on_session(store, rank, world_size, timeout, secret), store), rank, world_size


register_rendezvous_handler(urlsplit(MEETING).scheme, _meet)


@contextlib.contextmanager
def naming_the_place(environment: Mapping[str, str]) -> Iterator[None]:
    """Say where the processes could not meet.

    Raises:
        LaunchError: the port is taken, the host cannot be reached, or another process did not come in time.
    """
    try:
        yield
    except RuntimeError as error:  # a DistError; from torch 2.6 a bare one, where it cannot listen
        if not isinstance(error, dist.DistError) and "failed to listen" not in str(error):
            raise
        place = f"{environment.get('MASTER_ADDR')}:{environment.get('MASTER_PORT')}"
        reason = first_line(error)
        raise LaunchError(
            f"MASTER_ADDR and MASTER_PORT: the processes could not meet at {place}: {reason}. Set another --main_process_port, and "
            "check that every process was started and reaches that host."
        ) from None
