"""How much memory and time decoding one piece of an image may take.

Owns the two limits, which hold for the whole process, and the threads that decode. A decoder of C code that does not come back
cannot be interrupted: its thread is left to itself, and the image is refused by name. Knows no file format.
"""

from __future__ import annotations

import os
import queue
import resource
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from unet_dist.config.quantities import parse_bytes
from unet_dist.errors import RefusedError
from unet_dist.machine.control_groups import group_memory
from unet_dist.wording import duration

T = TypeVar("T")


@dataclass(frozen=True)
class DecodeLimits:
    """What opening an image, or decoding one piece of it, may take.

    Attributes:
        memory_bytes: None takes a quarter of this process's memory.
        seconds: by the clock.
    """

    memory_bytes: int | None = None
    seconds: float = 300.0


_limits = DecodeLimits()


def limit_decoding(memory: str | None, seconds: float) -> None:
    """Set the limits of this process, and of the workers that it forks from now on, as two keys of the same names say them."""
    global _limits
    _limits = DecodeLimits(None if memory is None else parse_bytes(memory), seconds)


def decode_budget_bytes() -> int:
    """Say how much memory decoding one piece of an image may take."""
    return _quarter_of_memory() if _limits.memory_bytes is None else _limits.memory_bytes


def decode_seconds() -> float:
    """Say how long decoding one piece may take, by the clock."""
    return _limits.seconds


@cache
def _quarter_of_memory() -> int:
    """A quarter of the machine's, or of the limit that a control group or `ulimit` sets for this process."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *(limit for limit, _ in group_memory())]
    limits += [
        limit for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA) if (limit := resource.getrlimit(kind)[0]) > 0
    ]
    return min(limits) // 4


def require_decodable(height: int, width: int, max_pixels: int, name: str, *, bytes_per_px: int = 1) -> None:
    """Refuse to decode more pixels or bytes in one piece than the limits, before any is decoded.

    Args:
        bytes_per_px: that decoding takes, of all copies there are at a time.

    Raises:
        RefusedError: height * width exceeds max_pixels, or its bytes the budget.
    """
    if height * width > max_pixels:
        raise RefusedError(
            f"{name} must be decoded in one piece of {height} x {width} = {height * width:,} px, and max_pixels is "
            f"{max_pixels:,}",
            "If you trust the file, raise max_pixels; a tiled TIFF or a Zarr array is read by windows and has no limit.",
        )
    needed, budget = height * width * bytes_per_px, decode_budget_bytes()
    if needed > budget:
        limit = "a quarter of the memory for this process" if _limits.memory_bytes is None else "decode_memory"
        raise RefusedError(
            f"{name} must be decoded in one piece of {height} x {width} px, which takes {needed / 2**30:.1f} GiB, and "
            f"{limit} is {budget / 2**30:.1f} GiB",
            "If you trust the file, raise decode_memory; or write it as tiled TIFF or Zarr, which are read by windows.",
        )


def in_time(name: str, decode: Callable[[], T]) -> T:
    """Run a decoder for as long as the limit allows, in a thread beside this one; gives its result or raises its error.

    Costs 8 microseconds (measured). Decoders release the interpreter's lock, so that the wait can end.

    Args:
        name: of the image.

    Raises:
        RefusedError: it took longer. It is left alone, and ends with the process at the latest.
    """
    if getattr(_own, "decodes", False):  # within another decoder, whose limit holds
        return decode()
    decoder: _Decoder | None = getattr(_own, "decoder", None)
    if decoder is None or not decoder.thread.is_alive():  # the first time, or in a forked child
        decoder = _Decoder()
    _own.decoder = None  # given up unless it answers
    seconds = _limits.seconds
    result = decoder.run(decode, seconds)
    if result is None:
        raise RefusedError(
            f"{name} takes longer than {duration(seconds)} to decode",
            "Leave it out, or write it anew; if you trust the file, raise decode_seconds.",
        )
    _own.decoder = decoder
    return result()


_own = threading.local()


class _Decoder:
    """A thread that decodes for another; it ends when it is no longer referred to."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self.thread = threading.Thread(
            target=_serve, args=(self._asked, self._answers), name="decoder", daemon=True
        )  # a daemon, so that one that hangs does not keep the process
        self.thread.start()

    def run(self, decode: Callable[[], T], seconds: float) -> Callable[[], T] | None:
        """Give what returns the result or raises the error; None when the time is over."""
        self._asked.put(decode)
        try:
            return self._answers.get(timeout=seconds)  # type: ignore[return-value]
        except queue.Empty:
            return None

    def __del__(self) -> None:
        self._asked.put(None)


def _serve(
    asked: queue.SimpleQueue[Callable[[], object] | None], answers: queue.SimpleQueue[Callable[[], object]]
) -> None:
    _own.decodes = True
    while (decode := asked.get()) is not None:
        answers.put(_outcome(decode))
        del decode  # what it holds, such as an image, goes with its owner


def _outcome(decode: Callable[[], object]) -> Callable[[], object]:
    try:
        result = decode()
    except BaseException as error:  # noqa: BLE001, it is raised where it was asked for
        return _Raising(error)
    return lambda: result


@dataclass
class _Raising:
    error: BaseException

    def __call__(self) -> object:
        try:
            raise self.error
        finally:
            del self.error  # it holds this frame, and this frame it: a circle around an image
