"""Files that are whole or not there.

Owns the temporary name, the flush to disk and the rename; and says so in a sentence when the disk refuses.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unet_dist.errors import DataError


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
    if path.is_dir():  # a folder is not replaced in one step: the old one steps aside first
        old = temporary.with_name(temporary.name + ".old")
        _remove(old)
        os.replace(path, old)
        os.replace(temporary, path)
        _remove(old)
    else:
        os.replace(temporary, path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
