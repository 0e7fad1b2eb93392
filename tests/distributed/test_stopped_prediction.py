"""Proves that a prediction of several processes stops as one, whichever of them was asked, and resumes where it stopped."""

from __future__ import annotations

import signal
import time

import pytest

from tests.distributed.conftest import Laboratory
from tests.distributed.processes import PATIENCE_S, launch
from tests.prediction.parts import build, contents, write_images
from unet_dist.prediction.journal import Journal

pytestmark = pytest.mark.processes


@pytest.mark.slow
def test_all_processes_stop_when_one_is_asked(lab: Laboratory) -> None:
    """SIGTERM to the second process alone: the first stops before its next batch, and a cancelled job stays cancelled."""
    place = lab.folder / "prediction"
    (source,) = write_images(place / "in", [(700, 1100)])
    build().save_pretrained(place / "model")

    def words(output: str) -> list[str]:
        options = ["--tile_size=60", "--window_batch=1", "--overlay=false", "--mixed_precision=no"]
        return ["predict", str(place / "model"), str(source), f"--output={place / output}", *options]

    journal = Journal(place / "out")
    with launch(2, [words("out")], place / "launch") as group:
        deadline = time.monotonic() + PATIENCE_S
        while not any(journal.folder.glob("*.labels")):  # begun; the journal's first line comes later
            assert time.monotonic() < deadline
            time.sleep(0.01)
        group.ranks[1].send_signal(signal.SIGTERM)
        assert group.wait() == [0, 0], group.said
    assert "tiles. Run the same command to resume." in group.said[0]
    settings = journal.settings()
    assert settings is not None
    assert 0 < len(journal.done().batches) < settings["num_batches"]
    assert not (place / "out/requeue").exists()
    assert not (place / "out/stop").exists()
    lab.alone(words("out"))
    lab.alone(words("undisturbed"))
    assert contents(place / "out") == contents(place / "undisturbed")
