"""Proves that a run's folder has one owner, that the second learns who, and that the lock goes with its process."""

from __future__ import annotations

import errno
import fcntl
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


def test_a_refusal_leaves_no_folder_that_holds_the_lock_alone(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "first"

    def refuse(*files: str) -> None:
        with lock_run(folder):
            for file in files:
                (folder / file).touch()
            raise LaunchError("refused")

    for files, stays in (((), False), (("log.txt",), True)):
        with pytest.raises(LaunchError, match="refused"):
            refuse(*files)
        assert (tmp_path / "runs").exists() == stays
    (folder / "log.txt").unlink()
    with pytest.raises(LaunchError, match="refused"):
        refuse()
    assert folder.exists(), "it was there before"


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


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_is_told_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Lustre mounted with noflock says ENOSYS: nothing holds the folder."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said: list[str] = []
    with lock_run(tmp_path, say=said.append):
        pass
    assert said == [
        f"output_path: the file system of {tmp_path} has no locks ({os.strerror(code)}), so nothing keeps a second run out. "
        "Start one at a time."
    ]


@pytest.mark.parametrize("make", ["link", "dangling", "folder", "fifo"])
def test_lock_that_is_no_file_is_refused_and_its_target_stays(tmp_path: Path, make: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    lock = folder / ".lock"
    if make == "folder":
        lock.mkdir()
    elif make == "fifo":
        os.mkfifo(lock)
    else:
        lock.symlink_to(precious if make == "link" else tmp_path / "nowhere")
    with pytest.raises(LaunchError) as refusal, lock_run(folder):
        pass
    assert str(refusal.value) == (
        f"output_path: {lock} is not a regular file, expected one that a run made. Remove it, or choose another --output_path."
    )
    assert precious.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two users")
def test_lock_of_another_user_is_a_sentence(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from unet_dist.errors import LaunchError; from unet_dist.storage.lock import lock_run\n"
        "os.setgid(12345); os.setuid(12345)\n"
        "try:\n    with lock_run(pathlib.Path(sys.argv[1])): pass\n"
        "except LaunchError as error: print(error)"
    )
    for parent in (tmp_path, *tmp_path.parents[:3]):
        if parent != Path("/tmp"):
            parent.chmod(0o777)
    with lock_run(tmp_path):
        pass
    (tmp_path / ".lock").chmod(0o644)
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    assert said == (
        f"output_path: {tmp_path}/.lock belongs to another user (uid 0), whose run may be under way. Choose another "
        "--output_path, or have that user make the file writable for you.\n"
    )
