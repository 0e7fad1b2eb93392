"""A run's data are found wherever a command is given, and other data are never scored as the run's own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.data.pictures import png, random_pair, write_folder
from unet_dist import Run, predict
from unet_dist.assembly import opening
from unet_dist.cli import main
from unet_dist.errors import DataError

TINY = {"depth": 1, "base_channels": 2, "input_size": 40, "batch_size": 2, "total_steps": 1, "trackers": "[]"}
KEYS = [word for key, value in TINY.items() for word in (f"--{key}", str(value))]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders a/ with data/ and run/, trained by relative paths, and b/ with another data/ of the same name."""
    folder = tmp_path_factory.mktemp("trained")
    write_folder(folder / "a/data", {"train": 3, "validation": 1, "test": 2}, height=30, width=40)
    write_folder(folder / "b/data", {"train": 3, "validation": 1, "test": 4}, height=34, width=44)
    assert (
        command(folder / "a", "train", "--data_path", "data", "--output_path", "run", "--cache_path", "c", *KEYS)[0]
        == 0
    )
    return folder


@pytest.fixture
def place(tmp_path: Path, trained: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "p"))


def command(folder: Path, *words: str) -> tuple[int, str]:
    """Run a command in a folder: exit code, and what went to stderr."""
    before, heard = Path.cwd(), io.StringIO()
    os.chdir(folder)
    try:
        with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(heard), pytest.raises(SystemExit) as left:
            main(list(words))
    finally:
        os.chdir(before)
    return int(left.value.code or 0), heard.getvalue()


def scored(run: Path) -> dict[str, object]:
    return dict(json.loads((run / "evaluation-test.json").read_text()))


def test_a_relative_path_is_that_of_the_training(trained: Path) -> None:
    code, text = command(trained / "b", "evaluate", str(trained / "a/run"))
    assert code == 0, text
    assert (scored(trained / "a/run")["images"], scored(trained / "a/run")["training_split"]) == (2, "its own")
    before = Path.cwd()
    os.chdir(trained / "b")
    try:
        assert len(Run(trained / "a/run").open_data().split("test")) == 2
    finally:
        os.chdir(before)


@pytest.mark.slow
def test_names_of_folders_that_are_no_utf_8(tmp_path: Path, trained: Path) -> None:
    """They trained, and no other command could read the run's config."""
    odd = os.fsdecode(b"h\xe4user")
    try:
        shutil.copytree(trained / "a/data", tmp_path / odd / "data")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    run, data = "run", f"{odd}/data"
    for kind in ("images", "masks"):
        place = tmp_path / data / kind / "test"
        (place / "sample000.png").rename(place / f"{odd}.png")
    code, said = command(tmp_path, "train", "--data_path", data, "--output_path", run, "--cache_path", "c", *KEYS)
    assert code == 0, said
    for words in (
        ["evaluate", run],
        ["predict", run, f"{data}/images/test", "--output", f"{odd}/out"],
        ["report", run],
        ["export", run],
    ):
        code, said = command(tmp_path, *words)
        assert code == 0, said
    code, said = command(tmp_path, "train", "--data_path", data, "--output_path", f"{odd}/run", *KEYS)
    assert code == 2
    assert "output_path: got 'h\\udce4user/run', expected a word in UTF-8" in said, said


def test_run_and_data_that_moved_together(place: Path) -> None:
    """The old place is a copy's here, and holds the same: so it is taken away from what the run recorded."""
    record = place / "a/run/data.json"
    record.write_text(record.read_text().replace(json.loads(record.read_text())["paths"]["data_path"], "/nowhere/data"))
    code, text = command(place / "a", "evaluate", "run")
    assert code == 0, text
    code, text = command(place / "b", "evaluate", str(place / "a/run"))
    assert code == 2
    assert "these are not the data that the run in" in text
    assert "images of train" not in text
    assert "pixels of train: SHA-256" in text
    shutil.rmtree(place / "b/data")
    code, text = command(place / "b", "evaluate", str(place / "a/run"))
    assert code == 2
    assert "its data were in /nowhere/data, and are neither there nor in" in text


def test_data_that_changed_in_their_place(place: Path) -> None:
    record = place / "a/run/data.json"
    record.write_text(
        record.read_text().replace(json.loads(record.read_text())["paths"]["data_path"], str(place / "a/data"))
    )
    (place / "a/data/images/test/sample000.png").write_bytes(png(random_pair(5, 30, 40)[0]))
    code, text = command(place / "b", "evaluate", str(place / "a/run"))
    assert code == 0
    assert "its test split has changed since the run" in text
    (place / "a/data/images/train/sample000.png").write_bytes(png(random_pair(5, 30, 40)[0]))
    assert command(place / "b", "evaluate", str(place / "a/run"))[0] == 2
    with pytest.raises(DataError, match="not the data that the run"):
        Run(place / "a/run").open_data()


