"""Proves that files and folders appear whole or not at all, also when the process dies between any two steps."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unet_dist.errors import DataError
from unet_dist.storage.files import (
    append_to,
    digest,
    recover_folder,
    replacing,
    usual_mode,
    write_whole,
    write_whole_folder,
)


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def fill_with(text: str) -> object:
    """A filler that writes two files, one in a folder of its own."""

    def fill(folder: Path) -> None:
        (folder / "a").write_text(text)
        (folder / "inner").mkdir()
        (folder / "inner/b").write_text(text)

    return fill


def whole(text: str, name: str = "best") -> dict[str, str]:
    return {f"{name}/a": text, f"{name}/inner/b": text}


# ------------------------------------------------------------------------------------------------------------- files


def test_file_replaces_an_older_one_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", b"old")
    write_whole(tmp_path / "a.json", b"new")
    assert content(tmp_path) == {"a.json": "new"}


def test_file_that_cannot_be_written_leaves_the_older_one(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", b"old")
    with pytest.raises(TypeError):
        write_whole(tmp_path / "a.json", "no bytes")  # type: ignore[arg-type]
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="could not be written"):
        write_whole(tmp_path / "file/a.json", b"new")
    (tmp_path / "file").unlink()
    assert content(tmp_path) == {"a.json": "old"}


# ----------------------------------------------------------------------------------------------------------- folders


def test_folder_replaces_an_older_one_and_leaves_nothing_beside(tmp_path: Path) -> None:
    for text in ("old", "new"):
        write_whole_folder(tmp_path / "best", fill_with(text))  # type: ignore[arg-type]
    assert content(tmp_path) == whole("new")


def test_folder_whose_filling_fails_leaves_the_older_one(tmp_path: Path) -> None:
    write_whole_folder(tmp_path / "best", fill_with("old"))  # type: ignore[arg-type]

    def fail(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"No space left.*Make room"):
        write_whole_folder(tmp_path / "best", fail)
    assert content(tmp_path) == whole("old")


# Dies like a killed process, without any clean-up, just before the N-th rename or removal.
DIE = """
import os, sys
from pathlib import Path
from unet_dist.errors import DataError
from unet_dist.storage.files import write_whole_folder

left = int(sys.argv[2])

def dying(function):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return function(*args, **kwargs)
    return call

def fill(folder):
    (folder / "a").write_text("new")
    (folder / "inner").mkdir()
    (folder / "inner/b").write_text("new")

for name in ("rename", "replace", "unlink", "rmdir"):
    setattr(os, name, dying(getattr(os, name)))
write_whole_folder(Path(sys.argv[1]) / "best", fill)
"""


def test_kill_between_any_two_steps_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """Recovered, the folder is whole: the old one until its successor stands, and nothing lingers after the next write."""
    found = []
    for calls in range(8):
        folder = tmp_path / str(calls)
        write_whole_folder(folder / "best", fill_with("old"))  # type: ignore[arg-type]
        died = subprocess.run([sys.executable, "-c", DIE, str(folder), str(calls)], check=False).returncode
        recover_folder(folder / "best")
        now = {name: text for name, text in content(folder).items() if not name.startswith(".")}
        assert now in (whole("old"), whole("new")), calls
        found.append((died, now["best/a"]))
        write_whole_folder(folder / "best", fill_with("newest"))  # type: ignore[arg-type]
        assert content(folder) == whole("newest")
    # Away with the old; the new in place; remove two old files and two old folders: six calls, then it lives.
    assert found == [*[(9, "old")] * 2, *[(9, "new")] * 4, *[(0, "new")] * 2]


def test_recovery_puts_the_old_back_only_where_its_successor_is_missing(tmp_path: Path) -> None:
    write_whole_folder(tmp_path / "best", fill_with("old"))  # type: ignore[arg-type]
    os.rename(tmp_path / "best", tmp_path / ".best.old")
    recover_folder(tmp_path / "best")
    assert content(tmp_path) == whole("old")
    shutil.copytree(tmp_path / "best", tmp_path / ".best.old")
    (tmp_path / "best/a").write_text("newer")
    recover_folder(tmp_path / "best")
    assert content(tmp_path) == {"best/a": "newer", "best/inner/b": "old"}
    recover_folder(tmp_path / "nowhere")


def test_digest_is_sha256_of_a_file_of_many_blocks(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4096 * 3 + b"tail"
    (tmp_path / "a").write_bytes(data)
    assert digest(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_a_temporary_name_cannot_be_foreseen(tmp_path: Path) -> None:
    """Whoever may write into the folder could put a link there."""
    names = set()
    for _ in range(2):
        with replacing(tmp_path / "out.json") as temporary:
            assert temporary.parent == tmp_path
            assert temporary.suffix == ".json"
            names.add(temporary.name)
            temporary.touch()
    assert len(names) == 2
    assert os.listdir(tmp_path) == ["out.json"]


def test_what_killed_processes_left_of_a_file_goes_with_its_next_write(tmp_path: Path) -> None:
    """Of that file alone, since others may be written now; and a link goes nowhere."""
    (tmp_path / "precious").mkdir()
    left = (".out.0123456789abcdef.partial.json", ".out.partial.json")  # as older releases named it
    others = (".other.0123456789abcdef.partial.json", ".out.0123456789abcdef.partial.png", ".out.partial")
    for _ in range(3):
        for name in (*left, *others):
            (tmp_path / name).touch()
        (tmp_path / ".out.fedcba9876543210.partial.json").unlink(missing_ok=True)
        (tmp_path / ".out.fedcba9876543210.partial.json").symlink_to(tmp_path / "precious")
        write_whole(tmp_path / "out.json", b"ours")
        found = {path.name for path in tmp_path.iterdir()}
        assert found >= {"out.json", "precious", *others}
        assert not found & set(left)


def test_a_folder_of_many_files_is_not_listed_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(64):
        (tmp_path / str(number)).touch()
    listed = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or listdir(folder))
    for number in range(10):
        write_whole(tmp_path / f"{number}.json", b"{}")
    assert len(listed) == 2


def test_what_stands_there_is_added_to_only_as_a_file(tmp_path: Path) -> None:
    append_to(tmp_path / "log", "a")
    append_to(tmp_path / "log", "b", is_synced=True)
    assert (tmp_path / "log").read_text() == "ab"
    (tmp_path / "link").symlink_to(tmp_path / "log")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError, match=r"symbolic links|No such device|no regular file"):
            append_to(tmp_path / name, "c")
    assert (tmp_path / "log").read_text() == "ab"


def test_an_older_folder_that_somebody_else_put_aside_is_not_recovered(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / ".best.old").symlink_to(tmp_path / "theirs")
    recover_folder(tmp_path / "best")
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_modes_go_by_the_umask(mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        assert usual_mode(0o666) == mode
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
