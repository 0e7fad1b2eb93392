"""Files and folders that are whole or not there.

Owns the temporary name, the flush to disk and the rename; and says so in a sentence when the disk refuses. Knows nothing of
what is in them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unet_dist.errors import DataError

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write a file or a folder under; on leaving, it becomes `path` in one step.

    One process writes a `path` at a time.

    When the body raises, what was written goes away and an older `path` stays as it was.

    Raises:
        DataError: the disk is full, the folder cannot be written to, or another refusal of the system.
    """
    # One name for all attempts: what a killed process left is swept by the next. The suffix stays: writers look at it.
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        yield temporary
        _sync(temporary)
        _replace(temporary, path)
        _sync_entry(path.parent)
    except OSError as error:
        raise writing_failed(path, error) from error
    finally:
        with suppress(OSError):  # the reason that brought us here is the one to tell
            _remove(temporary)


def writing_failed(path: Path, error: OSError) -> DataError:
    """Say why a file could not be written and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "Make room or choose another output folder, then start the same command again."
    else:
        remedy = "Check that the output folder exists and that you may write to it."
    return DataError(f"{path} could not be written: {error.strerror or error}. {remedy}")


def refusal_of_disk(error: BaseException) -> str | None:
    """Say in a sentence what a disk refused to a library of others, that wrote beside us; None where it is no such error."""
    if not isinstance(error, OSError) or error.errno not in _REFUSALS:
        return None
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{error.strerror}. Make room or mend the disk, then start the same command again: what was saved before is whole."


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in place of an older one.

    Raises:
        DataError: as `replacing`.
    """
    # Made here or not at all: what somebody else put under that name meanwhile, such as a link, is not written to.
    with replacing(path) as temporary, open(temporary, "xb") as file:
        file.write(content)


def write_whole_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Put a folder in place of an older one, which goes after its successor stands.

    A process that dies between the two renames leaves the older one aside; recover_folder puts it back.

    Raises:
        DataError: as `replacing`.
    """
    with replacing(path) as temporary:
        temporary.mkdir()
        fill(temporary)


def recover_folder(path: Path) -> None:
    """Undo a replacement that a kill cut in two."""
    old = _stepped_aside(path)
    if old.exists():
        if path.exists():
            _remove(old)
        else:
            os.rename(old, path)


def recover_all(folder: Path, pattern: str) -> None:
    """Undo the replacements in a folder that a kill cut in two, and remove what it left half written.

    Args:
        pattern: of the names, such as "step-*".
    """
    for old in folder.glob(f".{pattern}.old"):
        recover_folder(folder / old.name.removeprefix(".").removesuffix(".old"))
    for temporary in folder.glob(f".{pattern}.partial*"):
        _remove(temporary)


def digest(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal.

    Raises:
        OSError: it cannot be read, or is no regular file: a pipe would never answer.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        sha = hashlib.sha256()
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename survives a power cut."""
    _sync_entry(path)


def _sync(path: Path) -> None:
    """Flush a file, or every file and folder below a folder, to disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            _sync_entry(Path(folder, name))
        _sync_entry(Path(folder))
    if not path.is_dir():
        _sync_entry(path)


def _sync_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(temporary: Path, path: Path) -> None:
    recover_folder(path)
    if path.is_dir():  # a folder is not replaced in one step: the old one steps aside first
        old = _stepped_aside(path)
        os.replace(path, old)
        os.replace(temporary, path)
        _remove(old)
    else:
        os.replace(temporary, path)


def _stepped_aside(path: Path) -> Path:
    """Where an older folder waits while its successor takes its name."""
    return path.with_name(f".{path.name}.old")


def usual_mode(mode: int) -> int:
    """The mode that a new file or folder gets from this process: less what the umask takes off, so that a group may share it."""
    mask = os.umask(0o077)  # there is no way to read it alone
    os.umask(mask)
    return mode & ~mask


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
