"""Proves that a command may end at any change of the disk: the same command then ends with the bytes of one that was never
disturbed. And that a second command at the same folder is refused, or leaves the first alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.faults.runs import TINY, model_of
from tests.prediction.parts import contents
from unet_dist.cli import main

Act = Callable[[], object]


class Child:
    """A command in a copy of this process, which acts before one of its changes of the disk: a rename, or an fsync.

    Args:
        words: of the command.
        log: file of what it prints.
        at: number of the change, from 1; 0 for none.
        act: what happens then, in the child.
    """

    def __init__(self, words: list[str], log: Path, at: int = 0, act: Act = lambda: None) -> None:
        self.log = log
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: torch's threads are idle here
            self._pid = os.fork()
        if self._pid:
            return
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(descriptor, stream)
            sys.stdout = os.fdopen(1, "w", buffering=1)
            sys.stderr = os.fdopen(2, "w", buffering=1)
            _watch(at, act)
            main(words)
        except SystemExit as leaving:
            os._exit(int(leaving.code or 0))
        except BaseException:  # noqa: BLE001, the log says it, and the child ends
            traceback.print_exc()
        os._exit(99)

    def end(self) -> int:
        """Wait for it; its exit code, negative for a signal."""
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        assert "Traceback" not in self.log.read_text("utf-8"), self.log.read_text("utf-8")
        return code

    @property
    def changes(self) -> int:
        """Changes of the disk that it has made."""
        return int(self.log.read_text("utf-8").rpartition("changes: ")[2])


def _watch(at: int, act: Act) -> None:
    seen = 0

    def watched(change: Callable[..., object]) -> Callable[..., object]:
        def changing(*args: object, **options: object) -> object:
            nonlocal seen
            seen += 1
            if seen == at:
                act()
            return change(*args, **options)

        return changing

    for name in ("replace", "rename", "fsync"):
        setattr(os, name, watched(getattr(os, name)))
    leave = os._exit

    def leaving(code: int) -> None:
        os.write(1, f"\nchanges: {seen}".encode())
        leave(code)

    os._exit = leaving  # type: ignore[assignment]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def words_of(command: str, run: Path, pictures: Path, cache: Path, output: Path) -> list[str]:
    """A command whose bytes are all below `output`."""
    small = ["--mixed_precision", "no"]
    return {
        "prepare": ["prepare", *TINY, "--cache_path", str(output / "cache"), "--output_path", str(output)],
        "predict": ["predict", str(run), str(pictures), "--output", str(output), "--tile_size", "44", *small],
        "evaluate": ["evaluate", str(run), "--output_path", str(output), *small],
        "export": ["export", str(run), "--output", str(output / "folder")],
        "export to ONNX": ["export", str(run), "--format", "onnx", "--output", str(output / "model.onnx")],
    }[command]


def lasting(folder: Path) -> dict[str, bytes]:
    """What a command leaves, but for times."""
    timed = ("environment.json", "digests/", "locks/", ".lock")
    return {name: bytes_ for name, bytes_ in contents(folder).items() if not any(word in name for word in timed)}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["prepare", "predict", "evaluate", "export", "export to ONNX"])
def test_a_command_that_was_cut_short_ends_as_the_undisturbed_one(
    tmp_path: Path, finished: Path, pictures: Path, cache: Path, command: str
) -> None:
    def start(output: str, at: int = 0, number: int = 0) -> Child:
        words = words_of(command, finished, pictures, cache, tmp_path / output)
        return Child(words, tmp_path / f"{output}.log", at, lambda: os.kill(os.getpid(), number))

    whole = start("whole")
    assert whole.end() == 0
    expected = lasting(tmp_path / "whole")
    assert expected
    last = whole.changes
    kills = sorted({1, last // 4, last // 2, 3 * last // 4, last} - {0})
    for at, number in [(max(last // 2, 1), signal.SIGTERM), *((at, signal.SIGKILL) for at in kills)]:
        output = f"{number.name}-{at}"
        assert start(output, at, number).end() in (-number, *([0] if number == signal.SIGTERM else []))
        assert start(output).end() == 0
        assert lasting(tmp_path / output) == expected


@contextlib.contextmanager
def held(words: list[str], log: Path, at: int) -> Iterator[Child]:
    """A command that stands before its `at`-th change of the disk until the block ends."""
    (is_there, there), (may_go, go) = os.pipe(), os.pipe()
    child = Child(words, log, at, lambda: (os.write(there, b"."), os.read(may_go, 1)))
    os.close(there)  # so that a child which ends early is seen
    try:
        assert os.read(is_there, 1) == b".", log.read_text("utf-8")
        yield child
    finally:
        os.write(go, b".")
        for end in (is_there, may_go, go):
            os.close(end)


@pytest.mark.parametrize("command", ["train", "predict"])
def test_a_second_command_at_the_same_folder_is_refused(
    tmp_path: Path, finished: Path, pictures: Path, cache: Path, command: str
) -> None:
    """And the first ends as if it had been alone."""

    def words(output: str) -> list[str]:
        if command == "train":
            return ["train", *TINY, "--cache_path", str(cache), "--output_path", str(tmp_path / output)]
        return words_of(command, finished, pictures, cache, tmp_path / output)

    alone = Child(words("alone"), tmp_path / "alone.log")
    assert alone.end() == 0
    with held(words("shared"), tmp_path / "first.log", alone.changes // 2) as first:
        second = Child(words("shared"), tmp_path / "second.log")
        assert second.end() == 2
    assert first.end() == 0
    said = second.log.read_text("utf-8")
    assert f": {tmp_path / 'shared'}" in said, said
    assert " is held by another run: " in said, said
    if command == "train":
        assert model_of(tmp_path / "shared") == model_of(tmp_path / "alone")
    else:
        assert lasting(tmp_path / "shared") == lasting(tmp_path / "alone")


def test_a_training_beside_a_preparation_of_the_same_folder(tmp_path: Path, finished: Path) -> None:
    """The preparation draws its pairs into the folder that the training makes: both end as if alone."""
    output, cache = tmp_path / "both", tmp_path / "cache"
    words = [*TINY, "--cache_path", str(cache), "--output_path"]
    alone = Child(["prepare", *words, str(tmp_path / "alone")], tmp_path / "alone.log")
    assert alone.end() == 0
    again = Child(["prepare", *words, str(tmp_path / "again")], tmp_path / "again.log")
    assert again.end() == 0
    with held(["prepare", *words, str(output)], tmp_path / "first.log", again.changes) as first:
        assert Child(["train", *words, str(output)], tmp_path / "second.log").end() == 0
    assert first.end() == 0
    assert model_of(output) == model_of(finished)
    assert contents(output / "figures") == contents(tmp_path / "alone" / "figures")
