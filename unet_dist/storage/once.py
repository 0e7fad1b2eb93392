"""A folder that many processes need and one makes, whole or not at all.

Owns the lock, the rename and what killed builders leave behind. Knows nothing of the folder's content. One builder at a
time per file system; where its locks do not hold, the rename still lets only one folder appear.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unet_dist.errors import DataError
from unet_dist.storage.files import sync_folder, usual_mode
from unet_dist.storage.held import held, remove
from unet_dist.storage.lock import open_lock

_ABANDONED_S = 3600.0  # assumption: a builder that lives writes a pair more often than this


def make_once(
    path: Path, write: Callable[[Path], None], *, is_whole: Callable[[Path], bool], say: Callable[[str], None]
) -> None:
    """Make the folder `path` by `write(folder)` beside it and a rename, unless it is whole or another process makes it.

    Raises:
        DataError: the parent folder cannot be written to, or the file system is full.
    """
    if is_whole(path):
        return
    _make_parent(path.parent)
    with _builder_lock(path, say) as is_alone:
        if is_whole(path):
            return
        if is_alone:
            _remove_partial(path)
        _write_beside(path, write, is_whole)


def _write_beside(path: Path, write: Callable[[Path], None], is_whole: Callable[[Path], bool]) -> None:
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.{_host()}.", suffix=".partial", dir=path.parent))
    try:
        folder.chmod(usual_mode(0o777))  # mkdtemp makes it private; caches are shared
        write(folder)
        sync_folder(folder)
        try:
            os.rename(folder, path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) or not is_whole(path):
                raise
        sync_folder(path.parent)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"{path.parent}: {os.strerror(error.errno)}. Free some, or set cache_path elsewhere."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _builder_lock(path: Path, say: Callable[[str], None]) -> Iterator[bool]:
    """Hold the kernel's lock for one cache: it goes with its process, so that a killed builder leaves none behind.

    Gives whether the file system has such locks.
    """
    is_held = True
    place = path.parent / f"{path.name}.lock"
    try:
        handle = open_lock(place, reads_too=True)
    except OSError as error:
        raise DataError(
            f"{place}: cannot be opened ({error.strerror}), expected a regular file that you may write to. Remove it, or set "
            "cache_path to a folder of yours."
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another process is making the cache {path}; waiting for it.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            say(f"{path.parent}: this file system has no locks ({error.strerror}); continuing without.")
            is_held = False
        yield is_held
    finally:
        os.close(handle)  # the file stays: removing it would let two processes hold "the" lock


def _remove_partial(path: Path) -> None:
    """Remove what builders of this cache left behind that were killed; called under the lock.

    Some network file systems keep locks to each host, so what another host began must also have lain still.
    """
    with held(path.parent) as place:
        for folder in path.parent.glob(f".{path.name}.*.partial"):
            try:
                last_change = max(file.stat().st_mtime for file in [folder, *folder.iterdir()])
            except FileNotFoundError:  # renamed or removed by its own builder meanwhile
                continue
            if folder.name.startswith(f".{path.name}.{_host()}.") or time.time() - last_change > _ABANDONED_S:
                with suppress(OSError):
                    remove(folder.name, place)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "_", socket.gethostname())


def _make_parent(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}). Set cache_path to a folder of yours.") from error
    if not writable:
        raise DataError(f"{folder}: is not writable. Set cache_path to a folder of yours.")
