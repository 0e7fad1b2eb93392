"""Proves on real processes that a prediction survives being killed, and that its files stay the same to the byte."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests import large_image
from tests.prediction.parts import Prediction, build, contents, write_images
from unet_dist.cli import run
from unet_dist.errors import ConfigError, DataError
from unet_dist.prediction import writing
from unet_dist.prediction.journal import FOLDER, Journal

pytestmark = pytest.mark.processes


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_twenty_kills_at_random_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "COMMIT_S", 0.02)  # or a prediction this small would never reach its journal
    sources = write_images(tmp_path / "in", [(90, 130), (150, 210), (64, 64), (20, 33)])
    assert Prediction(tmp_path / "undisturbed", sources, window_batch=1).launch()
    prediction = Prediction(tmp_path / "killed", sources, window_batch=1)
    draw = random.Random(0)
    context, done = multiprocessing.get_context("fork"), []  # a fork starts in no time: 20 imports would take minutes
    for _ in range(20):
        child = context.Process(target=prediction.launch)
        child.start()
        wanted = max(done, default=0) + draw.randint(0, 3)  # by its progress, not the clock: the machine may be busy
        while child.is_alive() and num_done(prediction.journal) < wanted:
            time.sleep(0.001)
        child.join(draw.uniform(0, 0.02))
        child.kill()
        child.join()
        is_finished = not prediction.journal.folder.exists() or (done and prediction.journal.settings() is None)
        if is_finished:  # also where the kill came while the journal of a finished prediction was being forgotten
            break
        done.append(len(prediction.journal.done().batches))
    assert len(done) >= 5, "it was killed on the way, not at the end"
    assert done == sorted(done), "what was done stays done"
    if prediction.journal.folder.exists():
        assert prediction.launch()
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


def num_done(journal: Journal) -> int:
    """The batches in a journal that another process writes, and puts in order as it starts."""
    with suppress(DataError):  # a list that goes as it is read
        return len(journal.done().batches)
    return 0


@pytest.mark.slow
@pytest.mark.usefixtures("own_process")
def test_stopped_by_a_signal_refused_with_other_settings_and_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = write_images(tmp_path / "in", [(700, 1100)])
    build().save_pretrained(tmp_path / "model")
    output = tmp_path / "out"
    words = [str(tmp_path / "model"), str(source), "--output", str(output), "--overlay", "false"]
    slow = [*words, "--tile_size", "60", "--window_batch", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [sys.executable, "-m", "unet_dist", "predict", *slow], env=environment, stdout=subprocess.PIPE, text=True
    )
    journal = Journal(output)
    while process.poll() is None and not any(journal.folder.glob("*.labels")):  # the journal's first line comes later
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "tiles. Run the same command to resume." in said
    num_done = len(journal.done().batches)  # of one tile each: by it a SLURM job sees that it gets on
    assert json.loads((output / "requeue").read_text()) == {"step": num_done}
    assert 0 < num_done < journal.settings()["num_batches"]  # type: ignore[index]

    with pytest.raises(
        ConfigError, match=f"{output} holds an unfinished prediction with tile_size 60 -> 76. Give the same"
    ):
        run(["predict", *words, "--tile_size", "76", "--window_batch", "1"])
    assert len(journal.done().batches) == num_done

    run(["predict", *words, "--tile_size", "auto", "--window_batch", "1"])
    assert f"Resuming: {num_done} tiles" in capsys.readouterr().out
    assert sorted(path.name for path in output.iterdir()) == ["image0.tif"], (FOLDER, "and the marker are gone")


@pytest.mark.slow
def test_the_large_image_in_small(tmp_path: Path) -> None:
    """Two processes under RLIMIT_DATA, killed once, against another tile size: the script for 20,000 px, at 2,000.

    Its tiles take several times as long as it takes until the first of them stand in the journal, so that it is killed half-way.
    """
    words = ["--side", "2000", "--depth", "2", "--base_channels", "2", "--tile_size", "60", "--other_tile_size", "572"]
    script = subprocess.run(
        [sys.executable, large_image.__file__, *words, "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert script.returncode == 0, script.stdout + script.stderr
    assert "the files are equal" in script.stdout
