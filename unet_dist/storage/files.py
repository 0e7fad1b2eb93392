"""Files and folders that are whole or not there.

Owns the temporary name, the flush to disk and the rename. Knows nothing of their content.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import os
import re
import secrets
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from unet_dist.errors import ConfigError, DataError, UnetDistError
from unet_dist.storage.held import held, remove
from unet_dist.storage.refusals import writing_failed

_TEMPORARY = re.compile(r"\.(.+?)(?:\.[0-9a-f]{16})?\.partial(\.[^.]+)?", re.DOTALL)
"""Stem and suffix of what it is to become; older releases named it without the part that makes it unique."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write a file or a folder under; on leaving, it becomes `path` in one step.

    One process writes a `path` at a time.

    When the body raises, the new content goes away and an older `path` stays as it was. So it does where the folder's name leads
    elsewhere meanwhile: nothing there is replaced or removed.

    Raises:
        DataError: the disk is full, the folder cannot be written to, or another refusal of the system.
    """
    with _replacing(path) as (temporary, _):
        yield temporary


@contextmanager
def _replacing(path: Path, folder: int | None = None) -> Iterator[tuple[Path, int]]:
    """As `replacing`; gives the folder's descriptor, too, which may be given."""
    # A name that nobody can foresee, and put a link or a folder of theirs under. The suffix stays: writers look at it.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with held(path.parent if folder is None else ".", within=folder) as place:
            try:
                _sweep(_leftovers.take(path, place), place)
                yield temporary, place
                _sync(temporary.name, place)
                _replace(temporary.name, path.name, place)
                os.fsync(place)
            finally:
                with suppress(OSError):  # the reason that brought us here is the one to tell
                    remove(temporary.name, place)
    except OSError as error:
        raise writing_failed(path, error) from error


def require_writable(folder: Path, key: str) -> None:
    """Refuse a folder that takes no file, before work whose result it would lose. Leaves nothing there.

    Raises:
        ConfigError: names the key that says another.
    """
    place = folder.absolute()
    try:
        while not place.exists() and place.parent != place:  # the rest is made when there is something to write
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ConfigError(
            f"{key}: cannot write to {folder}: {error.strerror or error}. Set --{key} to a place of yours."
        ) from error


@contextmanager
def permitted(kind: type[UnetDistError] = DataError) -> Iterator[None]:
    """Say in a sentence what may not be read; around what reads many files.

    Args:
        kind: of the error.

    Raises:
        DataError: or what else was asked for.
    """
    try:
        yield
    except PermissionError as error:
        raise kind(
            f"{error.filename}: {error.strerror}. Check your permissions, or have its owner let you read it."
        ) from error


def write_whole(path: Path, content: bytes, *, folder: int | None = None) -> None:
    """Put a file in place of an older one.

    Args:
        folder: the descriptor of the folder that it lies in, where that is held.

    Raises:
        DataError: as `replacing`.
    """
    with (
        _replacing(path, folder) as (temporary, place),
        # Made here or not at all: what somebody else put under that name meanwhile, such as a link, is not written to.
        open(temporary.name, "xb", opener=partial(os.open, mode=0o666, dir_fd=place)) as file,
    ):
        file.write(content)


