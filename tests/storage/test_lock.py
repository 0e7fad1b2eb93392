"""Proves that a run's folder has one owner, that the second is told who, and that the lock goes with its process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from unet_dist.errors import LaunchError
from unet_dist.storage.lock import lock_run


def test_second_owner_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with lock_run(folder), pytest.raises(LaunchError) as refusal, lock_run(folder):
        pass
    sentence = str(refusal.value)
    assert sentence.startswith(f"output_path: {folder} is held by another run: {{")
    assert f'"host": "{socket.gethostname()}", "pid": {os.getpid()}, "since": "' in sentence
    assert sentence.endswith(" Wait for it, stop it, or choose another --output_path.")


def test_lock_is_free_again_after_its_owner_left(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="of its own"), lock_run(tmp_path):
        raise RuntimeError("of its own")
    with lock_run(tmp_path):
        pass


def test_lock_goes_with_a_killed_process(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from unet_dist.storage.lock import lock_run\n"
        "with lock_run(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(LaunchError, match=f'"pid": {owner.pid}'), lock_run(tmp_path):
            pass
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        with lock_run(tmp_path):
            pass


def test_child_that_outlives_its_process_holds_nothing(tmp_path: Path) -> None:
    """As a crop worker does for seconds after its rank was killed: the same command must start again at once."""
    code = (
        "import os, signal, sys, pathlib; from unet_dist.storage.lock import lock_run\n"
        "with lock_run(pathlib.Path(sys.argv[1])):\n"
        "    if not os.fork(): print(os.getpid(), flush=True)\n"
        "    signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        with pytest.raises(LaunchError), lock_run(tmp_path):
            pass
        owner.kill()
        owner.wait()
        os.kill(child, 0)  # it is there still
        with lock_run(tmp_path):
            os.kill(child, signal.SIGKILL)


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LaunchError) as refusal, lock_run(tmp_path / "file/run"):
        pass
    assert str(refusal.value) == (
        f"output_path: cannot write to {tmp_path}/file/run: Not a directory. Choose another --output_path, or mend the folder."
    )
