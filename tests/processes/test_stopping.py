"""Proves which signals and files ask a run to stop, which of them wins, and which files stay when it has stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unet_dist.errors import LaunchError
from unet_dist.processes.stopping import NO_WISH, STOP, STOP_AND_REQUEUE, StopWish


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("signals", "wish"),
    [
        ([], NO_WISH),
        ([signal.SIGTERM], STOP),
        ([signal.SIGINT], STOP),
        ([signal.SIGHUP], STOP),  # the terminal was closed
        ([signal.SIGUSR1], STOP_AND_REQUEUE),
        ([signal.SIGTERM, signal.SIGTERM], STOP),  # a launcher's agent repeats it
        ([signal.SIGUSR1, signal.SIGTERM], STOP_AND_REQUEUE),  # the notice before the time limit, then the limit
    ],
)
def test_signals_are_remembered(tmp_path: Path, signals: list[signal.Signals], wish: int) -> None:
    with StopWish(tmp_path, watches_file=True) as asked:
        for number in signals:
            os.kill(os.getpid(), number)
        assert asked.now() == wish


# In a block that would save or wait on the way out, with a worker that ignores what it can.
INTERRUPTED_TWICE = """
import multiprocessing, os, signal, sys, time, pathlib
from unet_dist.processes.stopping import StopWish

def work():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    begun.set()
    time.sleep(600)

fork = multiprocessing.get_context("fork")
begun = fork.Event()
fork.Process(target=work, daemon=True).start()
begun.wait()
print("working", flush=True)
clock = iter([0.0, float(sys.argv[2]), 9.0])
with StopWish(pathlib.Path(sys.argv[1]), watches_file=True, clock=clock.__next__) as wish:
    try:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        print("asked", wish.now(), flush=True)
    finally:
        print("saving", flush=True)
"""


@pytest.mark.parametrize(("seconds", "code"), [(0.3, 0), (1.5, 130)])
def test_second_interrupt_leaves_at_once_and_a_launchers_echo_is_none(
    tmp_path: Path, seconds: float, code: int
) -> None:
    words = [sys.executable, "-c", INTERRUPTED_TWICE, str(tmp_path), str(seconds)]
    # It returns once nobody holds the output any more: the worker has ended, too.
    left = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert left.returncode == code, left.stderr
    assert left.stdout.splitlines() == ["working", *([] if code else [f"asked {STOP}", "saving"])]
    assert ("stopped at once" in left.stderr) == bool(code)


def test_handlers_of_others_come_back(tmp_path: Path) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    with StopWish(tmp_path, watches_file=False):
        assert not set(before) & {signal.getsignal(number) for number in numbers}
    assert [signal.getsignal(number) for number in numbers] == before


def test_stop_file_is_seen_by_the_process_that_watches(tmp_path: Path) -> None:
    """The process looks once per second: the wish of the second before stands until then."""
    moment = [0.0]
    with (
        StopWish(tmp_path, watches_file=True, clock=lambda: moment[0]) as main,
        StopWish(tmp_path, watches_file=False) as other,
    ):
        assert (main.now(), other.now()) == (NO_WISH, NO_WISH)
        (tmp_path / "stop").touch()
        moment[0] = 0.9
        assert (main.now(), other.now()) == (NO_WISH, NO_WISH)
        moment[0] = 1.0
        assert (main.now(), other.now()) == (STOP_AND_REQUEUE, NO_WISH)


def test_leftovers_are_cleared_by_the_process_that_watches(tmp_path: Path) -> None:
    for name in ("stop", "requeue"):
        (tmp_path / name).touch()
    with StopWish(tmp_path, watches_file=False):
        assert names(tmp_path) == {"stop", "requeue"}
    with StopWish(tmp_path, watches_file=True) as wish:
        assert names(tmp_path) == set()
        assert wish.now() == NO_WISH


def test_settled_stop_file_becomes_a_requeue_marker(tmp_path: Path) -> None:
    with StopWish(tmp_path, watches_file=True) as wish:
        (tmp_path / "stop").touch()
        wish.settle(wish.now(), step=7)
    assert names(tmp_path) == {"requeue"}
    assert json.loads((tmp_path / "requeue").read_text()) == {"step": 7}


@pytest.mark.parametrize(("wish", "left"), [(STOP, set()), (NO_WISH, set()), (STOP_AND_REQUEUE, {"requeue"})])
def test_only_a_wish_to_come_back_leaves_a_marker(tmp_path: Path, wish: int, left: set[str]) -> None:
    with StopWish(tmp_path, watches_file=True) as main:
        main.settle(wish, step=1)
    assert names(tmp_path) == left


def test_other_processes_leave_no_marker(tmp_path: Path) -> None:
    with StopWish(tmp_path, watches_file=False) as other:
        other.settle(STOP_AND_REQUEUE, step=1)
    assert names(tmp_path) == set()


def test_run_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopWish(tmp_path, watches_file=True) as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert asked.now() == NO_WISH
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["stop", "requeue"])
def test_folder_with_the_name_of_a_wish_is_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(LaunchError) as refusal, StopWish(tmp_path, watches_file=True):
        pass
    assert str(refusal.value) == (
        f"{tmp_path / name} is a folder, expected none: a file of that name asks the run to stop. Rename it."
    )


def test_a_signal_is_answered_at_once_by_the_main_process_and_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with StopWish(tmp_path, watches_file=True):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert capfd.readouterr().err == "unet-dist: got SIGTERM; stops and saves after the step under way.\n"
    with StopWish(tmp_path, watches_file=False):
        signal.raise_signal(signal.SIGTERM)
    assert capfd.readouterr().err == ""
