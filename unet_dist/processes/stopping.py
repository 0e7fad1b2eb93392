"""The wish to stop: signals and the stop file.

Owns what counts as a wish and the marker that asks for a requeue. A handler only sets a flag; the processes agree on it at
a step boundary, elsewhere. A launcher that is gone is such a wish, too.
"""

from __future__ import annotations

import ctypes
import json
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from unet_dist.errors import LaunchError
from unet_dist.storage.files import write_whole

STOP_FILE = "stop"
REQUEUE_MARKER = "requeue"

NO_WISH, STOP, STOP_AND_REQUEUE = 0, 1, 2

# From linux/prctl.h: the signal that a process gets when the thread that started it ends.
PR_SET_PDEATHSIG = 1

ECHO_S = 1.0
"""A SIGINT so soon after the first is the same one, sent on by a launcher."""


LOOK_S = 1.0
"""The stop file is looked for so often at most: on a shared file system a look takes milliseconds, and a step may be as short."""


class StopWish:
    """What this process was asked: nothing, to stop, or to stop and come back.

    SIGTERM, SIGINT and SIGHUP, which a closed terminal sends, ask to stop; SIGUSR1 and a file named stop in the run's folder ask
    to come back as well. A second SIGINT, a second after the first at least, leaves at once: a launcher repeats the terminal's.
    Only the main process looks at the file.

    Args:
        folder: the run's folder.
        watches_file: whether this process looks for the stop file.
        clock: seconds, never going back.
    """

    def __init__(self, folder: Path, watches_file: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._watches_file = watches_file
        self._clock = clock
        self._asked = NO_WISH
        self._next_look_s = -math.inf
        self._interrupted_s: float | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopWish:
        """Clear the traces of an earlier launch, and listen.

        Raises:
            LaunchError: a folder has the name of the stop file.
        """
        if self._watches_file:  # left over from before: it has been acted on, or nobody was there to
            _clear(self._folder / STOP_FILE)
            _clear(self._folder / REQUEUE_MARKER)
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
            if (
                signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
            ):  # as nohup leaves it: then the run is to outlive its terminal
                numbers.append(signal.SIGHUP)
            for number in numbers:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._interrupted_s is None:
                self._interrupted_s = self._clock()
            elif self._clock() - self._interrupted_s >= ECHO_S:
                _leave_at_once()
        if (
            self._watches_file and self._asked == NO_WISH
        ):  # a step may take seconds, and silence looks like a lost signal
            os.write(
                2, f"unet-dist: got {signal.Signals(number).name}; stops and saves after the step under way.\n".encode()
            )
        self._asked = max(self._asked, STOP_AND_REQUEUE if number == signal.SIGUSR1 else STOP)

    def now(self) -> int:
        """NO_WISH, STOP or STOP_AND_REQUEUE, as this process sees it."""
        if self._watches_file and (moment := self._clock()) >= self._next_look_s:
            self._next_look_s = moment + LOOK_S
            if (self._folder / STOP_FILE).exists():
                self._asked = STOP_AND_REQUEUE
        return self._asked

    def settle(self, wish: int, step: int) -> None:
        """Leave what the wish asked for: a requeue marker, and no stop file. Called once, when all is saved."""
        if not self._watches_file:
            return
        if wish == STOP_AND_REQUEUE:
            write_whole(self._folder / REQUEUE_MARKER, (json.dumps({"step": step}) + "\n").encode())
        _clear(self._folder / STOP_FILE)


def _clear(path: Path) -> None:
    """Remove a file that may be there.

    Raises:
        LaunchError: it is a folder.
    """
    if path.is_dir() and not path.is_symlink():
        raise LaunchError(f"{path} is a folder, expected none: a file of that name asks the run to stop. Rename it.")
    path.unlink(missing_ok=True)


def follow_launcher(environment: Mapping[str, str]) -> None:
    """Let Linux send this process SIGTERM when the launcher above it is gone, killed or lost: nobody else would end it.

    Only below torchrun's agent, which accelerate launch uses for several processes too: a shell may end before its jobs.
    """
    if "TORCHELASTIC_RUN_ID" in environment and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def _leave_at_once() -> None:
    """End this process and its workers where they stand: nothing is saved, and earlier checkpoints are whole."""
    for child in multiprocessing.active_children():
        child.kill()
    if sys.stdout.isatty():
        os.write(1, b"\x1b[?25h")  # the cursor, which a progress bar hides
    os.write(
        2, b"unet-dist: stopped at once, without saving. Run the same command to resume from the last checkpoint.\n"
    )
    os._exit(130)
