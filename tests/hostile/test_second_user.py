"""Another user of the machine: cannot join, read, stop or alter a run, nor make it touch a file of its owner.

Two real users, made by the test where it is root. What each does runs in a child that has become that user.
"""

from __future__ import annotations

import encodings.idna
import fcntl
import multiprocessing.popen_fork
import multiprocessing.queues
import os
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import torch.distributed as dist
import torch.distributed.elastic.rendezvous.c10d_rendezvous_backend
import zarr
from PIL import Image
from torch.distributed.launcher.api import elastic_launch
from torch.distributed.run import config_from_args, parse_args

from tests.data.pictures import png, write_folder, write_parquet
from unet_dist import UNet
from unet_dist.command_line.parsing import read_yaml
from unet_dist.config.sections import KEYS
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.sources.names import read_id_names
from unet_dist.data.sources.registry import open_source
from unet_dist.errors import UnetDistError
from unet_dist.imaging.reader import open_image
from unet_dist.imaging.scratch import Scratch
from unet_dist.models.registry import load_model
from unet_dist.prediction.journal import FOLDER, Journal
from unet_dist.processes.rendezvous import MEETING, agree_on_session, meeting_file, stay_on_loopback
from unet_dist.processes.starting import LAUNCHER_ENVIRONMENT, launch_command
from unet_dist.processes.stopping import STOP_FILE
from unet_dist.runs.metrics_log import MetricsLog, read_metrics
from unet_dist.storage.files import recover_all, write_whole
from unet_dist.storage.lock import lock_run

OWNER, STRANGER = 23456, 34567
LOADED = (encodings.idna, multiprocessing.popen_fork, multiprocessing.queues)
"""Which a launcher loads late: Python may lie where the owner cannot look."""

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


def _work(folder: str) -> None:
    """What a launched process does: meets the other, waits, and computes with it once more."""
    stay_on_loopback(os.environ)
    dist.init_process_group("gloo", init_method=MEETING, timeout=timedelta(seconds=120))
    place, total = Path(folder), torch.ones(1)
    dist.all_reduce(total)
    (place / f"ready{os.environ['RANK']}").write_text(str(total.item()))
    for _ in range(15_000):  # five minutes, and no longer, where the test was killed
        if (place / "go").exists():
            break
        time.sleep(0.02)
    dist.all_reduce(total)
    (place / f"done{os.environ['RANK']}").write_text(str(total.item()))
    dist.destroy_process_group()


def _launch(folder: Path) -> None:
    """Start two processes as --processes 2 does, but by forking."""
    tempfile.tempdir = str(folder)
    os.environ |= LAUNCHER_ENVIRONMENT
    own = Path(tempfile.mkdtemp(dir=folder))
    config, _, _ = config_from_args(parse_args(launch_command(["train"], 2, {}, folder=own)[4:]))
    config.start_method = "fork"
    elastic_launch(config, _work)(str(folder))


def _listening(process: int) -> list[str]:
    """The addresses on which a process listens, as the kernel writes them."""
    with suppress(FileNotFoundError):
        links = [os.readlink(link) for link in Path(f"/proc/{process}/fd").iterdir()]
        lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()]
        return [line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in links]
    return []


def test_a_launched_run_cannot_be_joined_read_stopped_or_altered(shared: Path) -> None:
    folder = shared / "own"
    as_user(OWNER, lambda: folder.mkdir(mode=0o755))
    launcher = os.fork()
    if launcher == 0:
        try:
            os.setsid()
            _become(OWNER)
            _launch(folder)
            os._exit(0)
        except BaseException:  # noqa: BLE001, a child must not continue as the test
            traceback.print_exc()
        finally:
            os._exit(1)
    try:
        while not all((folder / f"ready{rank}").exists() for rank in range(2)):
            assert os.waitpid(launcher, os.WNOHANG) == (0, 0), "it ended"
            time.sleep(0.02)
        assert _listening(launcher) == [], "its store asks nobody for a password, and is unpickled"
        workers = [int(word) for word in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]
        assert len(workers) == 2
        addresses = {address for worker in workers for address in _listening(worker)}
        assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}

        def attack() -> object:
            for file in folder.rglob("*"):
                if file.is_file() and not file.name.startswith("ready"):
                    with suppress(PermissionError):
                        return f"reads {file}: {file.read_bytes()[:100]!r}"
            for forbidden in (
                lambda: Path(f"/proc/{launcher}/environ").read_bytes(),
                lambda: os.kill(launcher, signal.SIGTERM),
                lambda: (folder / "go").touch(),
            ):
                with suppress(PermissionError):
                    return forbidden() or "not forbidden"
            return "nothing"

        assert as_user(STRANGER, attack) == "nothing"
        as_user(OWNER, (folder / "go").touch)
        assert os.waitpid(launcher, 0)[1] == 0
        assert [(folder / f"done{rank}").read_text() for rank in range(2)] == ["4.0", "4.0"]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(launcher, signal.SIGKILL)


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


