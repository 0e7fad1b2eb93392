"""Proves that a disk that fills, turns read-only, loses a folder or shows a rename late, and a clock that jumps, cost a run
nothing but its time: it says what happened, keeps the last good state, and ends with the bytes of the undisturbed run.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.runs import TINY, before_step, model_of, sentence_of, train
from unet_dist.cli import main
from unet_dist.data.sources.fingerprint import digest_files
from unet_dist.runs import checkpoint
from unet_dist.runs.checkpoint import list_checkpoints, newest_whole

KIB = 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def words_for(folder: Path, cache: Path) -> tuple[str, ...]:
    return (*TINY, "--cache_path", str(cache), "--output_path", str(folder))


def test_full_disk_is_named_and_the_run_goes_on_when_there_is_room(
    disk: Path, finished: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = words_for(disk / "run", cache)
    filler = disk / "filler"
    filler.write_bytes(b"x" * (256 * KIB - 9 * 4 * KIB))
    sentence = sentence_of(capfd, *words)
    assert "No space left on device" in sentence
    assert "Make room" in sentence
    filler.unlink()
    assert train(capfd, *words)[0] == 0
    assert model_of(disk / "run") == model_of(finished)


def test_disk_that_fills_on_the_way_keeps_the_last_checkpoint(
    disk: Path, finished: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words, filler = words_for(disk / "run", cache), disk / "filler"
    with pytest.MonkeyPatch.context() as patch:
        before_step(patch, 3, lambda: fill(filler))
        sentence = sentence_of(capfd, *words)
    assert sentence.startswith(str(disk / "run"))
    for part in (" could not be written: ", "No space left on device", " Make room "):
        assert part in sentence
    assert_last_good_state(disk / "run", step=2)
    filler.unlink()
    assert "Resuming at step 2 of 4" in train(capfd, *words)[1]
    assert model_of(disk / "run") == model_of(finished)


def fill(filler: Path) -> None:
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4 * KIB)


def assert_last_good_state(folder: Path, step: int) -> None:
    """The newest checkpoint is whole, and nothing half-written lies beside it."""
    found = newest_whole(folder / "checkpoints", pytest.fail)
    assert found is not None
    assert found.step == step
    assert not list((folder / "checkpoints").glob(".*"))


def test_read_only_checkpoints_are_named_and_the_last_one_stays(
    disk: Path, finished: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the last lines of the run say is that; its folder itself can still be written to."""
    words, checkpoints = words_for(disk / "run", cache), disk / "run/checkpoints"
    cover = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(checkpoints)]
    with pytest.MonkeyPatch.context() as patch:
        before_step(patch, 3, lambda: subprocess.run(cover, check=True))
        sentence = sentence_of(capfd, *words)
    subprocess.run(["umount", str(checkpoints)], check=True)
    assert sentence.startswith(f"{checkpoints}/step-00000004 could not be written: Read-only file system.")
    assert_last_good_state(disk / "run", step=2)
    assert "Resuming at step 2 of 4" in train(capfd, *words)[1]
    assert model_of(disk / "run") == model_of(finished)


def test_library_whose_writing_the_disk_refuses_is_a_sentence(
    disk: Path, cache: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorBoard keeps a file of its own open, in a run whose own files have room."""

    def refuse(*_: Any) -> None:
        (disk / "full").write_bytes(b"x" * 512 * KIB)

    from unet_dist.assembly import starting as command

    monkeypatch.setattr(command, "record_start", refuse)
    with pytest.raises(SystemExit) as leaving:
        main(["train", *words_for(disk / "run", cache)])
    assert leaving.value.code == 2
    said = capfd.readouterr().err
    assert said.startswith(
        "unet-dist: error: No space left on device. Make room or mend the disk, then start the same "
    )
    assert "Traceback" not in said


def test_checkpoints_removed_on_the_way_are_written_again(
    tmp_path: Path, finished: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        before_step(patch, 3, lambda: shutil.rmtree(folder / "checkpoints"))
        assert train(capfd, *words_for(folder, cache))[0] == 0
    assert [path.name for path in list_checkpoints(folder / "checkpoints")] == ["step-00000004"]
    assert model_of(folder) == model_of(finished)


def test_run_whose_folder_is_gone_says_so(tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    words = (*words_for(folder, cache), "--log_steps", "1")
    with pytest.MonkeyPatch.context() as patch:
        before_step(patch, 3, lambda: shutil.rmtree(folder))
        sentence = sentence_of(capfd, *words)
    assert sentence == (
        f"{folder}/metrics.jsonl could not be written: No such file or directory. Check that the output folder exists and that you "
        "may write to it."
    )


def test_rename_that_shows_late_costs_no_checkpoint(
    run_folder: Path, finished: Path, cache: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest checkpoint is not to be seen yet, as on a network file system from another node: the one before is taken,
    the steps are made again over it, and none goes before its successor is seen.
    """
    shutil.rmtree(run_folder / "last")
    look, looks = checkpoint.list_checkpoints, itertools.count()

    def late(folder: Path) -> list[Path]:
        found = look(folder)
        return found[:-1] if next(looks) < 2 else found

    monkeypatch.setattr(checkpoint, "list_checkpoints", late)
    out = train(capfd, *words_for(run_folder, cache), "--keep_checkpoints", "1")[1]
    assert "Resuming at step 2 of 4" in out
    assert [path.name for path in look(run_folder / "checkpoints")] == ["step-00000002", "step-00000004"]
    assert model_of(run_folder) == model_of(finished)


def jumping(start: float) -> Callable[[], float]:
    """A clock that an hour is taken from at each look."""
    now = itertools.count(start, -3600)
    return lambda: float(next(now))


def test_clock_that_jumps_backwards_changes_nothing(
    tmp_path: Path, finished: Path, cache: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Durations come from a clock that no one sets; what others read of the wall clock may be nonsense."""
    wall, local = jumping(time.time()), time.localtime
    monkeypatch.setattr(time, "time", wall)
    monkeypatch.setattr(time, "time_ns", lambda: int(wall() * 1e9))
    monkeypatch.setattr(time, "localtime", lambda seconds=None: local(wall() if seconds is None else seconds))
    assert train(capfd, *words_for(tmp_path / "run", cache), "--time_limit_min", "5")[0] == 0
    assert model_of(tmp_path / "run") == model_of(finished)


def test_clock_that_jumps_backwards_hides_no_change_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changed 'in the future' is not remembered as known."""
    file, memo = tmp_path / "data/a.png", tmp_path / "memo"
    file.parent.mkdir()
    wall = jumping(time.time())
    monkeypatch.setattr(time, "time_ns", lambda: int(wall() * 1e9))
    digests = []
    for content in (b"one", b"two"):
        file.write_bytes(content)
        digests += [digest_files(file.parent, [file], memo) for _ in range(2)]
    assert digests[0] == digests[1] != digests[2] == digests[3]
