"""Proves that folds by group reach every command, and that prepare names what the splits share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unet_dist.cli import main

pytestmark = pytest.mark.usefixtures("own_process")


def call(*words: object) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([str(word) for word in words])
    assert leaving.value.code == 0


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Three films of four frames; two frames of each film are the same picture."""
    for film in "abc":
        for frame in range(4):
            random = np.random.default_rng([ord(film), frame // 2])
            pixels = np.kron(random.integers(0, 256, (9, 9, 3)), np.ones((6, 6, 1))).astype(np.uint8)
            for folder, picture in (("images", pixels), ("masks", pixels[:, :, 0] // 128)):
                (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(tmp_path / "data" / folder / f"{film}_{frame:03d}.png")
    return tmp_path / "data"


@pytest.mark.slow
def test_a_fold_is_trained_and_evaluated_on_films_apart(films: Path, tmp_path: Path) -> None:
    validated: list[str] = []
    common = ["--data_path", films, "--cache_path", tmp_path / "cache", "--group_by", "sequence", "--folds", 3]
    for fold in range(3):
        run = tmp_path / f"fold{fold}"
        small = ["--depth", 1, "--base_channels", 2, "--input_size", 40, "--batch_size", 2, "--total_steps", 1]
        call("train", *common, *small, "--fold", fold, "--trackers", "[]", "--output_path", run)
        splits = json.loads((run / "splits.json").read_text())
        assert {len({name[0] for name in ids}) for ids in splits.values()} == {1, 2}
        assert not {name[0] for name in splits["train"]} & {name[0] for name in splits["validation"]}
        call("evaluate", run, "--split", "validation", "--pictures", 0)
        assert json.loads((run / "evaluation-validation.json").read_text())["images"] == 4
        validated += splits["validation"]
    assert len(set(validated)) == len(validated) == 12


def test_prepare_names_what_the_splits_share(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--data_path", films, "--cache_path", tmp_path / "cache", "--output_path", tmp_path / "run"]
    call("prepare", *common)
    said = " ".join(capsys.readouterr().out.split())
    assert "6 pairs of image and label" in said
    with Image.open(tmp_path / "run/figures/pairs-data.png") as picture:
        assert picture.width > picture.height
    assert "of 3 sequences of names, such as " in said
    assert "of images in two splits look alike: " in said
    call("prepare", *common, "--group_by", "sequence")
    said = " ".join(capsys.readouterr().out.split())
    assert "sequences of names" not in said
    assert "look like" not in said
