"""Proves how a launch by --processes ends: with the exit code of the process that failed first, and without torch's table."""

from __future__ import annotations

import logging
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from unet_dist.processes.starting import launch_command
from unet_dist.processes.torchrun import main

WATCHED = "until test -e watched; do sleep 0.01; done"
"""The launcher looks after its processes: it forgets one that it is just starting when a signal comes."""
LISTENED = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")


@pytest.fixture(autouse=True)
def shared_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A launcher's signals and log end with it; here it shares the test's process."""
    sleep = time.sleep

    def note_and_sleep(seconds: float) -> None:
        if sys._getframe(1).f_code.co_name == "_invoke_run":  # of torch's agent, between two looks at its processes
            (tmp_path / "watched").touch()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", note_and_sleep)
    monkeypatch.chdir(tmp_path)
    previous = {name: signal.getsignal(getattr(signal, name)) for name in LISTENED}
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # forgets one that is pending
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
        for name, handler in previous.items():
            signal.signal(getattr(signal, name), handler)
        logging.disable(logging.NOTSET)


def _launch(folder: Path, script: str, count: int) -> int:
    """Launch processes of a shell as --processes launches ours; returns the exit code."""
    folder.mkdir()
    words = launch_command([], count, {}, folder=folder)[4:]
    with pytest.raises(SystemExit) as left:
        main(folder, [*words[: words.index("-m")], "--no-python", "sh", "-c", script.replace("$WATCHED", WATCHED)])
    assert not folder.exists(), "its state is removed"
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.mark.parametrize(
    ("script", "count", "code", "said"),
    [
        ("exit 0", 2, 0, ""),
        # Torch ends the other by SIGTERM, which is no cause.
        ('test "$RANK" = 0 && exec sleep 300; exit 2', 2, 2, ""),
        (
            "kill -KILL $$$$",
            1,
            137,
            r"error: process 0 \(pid \d+\) was ended by SIGKILL\. .* memory ran out: .* to resume\.\n",
        ),
        # A process that listens stops in order, one that does not yet is ended.
        ("trap 'exit 0' TERM; $WATCHED; kill -TERM $PPID; while :; do :; done", 1, 0, ""),
        ("trap 'exit 1' TERM; $WATCHED; kill -TERM $PPID; while :; do :; done", 1, 1, ""),
        (
            "$WATCHED; kill -TERM $PPID; exec sleep 300",
            1,
            143,
            r"stopped by SIGTERM; files written before are whole\. Run .*\n",
        ),
        (
            "$WATCHED; kill -INT $PPID; exec sleep 300",
            1,
            130,
            r"stopped by SIGINT; files written before are whole\. Run .*\n",
        ),
    ],
)
def test_end_of_a_launch(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], script: str, count: int, code: int, said: str
) -> None:
    assert _launch(tmp_path / "launch", script, count) == code
    assert re.fullmatch(f"unet-dist: {said}" if said else "", capfd.readouterr().err)


def test_a_closed_terminal_does_not_end_what_nohup_started(tmp_path: Path) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert _launch(tmp_path / "launch", "$WATCHED; kill -HUP $PPID", 1) == 0
