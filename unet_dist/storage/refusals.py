"""What a disk refuses, in a sentence.

Owns the reasons of the system and what to do about each. Imports nothing heavy: the command line needs it for its last word.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from unet_dist.errors import DataError
from unet_dist.wording import shorten

_FORBIDDEN = (errno.EACCES, errno.EPERM)
_NAMES = (errno.ENAMETOOLONG, errno.ELOOP)
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)


def writing_failed(path: Path, error: OSError) -> DataError:
    """Say why a file could not be written and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "Make room or choose another output folder, then start the same command again."
    else:
        remedy = "Check that the output folder exists and that you may write to it."
    return DataError(f"{path} could not be written: {error.strerror or error}. {remedy}")


def refusal_of_disk(error: BaseException) -> str | None:
    """Say in a sentence what a disk refused to a library of others, that wrote beside us; None where it is no such error."""
    if isinstance(error, FileNotFoundError) and error.filename is None and _is_cwd_gone():
        return "The folder that this was started in is gone. Change to another one, and start it again."
    if not isinstance(error, OSError) or error.errno not in (*_REFUSALS, *_FORBIDDEN, *_NAMES):
        return None
    name = f"{shorten(str(error.filename))}: " if error.filename else ""
    if error.errno in (*_FORBIDDEN, *_NAMES):
        check = "Check your permissions there, or name" if error.errno in _FORBIDDEN else "Name"
        return f"{name}{error.strerror}. {check} another place."
    return f"{name}{error.strerror}. Make room or mend the disk, then start the same command again: files saved before are whole."


def _is_cwd_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False
