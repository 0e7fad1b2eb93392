"""Folders held by a descriptor. Where others may write, a name can lead elsewhere between a look and a deed; a descriptor cannot.

Owns removing by it. Knows nothing of what lies in the folders.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def held(path: Path | str, *, within: int | None = None, follows: bool = True) -> Iterator[int]:
    """Give the descriptor of a folder: deeds by it (`dir_fd`) stay in this folder, whoever exchanges its name meanwhile.

    Args:
        within: the descriptor of the folder that `path` starts at.
        follows: whether it may be a link.

    Raises:
        OSError: it is not there, no folder, a link that may not be one, or may not be read.
    """
    how = os.O_RDONLY | os.O_DIRECTORY | (0 if follows else os.O_NOFOLLOW)
    folder = os.open(path, how, dir_fd=within)
    try:
        yield folder
    finally:
        os.close(folder)


def remove(name: str, folder: int) -> None:
    """Remove a file, a link, or a folder with all in it, from a folder that is held. Links are not followed."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            with held(name, within=folder, follows=False) as inner:
                for entry in os.listdir(inner):
                    remove(entry, inner)
            os.rmdir(name, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)
