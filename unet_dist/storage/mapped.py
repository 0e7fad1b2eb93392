"""Mapped files that somebody cuts short. The kernel ends a process (SIGBUS) that reads a page which is no longer there; here a
sentence comes first.

Owns that last word. Knows nothing of the files' content.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import weakref

import numpy as np

from unet_dist.wording import printable

_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int)
_mapped: weakref.WeakKeyDictionary[mmap.mmap, tuple[str, int]] = weakref.WeakKeyDictionary()
"""The file of each mapping that is still there, and how many bytes it must have."""
_handlers: list[tuple[object, int | None]] = []
"""Ours, kept as the kernel has its address alone, and the one before it."""


def watched(mapped: np.ndarray) -> np.ndarray:
    """Give the values of a map, as a plain array; should a page of its file be gone once it is read, the process says which file.

    Args:
        mapped: as np.memmap or np.load gives it; an array in memory stays as it is.
    """
    if not isinstance(mapped, np.memmap) or not isinstance(mapped.filename, (str, os.PathLike)):
        return np.asarray(mapped)
    memory: object = mapped
    while isinstance(memory, np.ndarray):
        memory = memory.base
    if isinstance(memory, mmap.mmap):
        _mapped[memory] = str(mapped.filename), mapped.offset + mapped.nbytes
    if not _handlers:
        signal_of_c = ctypes.CDLL(None).signal
        signal_of_c.restype = ctypes.c_void_p
        handler = _Handler(_explain)
        _handlers.append((handler, signal_of_c(int(signal.SIGBUS), handler)))
    return np.asarray(mapped)


def _explain(number: int) -> None:
    """Say which file was cut short, and leave, as to return is to read the page again. Else ask the handler before."""
    for path, expected in list(_mapped.values()):
        try:
            size = os.stat(path).st_size
        except OSError:
            continue  # its name is gone, and the mapping is whole
        if size < expected:
            words = f"{printable(path)}: it was cut short while it was read, from {expected:,} bytes to {size:,}."
            os.write(2, f"{words} Copy it again or make it anew, then start the same command again.\n".encode())
            os._exit(2)
    ctypes.CDLL(None).signal(number, ctypes.c_void_p(_handlers[0][1]))
