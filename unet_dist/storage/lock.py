"""The lock on a run's folder.

Owns who may write into it. A kernel lock: it goes with the process that holds it, also when its node dies.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unet_dist.errors import LaunchError


@contextmanager
def lock_run(folder: Path, key: str = "output_path") -> Iterator[None]:
    """Hold a run's folder for this process.

    Args:
        key: the option that an error names.

    Raises:
        LaunchError: another run holds it (says which process on which host), or the folder cannot be written.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise LaunchError(
            f"{key}: cannot write to {folder}: {error.strerror}. Choose another --{key}, or mend the folder."
        ) from None
    _held.add(held)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(held, 1000).decode(errors="replace").strip() or "another process"
            raise LaunchError(
                f"{key}: {folder} is held by another run: {holder}. Wait for it, stop it, or choose another --{key}."
            ) from None
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(held, 0)
        os.write(held, json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": started}).encode())
        yield
    finally:
        _held.remove(held)
        os.close(held)


_held: set[int] = set()


def _let_go() -> None:
    """Close a forked child's copies: a crop worker outlives a killed process by seconds, and would hold its folder."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)