def write_whole_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Put a folder in place of an older one, which goes after its successor stands.

    A process that dies between the two renames leaves the older one aside; recover_folder puts it back.

    Raises:
        DataError: as `replacing`.
    """
    with _replacing(path) as (temporary, place):
        os.mkdir(temporary.name, dir_fd=place)
        fill(temporary)


def append_to(path: Path, text: str, *, is_synced: bool = False) -> None:
    """Add to a file, made where it is missing. What stands there must be a file: a link may lead to one of its owner's.

    Args:
        is_synced: wait until it is on the disk.

    Raises:
        OSError: the disk refuses, or it is a link or no regular file.
    """
    how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(path, how, 0o666), "w", encoding="utf-8") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        file.write(text)
        if is_synced:
            file.flush()
            os.fsync(file.fileno())


def recover_folder(path: Path) -> None:
    """Undo a replacement that a kill cut in two. What somebody else put there is not taken for ours."""
    if path.parent.is_dir():
        with held(path.parent) as folder:
            _recover(path.name, folder)


def recover_all(folder: Path, pattern: str) -> None:
    """Undo the replacements in a folder that a kill cut in two, and remove what it left half written.

    Args:
        pattern: of the names, such as "step-*".
    """
    if not folder.is_dir():
        return
    with held(folder) as place:
        names = os.listdir(place)
        for old in fnmatch.filter(names, f".{pattern}.old"):
            _recover(old.removeprefix(".").removesuffix(".old"), place)
        _sweep(fnmatch.filter(names, f".{pattern}.partial*"), place)


def digest(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal.

    Raises:
        OSError: it cannot be read, or is not a regular file: a pipe would never answer.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        sha = hashlib.sha256()
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(name: str, folder: int) -> None:
    """Flush a file, or every file and folder below a folder, to disk."""
    entry = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    try:
        if stat.S_ISDIR(os.fstat(entry).st_mode):
            for inner in os.listdir(entry):
                _sync(inner, entry)
        os.fsync(entry)
    finally:
        os.close(entry)


def _replace(temporary: str, name: str, folder: int) -> None:
    _recover(name, folder)
    if _is_folder(name, folder):  # a folder is not replaced in one step: the old one steps aside first
        old = _stepped_aside(name)
        os.replace(name, old, src_dir_fd=folder, dst_dir_fd=folder)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        remove(old, folder)
    else:
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


def _recover(name: str, folder: int) -> None:
    old = _stepped_aside(name)
    if _is_own(old, folder) and _is_folder(old, folder):
        try:
            os.stat(name, dir_fd=folder)
        except FileNotFoundError:
            os.rename(old, name, src_dir_fd=folder, dst_dir_fd=folder)
        else:
            remove(old, folder)


def _stepped_aside(name: str) -> str:
    """Where an older folder waits while its successor takes its name."""
    return f".{name}.old"


class _Leftovers:
    """What killed processes left half written in the folders that this process writes to, by the name it was to have.

    A folder is listed when it is first written to, and again after a sixteenth as many writes as it held files: so that a write
    costs the same in a folder of any size.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[int, dict[str, list[str]]]] = {}

    def take(self, path: Path, folder: int) -> list[str]:
        """Those of a file or folder, which nobody else writes now."""
        with self._lock:
            writes, found = self._known.get(path.parent, (0, {}))
            if writes == 0:
                names = os.listdir(folder)
                writes, found = 1 + len(names) // 16, {}
                for match in filter(None, map(_TEMPORARY.fullmatch, names)):
                    found.setdefault(match[1] + (match[2] or ""), []).append(match[0])
            left = found.pop(path.name, [])
            self._known[path.parent] = writes - 1, found
        return left


_leftovers = _Leftovers()


def _sweep(names: Iterable[str], folder: int) -> None:
    for name in names:
        if _is_own(name, folder):
            remove(name, folder)


def _is_own(name: str, folder: int) -> bool:
    """Whether something is there, no link, and of this user or the folder's owner: other users may write into some folders."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return not stat.S_ISLNK(found.st_mode) and found.st_uid in (os.geteuid(), os.fstat(folder).st_uid)
    except OSError:
        return False


def _is_folder(name: str, folder: int) -> bool:
    """Whether it is a folder, or a link to one."""
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder).st_mode)
    except OSError:
        return False


def usual_mode(mode: int) -> int:
    """The mode that a new file or folder gets from this process: less what the umask takes off, so that a group may share it."""
    mask = os.umask(0o077)  # there is no way to read it alone
    os.umask(mask)
    return mode & ~mask