@contextmanager
def meddling(port: int) -> Iterator[None]:
    """A stranger who reaches the store of a launcher, as anyone does, and answers and asks in it every 30 ms."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _become(STRANGER)
            store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=60))
            while True:
                came = store.get("unet_dist/came/1").decode() if store.check(["unet_dist/came/1"]) else "word "
                store.set("unet_dist/welcome/" + came.split()[0], "theirs 00ff")
                store.set("unet_dist/came/1", "theirs 00ff")
                store.set("unet_dist/joined/theirs/1", "1 00ff")
                os.write(told, b"1")
                time.sleep(0.03)
        finally:
            os._exit(1)
    try:
        assert os.read(ready, 1) == b"1"
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(told)


def test_a_stranger_in_the_store_of_several_nodes_does_not_join() -> None:
    """Who signs with the secret of the job meets; without it the stranger's answer would do."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def meet(rank: int) -> str:
        store = dist.TCPStore("127.0.0.1", server.port, is_master=False)
        return agree_on_session(store, rank, 2, timedelta(seconds=120), secret="of the job")

    with meddling(server.port), ThreadPoolExecutor(2) as pool:
        first, second = pool.map(meet, range(2))
    assert first == second != "theirs"


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


def _write_everything(folder: Path) -> None:
    """One of each kind of file that is read."""
    pixels = np.zeros((6, 8, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    tifffile.imwrite(folder / "a.tif", pixels, photometric="rgb")
    tifffile.imwrite(folder / "b.tif", pixels, photometric="rgb", compression="deflate")
    np.save(folder / "a.npy", pixels)
    zarr.create_array(str(folder / "a.zarr"), data=pixels)
    write_folder(folder / "pairs", num_pairs=4)
    write_parquet(folder / "table" / "data" / "train.parquet", [(png(pixels), png(pixels[..., 0]))] * 4)
    UNet(3, 4, base_channels=2, depth=1).save_pretrained(folder / "model")
    (folder / "config.yaml").write_text("batch_size: 2")
    (folder / "id2label.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("{}")


def _read_image(path: Path) -> object:
    with open_image(path) as reader:
        return reader.read(0, 1, 0, 1)


def _prepare(data: Path) -> object:
    with tempfile.TemporaryDirectory() as caches:
        return prepare(open_source(data), CacheSettings(num_classes=9), seed=0, cache_path=caches)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        *((name, _read_image) for name in ("a.png", "a.tif", "b.tif", "a.npy", "a.zarr")),
        *((name, _prepare) for name in ("pairs", "table")),
        ("model", load_model),
        ("config.yaml", lambda path: read_yaml(str(path), list(KEYS))),
        ("id2label.json", read_id_names),
        ("metrics.jsonl", read_metrics),
    ],
)
def test_what_may_not_be_read_is_a_sentence(readable: Path, name: str, read: Callable[[Path], object]) -> None:
    """Whether the file may not be read, or the folder that it lies in."""
    for place, mode in ((readable / name, 0o700), (readable / name, 0o311)):
        files = [place, *(path for path in place.rglob("*") if path.is_file())] if place.is_dir() else [place]
        for path in files:
            path.chmod(mode & (0o777 if path.is_dir() else 0o600))
        said = as_user(STRANGER, lambda place=place: read(place))
        assert said.split(":")[0] in ("DataError", "RefusedError", "ConfigError", "CheckpointError"), said
        assert name.split(".")[0] in said or "data" in said, said


@pytest.fixture(scope="module")
def readable() -> Iterator[Path]:
    """Files of the owner's in a folder that everyone may read."""
    folder = Path(tempfile.mkdtemp(prefix="unet-dist-two-users-", dir="/tmp"))
    _write_everything(folder)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, OWNER, OWNER)
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield folder
    shutil.rmtree(folder)


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
