"""A folder's name that leads elsewhere half-way, since somebody else may write into the folder above: nothing there is removed or
replaced. Each test exchanges the folder between the look and the deed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unet_dist.errors import DataError, LaunchError
from unet_dist.imaging.png import write_png
from unet_dist.prediction.journal import FOLDER, Done, Journal
from unet_dist.report.pictures import remove_pictures
from unet_dist.runs import checkpoint as checkpoints
from unet_dist.storage import files, held, lock, once
from unet_dist.storage.files import recover_all, replacing, write_whole, write_whole_folder
from unet_dist.storage.lock import lock_run

Exchange = Callable[[], None]


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text("latin-1") for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """Somebody's folder, with files of the names that are replaced and removed elsewhere."""
    folder = tmp_path / "precious"
    for name in (
        *("a.txt", ".a.partial.txt", ".a.0123456789abcdef.partial.txt", ".folder.old/in.txt", "folder/in.txt", ".lock"),
        *("settings.json", "stop", "done.txt", "done-00001.txt", "00000000.labels"),
        *(f"step-0000000{step}/state.json" for step in range(1, 6)),
        *("test-0.webp", f".cache.{once._host()}.abc.partial/x.bin"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")
    return folder


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    folder = tmp_path / "shared" / "ours"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def exchange(ours: Path, precious: Path) -> Exchange:
    """Lets the name of our folder lead to theirs, once."""

    def do() -> None:
        if not ours.is_symlink():
            ours.rename(ours.with_name("aside"))
            ours.symlink_to(precious)

    return do


def after(call: Callable[..., Any], do: Exchange) -> Callable[..., Any]:
    def both(*words: Any, **options: Any) -> Any:
        result = call(*words, **options)
        do()
        return result

    return both


def before(call: Callable[..., Any], do: Exchange) -> Callable[..., Any]:
    def both(*words: Any, **options: Any) -> Any:
        do()
        return call(*words, **options)

    return both


@pytest.mark.parametrize("step", ["_sweep", "_sync", "_replace", "_recover"])
@pytest.mark.parametrize("write", ["file", "folder", "picture"])
def test_what_is_written_whole_replaces_nothing_elsewhere(
    ours: Path, precious: Path, exchange: Exchange, monkeypatch: pytest.MonkeyPatch, step: str, write: str
) -> None:
    """Exchanged before each step; a leftover of a kill is swept in the folder that was looked at."""
    (ours / ".a.partial.txt").write_text("left by a kill")
    kept = contents(precious)
    monkeypatch.setattr(files, step, before(getattr(files, step), exchange))
    write_it: dict[str, Exchange] = {
        "file": lambda: write_whole(ours / "a.txt", b"ours"),
        "folder": lambda: write_whole_folder(ours / "folder", lambda folder: None),
        "picture": lambda: write_png(ours / "a.txt", np.zeros((2, 2), np.uint8)),
    }
    with suppress(DataError):
        write_it[write]()
    assert ours.is_symlink()
    left = contents(precious)
    assert {name: left.get(name) for name in kept} == kept


def test_a_writer_that_is_led_elsewhere_is_refused(ours: Path, precious: Path, exchange: Exchange) -> None:
    def write() -> None:
        with replacing(ours / "a.txt") as temporary:
            exchange()
            temporary.write_text("ours")

    kept = contents(precious)
    with pytest.raises(DataError, match="could not be written"):
        write()
    left = contents(precious)
    assert {name: left.get(name) for name in kept} == kept


def test_recovery_removes_nothing_elsewhere(
    ours: Path, precious: Path, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".folder.old", "folder", ".a.partial.txt"):
        (ours / name).mkdir()
    kept = contents(precious)
    monkeypatch.setattr(files, "_is_own", after(files._is_own, exchange))
    recover_all(ours, "*")
    assert ours.is_symlink()
    assert contents(precious) == kept
    assert [path.name for path in ours.with_name("aside").iterdir()] == ["folder"]


@pytest.mark.parametrize("act", ["begin", "compact", "remove", "scratches"])
@pytest.mark.parametrize("moment", ["before it is held", "after it is held"])
def test_a_journal_removes_nothing_elsewhere(
    tmp_path: Path, precious: Path, monkeypatch: pytest.MonkeyPatch, act: str, moment: str
) -> None:
    journal = Journal(tmp_path / "out")
    journal.folder.mkdir(parents=True)
    kept = contents(precious)

    def do() -> None:
        if not journal.folder.is_symlink():
            journal.folder.rename(tmp_path / "aside")
            journal.folder.symlink_to(precious)

    if moment == "before it is held":
        monkeypatch.setattr(journal, "_held", before(journal._held, do))
    else:
        listdir = os.listdir
        monkeypatch.setattr(os, "listdir", lambda folder: (listdir(folder), do())[0])
        monkeypatch.setattr("unet_dist.prediction.journal.remove", before(held.remove, do))
    acts: dict[str, Exchange] = {
        "begin": lambda: journal.begin({}),
        "compact": lambda: journal.compact(Done()),
        "remove": journal.remove,
        "scratches": lambda: journal.remove_scratches(0, ["labels"]),
    }
    with suppress(DataError, OSError):
        acts[act]()
    assert journal.folder.is_symlink()
    assert contents(precious) == kept
    assert journal.folder.name == FOLDER


def test_pictures_of_elsewhere_stay(
    ours: Path, precious: Path, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ours / "test-0.webp").touch()
    kept = contents(precious)
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: (listdir(folder), exchange())[0])
    remove_pictures(ours, "test", [])
    assert ours.is_symlink()
    with pytest.raises(DataError, match="could not be written"):
        remove_pictures(ours, "test", [])
    assert contents(precious) == kept


def test_checkpoints_of_elsewhere_stay(
    ours: Path, precious: Path, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of another run, whose older ones have the names of ours."""
    for step in range(1, 6):
        (ours / f"step-0000000{step}").mkdir()
    kept = contents(precious)
    monkeypatch.setattr(checkpoints, "write_checkpoint", lambda folder, checkpoint: None)
    monkeypatch.setattr(checkpoints, "list_checkpoints", after(checkpoints.list_checkpoints, exchange))
    writer = checkpoints.CheckpointWriter(ours, keep=1)
    writer._write(None, lambda: None)  # type: ignore[arg-type]
    writer.close()
    assert ours.is_symlink()
    assert contents(precious) == kept


def test_a_lock_of_elsewhere_stays(tmp_path: Path, precious: Path) -> None:
    shutil.rmtree(precious)
    precious.mkdir()
    (precious / ".lock").write_text("of another run")
    run = tmp_path / "run"

    def fail() -> None:
        with lock_run(run):
            run.rename(tmp_path / "aside")
            run.symlink_to(precious)
            raise LaunchError("it fails")

    with pytest.raises(LaunchError, match="fails"):
        fail()
    assert contents(precious) == {".lock": "of another run"}
    assert lock._held == set()


def test_half_made_caches_of_elsewhere_stay(
    ours: Path, precious: Path, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = f".cache.{once._host()}.abc.partial"
    (ours / left).mkdir()
    kept = contents(precious)
    monkeypatch.setattr(once, "remove", before(once.remove, exchange))
    once._remove_partial(ours / "cache")
    assert ours.is_symlink()
    assert contents(precious) == kept
    assert not (ours.with_name("aside") / left).exists()
