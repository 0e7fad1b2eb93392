"""Another user of the machine: cannot join, read, stop or alter a run, nor make it touch a file of its owner.

Two real users, made by the test where it is root. What each does runs in a child that has become that user.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch.distributed as dist

from unet_dist.errors import UnetDistError
from unet_dist.imaging.scratch import Scratch
from unet_dist.prediction.journal import FOLDER, Journal
from unet_dist.processes.rendezvous import meeting_file
from unet_dist.processes.stopping import STOP_FILE
from unet_dist.runs.metrics_log import MetricsLog
from unet_dist.storage.files import recover_all, write_whole
from unet_dist.storage.lock import lock_run

OWNER, STRANGER = 23456, 34567
LAUNCH = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "a", "MASTER_PORT": "29500"}

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes root, to be two users")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder such as /tmp, into which everyone may write."""
    folder = Path(tempfile.mkdtemp(prefix="unet-dist-two-users-", dir="/tmp"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def as_user(uid: int, do: Callable[[], object]) -> str:
    """Do something as a user, in a child; gives what came of it, or the error."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _become(uid)
            said = str(do())
        except (OSError, UnetDistError) as error:
            said = f"{type(error).__name__}: {error}"
        except BaseException as error:  # noqa: BLE001, a child must not continue as the test
            said = f"unexpected {type(error).__name__}: {error}"
        os.write(writes, said.encode()[:4000])
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    assert not said.startswith("unexpected"), said
    return said


def _become(uid: int) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    os.umask(0o022)


@contextmanager
def running(folder: Path) -> Iterator[int]:
    """A process of the owner that holds its run's folder; gives its number."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _become(OWNER)
            with lock_run(folder):
                os.write(told, b"1")
                time.sleep(600)
        finally:
            os._exit(1)
    os.close(told)
    try:
        assert os.read(ready, 1) == b"1"
        yield child
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_the_meeting_cannot_be_joined_or_read(shared: Path) -> None:
    def meet() -> object:
        path = meeting_file(LAUNCH, shared)
        dist.FileStore(str(path), 2).set("came", "word")
        return path

    path = Path(as_user(OWNER, meet))
    assert path.is_file()
    before = path.read_bytes()
    assert as_user(STRANGER, lambda: os.listdir(path.parent)).startswith("PermissionError")
    assert as_user(STRANGER, path.read_bytes).startswith("PermissionError")
    assert as_user(STRANGER, lambda: path.open("ab")).startswith("PermissionError")
    assert as_user(STRANGER, path.parent.rmdir).startswith("PermissionError")
    assert as_user(STRANGER, lambda: path.parent.rename(shared / "other")).startswith("PermissionError")
    assert Path(as_user(STRANGER, meet)).parent != path.parent
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_place_to_meet_that_a_stranger_made_is_refused(shared: Path, kind: str) -> None:
    trap = shared / f"unet-dist-{OWNER}"
    private = shared / "private"
    as_user(OWNER, lambda: private.mkdir(mode=0o700))
    as_user(STRANGER, (lambda: trap.mkdir(mode=0o777)) if kind == "folder" else (lambda: trap.symlink_to(private)))
    assert "expected a folder of yours that nobody else" in as_user(OWNER, lambda: meeting_file(LAUNCH, shared))
    assert list(private.iterdir()) == []


def test_a_run_cannot_be_stopped_altered_or_kept_from_its_owner(shared: Path) -> None:
    run = shared / "run"
    with running(run) as process:
        as_user(OWNER, lambda: write_whole(run / "metrics.jsonl", b"{}\n"))
        for attempt in (
            lambda: os.kill(process, signal.SIGTERM),
            lambda: (run / STOP_FILE).touch(),
            lambda: (run / "metrics.jsonl").unlink(),
            lambda: (run / "metrics.jsonl").open("a"),
            lambda: run.rename(shared / "mine"),
            # Whoever holds the lock once the run has ended keeps its owner from resuming it.
            lambda: fcntl.flock(os.open(run / ".lock", os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB),
        ):
            assert as_user(STRANGER, attempt).startswith("PermissionError")
        assert os.waitpid(process, os.WNOHANG) == (0, 0)
    assert sorted(path.name for path in run.iterdir()) == [".lock", "metrics.jsonl"]
    (run / ".lock").chmod(0o644)  # as older releases made it
    with running(run):
        assert (run / ".lock").stat().st_mode & 0o777 == 0o640


def _lock(output: Path) -> None:
    with lock_run(output):
        pass


@pytest.mark.parametrize(
    ("planted", "use"),
    [
        (FOLDER, lambda output: Journal(output).begin({})),
        (".lock", _lock),
        ("metrics.jsonl", lambda output: MetricsLog(output / "metrics.jsonl").append({"step": 1})),
        ("a.labels", lambda output: Scratch(output / "a.labels", (2, 2)).close()),
    ],
)
def test_links_that_a_stranger_planted_lead_nowhere(shared: Path, planted: str, use: Callable[[Path], object]) -> None:
    private = shared / "private"

    def keep() -> None:
        private.mkdir(mode=0o700)
        (private / "done.txt").write_text("precious")

    as_user(OWNER, keep)
    target = private if planted == FOLDER else private / "done.txt"
    as_user(STRANGER, lambda: (shared / planted).symlink_to(target))
    assert as_user(OWNER, lambda: use(shared)).startswith(("DataError", "LaunchError"))
    assert {path.name: path.read_text() for path in private.iterdir()} == {"done.txt": "precious"}


def test_what_a_stranger_left_is_neither_used_nor_in_the_way(shared: Path) -> None:
    """Temporary names of older releases, and a folder that looks like one of ours that stepped aside."""

    def plant() -> None:
        (shared / ".a.partial.json").touch()
        (shared / ".step-00000001.old").mkdir()
        (shared / ".step-00000002.partial").mkdir()

    as_user(STRANGER, plant)
    assert as_user(OWNER, lambda: write_whole(shared / "a.json", b"{}")) == "None"
    assert as_user(OWNER, lambda: recover_all(shared, "step-*")) == "None"
    assert not (shared / "step-00000001").exists()


def test_a_file_of_the_owner_takes_the_place_of_a_link_and_not_of_its_target(shared: Path) -> None:
    """Where the folder is theirs both, as of a group without a sticky bit."""
    shared.chmod(0o777)
    private = shared / "precious.json"
    as_user(OWNER, lambda: private.write_text("precious"))
    for name in ("a.json", ".a.partial.json"):
        as_user(STRANGER, lambda name=name: (shared / name).symlink_to(private))
    assert as_user(OWNER, lambda: write_whole(shared / "a.json", b"{}")) == "None"
    assert private.read_text() == "precious"
    assert not (shared / "a.json").is_symlink()
