"""Proves that scenes drawn by processes are those drawn here, that the processes end, and that one that dies costs no scene."""

from __future__ import annotations

import gc
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from unet_dist.scenes import drawing
from unet_dist.scenes.drawing import SceneProcesses
from unet_dist.scenes.synthetic import SyntheticScenes

SIZE = (6, 24, 40, 5)


def drawn_right(drawn: list[drawing.Scene], numbers: range) -> bool:
    expected = [SyntheticScenes(*SIZE).render(index) for index in numbers]
    pairs = zip(drawn, expected, strict=True)
    return all(np.array_equal(a, b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[drawing.subprocess.Popen[bytes]]:
    """The processes that a test starts."""
    processes = []

    class Noted(drawing.subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: object, **keys: object) -> None:
            super().__init__(*args, **keys)  # type: ignore[call-overload]
            processes.append(self)

    monkeypatch.setattr(drawing.subprocess, "Popen", Noted)
    return processes


def test_scenes_are_the_same_and_the_processes_end(started: list[drawing.subprocess.Popen[bytes]]) -> None:
    scenes = SceneProcesses(*SIZE, count=2)
    assert not started, "none before there is something to draw"
    with ThreadPoolExecutor(3) as pool:
        drawn = list(pool.map(scenes.render, range(6)))
    assert drawn_right(drawn, range(6))
    assert [process.poll() is not None for process in started] == [True, True]
    assert drawn_right([scenes.render(3)], range(3, 4)), "and later ones are drawn here"
    assert len(started) == 2


def test_a_process_that_dies_costs_no_scene(started: list[drawing.subprocess.Popen[bytes]]) -> None:
    scenes = SceneProcesses(*SIZE, count=1)
    drawn = [scenes.render(0)]
    started[0].kill()
    started[0].wait()
    drawn += [scenes.render(1), scenes.render(2)]
    assert drawn_right(drawn, range(3))
    del scenes
    gc.collect()
    assert len(started) == 1


def test_processes_end_with_whoever_asked(started: list[drawing.subprocess.Popen[bytes]]) -> None:
    scenes = SceneProcesses(*SIZE, count=1)
    scenes.render(0)
    assert started[0].poll() is None
    del scenes
    gc.collect()
    assert started[0].poll() is not None
    abandoned = SceneProcesses(*SIZE, count=1)
    abandoned.render(0)
    process = started[1]
    assert process.stdin is not None
    process.stdin.close()  # what the end of the one who asked does
    assert process.wait(timeout=30) == 0
    del abandoned


def test_few_pixels_are_drawn_here(started: list[drawing.subprocess.Popen[bytes]]) -> None:
    scenes = SceneProcesses(*SIZE)
    assert drawn_right([scenes.render(index) for index in range(6)], range(6))
    assert not started


def test_what_was_begun_is_given_out_once(
    monkeypatch: pytest.MonkeyPatch, started: list[drawing.subprocess.Popen[bytes]]
) -> None:
    monkeypatch.setattr(drawing, "LEAST_PIXELS", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    drawing.begin(*SIZE)
    assert len(started) == 2, "they get ready before there is something to draw"
    scenes = drawing.scene_processes(*SIZE)
    assert drawing.scene_processes(*SIZE) is not scenes
    assert drawn_right([scenes.render(index) for index in range(6)], range(6))
    assert len(started) == 2
    assert [process.poll() is not None for process in started] == [True, True]
