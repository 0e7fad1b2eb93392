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
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise LaunchError(
            f"{key}: cannot write to {folder}: {error.strerror}. Choose another --{key}, or mend the folder."
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise LaunchError(
                f"{key}: {folder} is held by another run: {holder}. Wait for it, stop it, or choose another --{key}."
            ) from None
        file.seek(0)
        file.truncate()
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": started}))
        file.flush()
        yield
