"""The lock on a run's folder, and the folders in which something waits for its process.

Owns who may write into it. A kernel lock: it goes with the process that holds it, also when its node dies.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unet_dist.errors import LaunchError
from unet_dist.storage.held import held
from unet_dist.wording import hanging


def open_lock(path: Path, *, reads_too: bool = False, mode: int = 0o666) -> int:
    """Open the file of a lock, made where it is missing: a descriptor. Its content may be replaced, so it is a file and no link.

    Args:
        reads_too: whether it may be another user's, which can be locked and not written.
        mode: of a new file, less the umask. Whoever may read it can hold the lock.

    Raises:
        OSError: it is a link (ELOOP), no regular file (EINVAL), or may not be written.
    """
    how = os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        lock = os.open(path, os.O_RDWR | how, mode)
    except PermissionError:
        if not reads_too:
            raise
        lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(lock).st_mode):
        return lock
    os.close(lock)
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))


def _refusal(path: Path, error: OSError, key: str) -> str:
    """Say why the lock of a folder cannot be opened."""
    folder = path.parent
    if error.errno in (errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EISDIR):
        return (
            f"{key}: {path} is not a regular file, expected one that a run made. Remove it, or choose another --{key}."
        )
    try:
        owner = path.lstat().st_uid
    except OSError:
        owner = os.geteuid()
    if owner != os.geteuid():
        return (
            f"{key}: {path} belongs to another user (uid {owner}), whose run may be under way. Choose another --{key}, or have "
            "that user make the file writable for you."
        )
    return f"{key}: cannot write to {folder}: {error.strerror}. Choose another --{key}, or mend the folder."


def _warn(text: str) -> None:
    print(hanging(text), file=sys.stderr)


@contextmanager
def lock_run(folder: Path, key: str = "output_path", say: Callable[[str], None] = _warn) -> Iterator[None]:
    """Hold a run's folder for this process. Where an error ends the block, folders that hold nothing but the lock go again.

    Args:
        key: the option that an error names.
        say: is given one sentence where the file system has no locks.

    Raises:
        LaunchError: another run holds it (says which process on which host), or the folder cannot be written.
    """
    path = folder / ".lock"
    try:
        new = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        lock = open_lock(path, mode=0o660)  # a stranger who may read it could keep its owner out
        if os.fstat(lock).st_uid == os.geteuid():  # of an older release
            os.fchmod(lock, os.fstat(lock).st_mode & 0o660)
    except OSError as error:
        raise LaunchError(_refusal(path, error, key)) from None
    _held.add(lock)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 1000).decode(errors="replace").strip() or "another process"
            raise LaunchError(
                f"{key}: {folder} is held by another run: {holder}. Wait for it, stop it, or choose another --{key}."
            ) from None
        except OSError as error:  # Lustre mounted without flock says ENOSYS, some network file systems ENOLCK
            say(
                f"{key}: the file system of {folder} has no locks ({error.strerror}), so nothing keeps a second run out. Start "
                "one at a time."
            )
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(lock, 0)
        os.write(lock, json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": started}).encode())
        try:
            yield
        except BaseException:
            _take_back(new, lock)
            raise
    finally:
        _held.remove(lock)
        os.close(lock)


def _take_back(new: list[Path], lock: int) -> None:
    """Remove folders that this lock made, innermost first, unless something else lies in them."""
    with suppress(OSError):
        if not new:
            return
        with held(new[0]) as place:
            is_ours = os.path.samestat(os.stat(".lock", dir_fd=place, follow_symlinks=False), os.fstat(lock))
            is_alone = is_ours and os.listdir(place) == [".lock"]
            if is_alone:
                os.unlink(".lock", dir_fd=place)
        if is_alone:
            for folder in new:
                folder.rmdir()


_held: set[int] = set()


def _let_go() -> None:
    """Close a forked child's copies: a crop worker outlives a killed process by seconds, and would hold its folder."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)
