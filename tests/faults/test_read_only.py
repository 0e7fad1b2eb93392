"""Read-only folders: every command refuses them before its work, or writes to the folder that a key names."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.faults.runs import TINY
from unet_dist.cli import main

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="takes the capabilities of Linux, where it is root")
_OVERRIDES = 0b1111
"""The four by which root owns, reads and writes what modes forbid."""


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def obey_modes() -> None:
    """Give up what root may beyond others; nothing where this is another user."""
    header, sets, libc = _Header(0x20080522, 0), (_Sets * 2)(), ctypes.CDLL(None)
    assert libc.capget(ctypes.byref(header), sets) == 0
    sets[0].effective &= ~_OVERRIDES
    assert libc.capset(ctypes.byref(header), sets) == 0


def end_of(*words: object, said: Path) -> tuple[int, str]:
    """Run a command in a child that obeys modes; its exit code, and what it printed."""
    child = os.fork()
    if child == 0:
        code: int | str | None = 99
        try:
            printed = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(printed, 1)
            os.dup2(printed, 2)
            sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115, pytest has its own
            torch.set_num_threads(1)
            obey_modes()
            main([str(word) for word in words])
        except SystemExit as leaving:
            code = leaving.code
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 99)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said.read_text()


@pytest.fixture
def locked(run_folder: Path) -> Iterator[Path]:
    """A run's folder that takes no file."""
    places = [run_folder, *run_folder.rglob("*")]
    modes = [path.stat().st_mode for path in places]
    for path in places:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield run_folder
    for path, mode in zip(places, modes, strict=True):
        path.chmod(mode)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("evaluate",), "output_path"),
        (("report",), "output"),
        (("export", "--format", "huggingface"), "output"),
    ],
)
def test_it_is_said_before_the_work(
    locked: Path, cache: Path, tmp_path: Path, words: tuple[str, ...], key: str
) -> None:
    command, *more = words
    code, said = end_of(command, locked, *more, said=tmp_path / "said.txt")
    assert code == 2, said
    assert f"error: {key}: cannot write to {locked}: Permission denied. Set --{key} to a place of yours." in said
    assert "Traceback" not in said
    assert "mean IoU" not in said


def test_a_run_that_may_not_be_changed_is_not_trained_and_serves_elsewhere(
    locked: Path, cache: Path, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in locked.rglob("*")}
    where = tmp_path / "mine"
    told = tmp_path / "said.txt"
    code, said = end_of("train", *TINY, "--cache_path", cache, "--output_path", locked, said=told)
    assert code == 2, said
    assert f"output_path: cannot write to {locked}: Permission denied." in said
    for words in (
        ("evaluate", locked, "--output_path", where, "--pictures", 0),
        ("report", locked, "--output", where / "page.html"),
        ("export", locked, "--format", "huggingface", "--output", where / "model"),
    ):
        code, said = end_of(*words, said=told)
        assert (code, "Traceback" in said) == (0, False), said
    assert (where / "evaluation-test.json").is_file()
    assert {path: path.stat().st_mtime_ns for path in locked.rglob("*")} == before
