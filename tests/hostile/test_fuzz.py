"""Damaged and hostile material is read or refused in a sentence: no traceback, hang, bomb, wrong pixel or file touched outside.

The seeds are fixed, so that a run is the same everywhere. `python -m tests.measure.fuzz --count 20000` tries others; the
last result is docs/evidence/fuzz.json.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.hostile import labels, pictures, stores
from tests.hostile.judging import FAULTS, MEMORY, OUTSIDE, READ, REFUSED, TRACEBACK, WRONG, Judge, Subject, Wrong

COUNT = 300


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)  # tifffile logs each odd tag
    yield Judge(tmp_path_factory.mktemp("hostile"), [*pictures.SUBJECTS, *stores.SUBJECTS, *labels.SUBJECTS])
    logging.disable(logging.NOTSET)
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "seeds", [range(COUNT // 3), pytest.param(range(COUNT // 3, COUNT), marks=pytest.mark.slow)], ids=str
)
def test_damage_is_read_or_refused(judge: Judge, seeds: range) -> None:
    kinds: Counter[str] = Counter()
    faults = []
    for seed in seeds:
        verdict = judge.judge(seed)
        kinds[verdict.kind] += 1
        if verdict.kind in FAULTS:
            faults.append(f"seed {seed}, {judge.draw(seed)}: {verdict.kind} after {verdict.damage}\n{verdict.words}")
    assert not faults, "\n\n".join(faults)
    assert min(kinds[READ], kinds[REFUSED]) > len(seeds) // 10, "damage must be neither harmless nor always fatal"


def test_refusals_are_sentences(judge: Judge) -> None:
    """They end with what to do, and hold nothing that a terminal obeys."""
    for seed in range(COUNT, COUNT + 60):
        verdict = judge.judge(seed)
        if verdict.kind == REFUSED:
            assert verdict.words.rstrip().endswith((".", ")", "?")), verdict
            assert "\x1b" not in verdict.words, verdict


def _grow(folder: Path) -> None:
    assert any(bytearray(b"x" * 2**26))


def _say_wrong(folder: Path) -> None:
    raise Wrong("other pixels")


def _touch(folder: Path) -> None:
    (folder.parent / "outside" / "precious.txt").write_text("mine")


@pytest.mark.parametrize(
    ("kind", "do"),
    [(TRACEBACK, lambda folder: int("x")), (WRONG, _say_wrong), (OUTSIDE, _touch), (MEMORY, _grow), (READ, len)],
)
def test_a_judge_sees_each_fault(tmp_path: Path, kind: str, do: Callable[[Path], object]) -> None:
    """The tests above can fail: a reader that does what must not be is found out."""
    calls: list[Path] = []

    def use(folder: Path, known: object) -> None:
        calls.append(folder)
        if len(calls) > 1 and do is not len:  # the first is that of the sound material
            do(folder)

    subject = Subject("it", lambda folder: (folder / "a.txt").write_text("sound"), use)
    assert Judge(tmp_path, [subject], budget_bytes=2**25).judge(0).kind == kind


def _judge_what_takes_freed_memory(root: Path) -> str:
    pieces = [b"x" * (2**16 - number % 2) for number in range(2**11)]
    above = bytearray(b"x" * 2**16)
    del pieces
    calls: list[Path] = []

    def use(folder: Path, known: object) -> None:
        calls.append(folder)
        if len(calls) > 1:
            assert len([b"x" * (2**16 - number % 2) for number in range(2**10)]) == 2**10  # 64 MiB

    subject = Subject("it", lambda folder: (folder / "a.txt").write_text("sound"), use)
    kind = Judge(root, [subject], budget_bytes=2**25).judge(0).kind
    assert above
    return kind


def test_memory_that_was_freed_before_counts_when_it_is_taken_again(tmp_path: Path) -> None:
    """The C library keeps freed memory below something in use; the process does not grow when a reader takes that.

    In a process of its own: threads that other tests left may give memory back meanwhile, which hides the growth.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        assert alone.submit(_judge_what_takes_freed_memory, tmp_path).result(timeout=300) == MEMORY