def test_other_data_are_scored_when_named_and_never_over_the_runs_own(trained: Path, tmp_path: Path) -> None:
    run = str(trained / "a/run")
    command(trained, "evaluate", run)
    code, text = command(trained / "b", "evaluate", run, "--data_path", "data")
    assert code == 2
    assert "holds the scores of other images" in text
    code, text = command(trained / "b", "evaluate", run, "--data_path", "data", "--output_path", str(tmp_path))
    assert code == 0, text
    assert (scored(tmp_path)["images"], scored(tmp_path)["training_split"]) == (4, "of data")
    assert scored(trained / "a/run")["images"] == 2


@pytest.mark.parametrize("said", [[], ["--images_folder", ".", "--masks_folder", ".", "--mask_names", "*_mask"]])
def test_masks_beside_their_images_are_not_labelled(tmp_path: Path, said: list[str]) -> None:
    """A folder of x.png beside x_mask.png: as guessed, and as keys say it."""
    rng = np.random.default_rng(0)
    for number in range(4):
        image, mask = random_pair(rng, 30, 40)
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / f"mine/s{number}.png").write_bytes(png(image))
        (tmp_path / f"mine/s{number}_mask.png").write_bytes(png(mask))
    words = ["train", "--data_path", "mine", "--output_path", "run", "--cache_path", "c", *said, *KEYS]
    assert command(tmp_path, *words)[0] == 0
    (tmp_path / "mine/lone_mask.png").write_bytes((tmp_path / "mine/s0.png").read_bytes())
    code, text = command(tmp_path, "predict", "run", "mine", "--output", "out", "--overlay", "false")
    assert (code, text.count("4 masks beside their images left out (*_mask")) == (0, 1)
    expected = ["lone_mask.png", "s0.png", "s1.png", "s2.png", "s3.png"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == expected
    assert sorted(f"{each.name}.png" for each in predict(tmp_path / "run", tmp_path / "mine")) == expected
    code, text = command(tmp_path, "predict", "run", "mine/s0_mask.png", "--output", "named")
    assert (code, (tmp_path / "named/s0_mask.png").is_file()) == (0, True)
    assert "left out" not in text
    (tmp_path / "run/data.json").unlink()  # nothing says then how masks are called
    command(tmp_path, "predict", "run", "mine", "--output", "all", "--overlay", "false")
    assert len(list((tmp_path / "all").glob("*.png"))) == 9


def test_the_model_that_is_taken_is_named(place: Path) -> None:
    run = place / "a/run"
    best = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    line = f"Model: run/best, step 1, validation mean IoU of labelled classes {best['miou_present']:.4f}"
    text = command(place / "a", "evaluate", "run", "--split", "validation", "--pictures", "0")[1]
    assert line in text
    assert "validation of data, 1 image, exact tiles" in text
    code, text = command(place / "a", "predict", "run", "data/images/test", "--output", "out")
    assert (code, text.count(line)) == (0, 1)
    shutil.rmtree(run / "best")
    assert (
        "Model: run/last, step 1, without a validation" in command(place / "a", "evaluate", "run", "--pictures", "0")[1]
    )
    code, text = command(place / "a", "evaluate", "run", "--pictures", "0", "--average", "last:1")
    assert (code, "Model: run, the mean of its 1 newest checkpoints" in text) == (0, True)
    text = command(place / "a", "predict", "run/last", "data/images/test/sample000.png", "--output", "plain")[1]
    assert "Model:" not in text
    assert ", each in one window" in text


def test_the_precision_is_named_once_the_data_are_accepted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "precision_line", lambda wish, precision: "Computed in bf16")
    code, text = command(place / "a", "evaluate", "run", "--data_path", "nowhere", "--output_path", "out")
    assert (code, "Computed in" in text) == (2, False)
    code, text = command(place / "a", "evaluate", "run", "--pictures", "0")
    assert (code, text.count("Computed in bf16")) == (0, 1)


def test_moved_data_are_read_by_the_label_map_of_the_run(tmp_path: Path) -> None:
    """Named by their new path they are the run's own data: without its label_map other ids were scored, without a word."""
    write_folder(tmp_path / "data", {"train": 2, "validation": 1, "test": 1}, height=30, width=40)
    swapped = ["--label_map", "{0: 2, 1: 1, 2: 0}"]
    code, text = command(tmp_path, "train", "--data_path", "data", "--output_path", "run", *KEYS, *swapped)
    assert code == 0, text
    command(tmp_path, "evaluate", "run")
    before = scored(tmp_path / "run")
    (tmp_path / "data").rename(tmp_path / "moved")
    code, text = command(tmp_path, "evaluate", "run", "--data_path", "moved", "--output_path", "again")
    assert code == 0, text
    after = scored(tmp_path / "again")
    assert (after["confusion"], after["training_split"]) == (before["confusion"], "its own")
