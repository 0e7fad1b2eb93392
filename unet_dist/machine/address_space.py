"""The limit that `ulimit -v` sets, under which libraries fail while they are loaded, each in its own words.

Recognises such a failure. Must not import torch or numpy: they may be too large to load.
"""

from __future__ import annotations

import resource

from unet_dist.errors import LaunchError

_LEAST_BYTES = 700 * 2**20
"""Measured: torch 2.13 for CPUs and a small network take 0.8 GiB of addresses; below 0.6, OpenBLAS ends the process."""


def require_address_space() -> None:
    """Refuse to begin where torch cannot be loaded.

    Raises:
        LaunchError: `ulimit -v` allows too little.
    """
    limit = _limit_bytes()
    if limit is not None and limit < _LEAST_BYTES:
        raise LaunchError(_sentence(limit))


def explain_lack(error: BaseException) -> str | None:
    """Say that `ulimit -v` is the reason of a failure in loading or allocating; None where there is no limit, or it is another.

    Loaders say so by an ImportError of a shared object, a MemoryError, or a SystemError without words; torch and threads, which
    need a stack, by a RuntimeError.
    """
    limit = _limit_bytes()
    lacks = ("failed to map", "allocate", "can't start new thread")
    is_lack = isinstance(error, (MemoryError, SystemError)) or any(lack in str(error) for lack in lacks)
    return _sentence(limit) if limit is not None and is_lack else None


def _sentence(limit: int) -> str:
    return (
        f"ulimit -v: this process may use {limit / 2**30:.2f} GiB of addresses, too few for what it loads. Raise the limit "
        "(ulimit -v unlimited), or limit the memory of a job or container instead: addresses are more than memory."
    )


def _limit_bytes() -> int | None:
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if soft == resource.RLIM_INFINITY else soft
