"""One case of damage and what became of it: read, refused, or one of the faults that must not be.

A case is a subject and a seed, so that it can be had again. It works in a folder of its own, beside which lies another that
nobody may touch.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import random
import shutil
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.hostile.mutators import damage_folder
from unet_dist.errors import UnetDistError

READ, REFUSED = "read", "refused"
TRACEBACK, HANG, MEMORY, WRONG, OUTSIDE, CRASH = "traceback", "hang", "memory", "wrong", "outside", "crash"
FAULTS = (TRACEBACK, HANG, MEMORY, WRONG, OUTSIDE, CRASH)
HANG_S, SILENCE_S = 20, 120
"""Of the processor, and of the clock: a busy machine takes its time, and who waits for a pipe takes no processor's."""


@dataclass(frozen=True)
class Subject:
    """Something that reads what may come from others.

    Attributes:
        name: of it.
        make: writes sound material into a folder; returns all that judging a reader of it takes.
        use: reads the folder, and compares with that; raises Wrong where what it got is neither right nor refused.
        weight: how often it is drawn beside others.
        compare: the same with what others make of the files, by what `use` returned: their memory is not ours.
    """

    name: str
    make: Callable[[Path], object]
    use: Callable[[Path, object], object]
    weight: int = 1
    compare: Callable[[Any], None] = lambda read: None


class Wrong(AssertionError):
    """A reader gave something else than the file says, and no warning."""


class _Hang(BaseException):
    """Too long; no Exception, so that nobody takes it for a parser's."""


@dataclass(frozen=True)
class Verdict:
    """What became of a case: READ, REFUSED or a fault, what had been done to the files, and the words of the refusal or fault."""

    kind: str
    damage: str
    words: str = ""


class Judge:
    """Judges cases of some subjects below a folder.

    Args:
        budget_bytes: of memory that a case may take beyond what the process had.
    """

    def __init__(self, root: Path, subjects: list[Subject], budget_bytes: int = 2**29) -> None:
        self.subjects = {subject.name: subject for subject in subjects}
        self._root, self._budget_bytes = root, budget_bytes
        self._outside = root / "outside"
        (self._outside / "kept").mkdir(parents=True)
        (self._outside / "precious.txt").write_text('{"precious": 1}\n')
        (self._outside / "kept" / "done-00000.txt").write_text("batch 1\n")
        (self._outside / "kept" / "settings.json").write_text("{}")
        self._known = {}
        for name, subject in self.subjects.items():
            (root / "sound" / name).mkdir(parents=True)
            self._known[name] = subject.make(root / "sound" / name)
            subject.use(self._copy(name), self._known[name])  # what is sound must be read

    def draw(self, seed: int) -> str:
        """The subject of a case."""
        names = list(self.subjects)
        return random.Random(f"subject {seed}").choices(names, [one.weight for one in self.subjects.values()])[0]

    def judge(self, seed: int, name: str | None = None) -> Verdict:
        """Make a case and say what became of it."""
        name = name or self.draw(seed)
        rng = random.Random(f"{name} {seed}")
        folder, subject = self._copy(name), self.subjects[name]
        told = damage_folder(folder, self._outside, rng)
        before = _snapshot(self._outside)
        with _peak_bytes() as peak, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read: list[object] = []
            kind, words = _outcome(lambda: read.append(subject.use(folder, self._known[name])))
        if kind == READ:
            kind, words = _outcome(lambda: subject.compare(read[0]))
        if _snapshot(self._outside) != before:
            kind, words = OUTSIDE, "a file outside was touched"
        if kind in (READ, REFUSED) and peak[0] > self._budget_bytes:
            kind, words = MEMORY, f"{peak[0]:,} bytes; {words}"
        return Verdict(kind, told, words)

    def _copy(self, name: str) -> Path:
        folder = self._root / "case"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._root / "sound" / name, folder, symlinks=True)
        return folder


def _outcome(do: Callable[[], None]) -> tuple[str, str]:
    try:
        with _time_limit():
            do()
        return READ, ""
    except UnetDistError as error:
        return REFUSED, str(error)
    except Wrong as error:
        return WRONG, str(error)
    except _Hang:
        return HANG, traceback.format_exc(limit=-6)
    except Exception:  # noqa: BLE001, it is what is looked for
        return TRACEBACK, traceback.format_exc(limit=-6)


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _Hang

    timers = ((signal.ITIMER_PROF, signal.SIGPROF, HANG_S), (signal.ITIMER_REAL, signal.SIGALRM, SILENCE_S))
    before = [signal.signal(number, interrupt) for _, number, _ in timers]
    for timer, _, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (timer, number, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


@contextlib.contextmanager
def _peak_bytes() -> Iterator[list[int]]:
    """Fill in how much memory was taken inside the block, at its peak, beyond the memory in use; 0 where the system does not say.

    What the C library keeps of freed memory (unet_dist.machine.allocator asks it to) is given back first: the block would take
    it unseen. Nor may old garbage be collected inside, which would make room unseen.
    """
    peak = [0]
    collecting = gc.isenabled()
    gc.disable()
    try:
        getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: 0)(0)  # musl has none
        try:
            Path("/proc/self/clear_refs").write_text("5")
            before = _memory("VmRSS")
        except OSError:
            yield peak
            return
        yield peak
        peak[0] = _memory("VmHWM") - before
    finally:
        if collecting:
            gc.enable()


def _memory(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key + ":"))


def _snapshot(folder: Path) -> list[tuple[str, int, int, int]]:
    found = []
    for place, _, names in os.walk(folder):
        for path in (Path(place), *(Path(place, name) for name in names)):
            status = path.lstat()
            found.append((str(path), status.st_mode, status.st_size, status.st_mtime_ns))
    return sorted(found)
