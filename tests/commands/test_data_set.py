"""Proves when the processes that draw scenes are begun early, that the data set is drawn by them, and that this needs no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from unet_dist.assembly.data_set import begin_drawing, open_data
from unet_dist.config.sections import Config
from unet_dist.scenes import drawing
from unet_dist.terminal import Teller


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.from_flat({"synthetic_images": 6, "synthetic_size": "24x40", "cache_path": str(tmp_path)})


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, int, int, int], drawing.SceneProcesses]:
    """What this test begins, by the scenes' numbers."""
    scenes: dict[tuple[int, int, int, int], drawing.SceneProcesses] = {}
    monkeypatch.setattr(drawing, "_begun", scenes)
    return scenes


def test_scenes_without_a_cache_are_begun_and_used(
    config: Config, begun: dict[tuple[int, int, int, int], drawing.SceneProcesses]
) -> None:
    begin_drawing(config, {})
    assert list(begun) == [(6, 24, 40, 0)]
    assert len(open_data(config, Teller(speaks=False))) == 6
    assert not begun, "the data set took them"
    begin_drawing(config, {})
    assert not begun, "the cache is there"
    begin_drawing(config.replace(num_classes=35), {})
    assert not begun, "the same cache, as a resolved config names it"


def test_others_begin_nothing(
    config: Config, begun: dict[tuple[int, int, int, int], drawing.SceneProcesses], tmp_path: Path
) -> None:
    begin_drawing(config, {"LOCAL_RANK": "1"})
    begin_drawing(config.replace(debug=True), {})  # its data set is another
    begin_drawing(Config.from_flat({"data_path": str(tmp_path / "nowhere")}), {})  # said when it is opened
    assert not begun


def test_it_needs_no_torch() -> None:
    code = "import sys, unet_dist.assembly.data_set; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
