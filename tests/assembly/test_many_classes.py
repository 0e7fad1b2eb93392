"""Proves a run of 300 classes from end to end: 16-bit ids in, the same ids out, and the same gradient however a batch is cut."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from tests.assembly.cuts import gradient_of
from unet_dist import Config, evaluate, train
from unet_dist.assembly.data_set import open_data
from unet_dist.assembly.objective import loss_of, require_ids
from unet_dist.cli import run
from unet_dist.errors import ConfigError, DataError
from unet_dist.losses.mixture import Mixture
from unet_dist.losses.pixelwise import CrossEntropy
from unet_dist.metrics.confusion import count_confusion
from unet_dist.terminal import Teller

CLASSES, DARK, BRIGHT, IGNORED = 300, 3, 290, 65535
KEYS: dict[str, Any] = {
    "num_classes": CLASSES, "ignore_index": IGNORED, "input_size": 60, "base_channels": 8, "depth": 1, "norm": "weight",
    "batch_size": 4, "total_steps": 60, "eval_steps": 60, "learning_rate": 8e-3, "trackers": [], "mixed_precision": "no",
    "classmix": 0.25,
}  # fmt: skip


def write_scenes(root: Path, count: int = 10) -> Path:
    """Write bright boxes of class 290 on dark ground of class 3; in the first rows is a pixel of each other class."""
    for number in range(count):
        random = np.random.default_rng(number)
        mask = np.full((64, 72), DARK, np.uint16)
        top, left = random.integers(8, 30, 2)
        mask[top : top + 28, left : left + 30] = BRIGHT
        image = np.where(mask == BRIGHT, 200, 60)[:, :, None] + random.integers(-20, 20, (64, 72, 3))
        mask[:5, :60] = random.permutation(CLASSES).reshape(5, 60)
        mask[60:, 66:] = IGNORED
        split = "val" if number % 5 == 4 else "train"
        for kind, pixels in (("images", image.astype(np.uint8)), ("masks", mask)):
            path = root / kind / split / f"s{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: data/, cache/ and run/."""
    place = tmp_path_factory.mktemp("many")
    data = write_scenes(place / "data")
    train(Config(**KEYS, data_path=str(data), cache_path=str(place / "cache"), output_path=str(place / "run")))
    return place


def test_ids_are_learnt_and_predicted_as_they_are(finished: Path, tmp_path: Path) -> None:
    """The files hold 16-bit ids, whatever the tiles; the evaluation counts just these."""
    images, masks = finished / "data" / "images" / "val", finished / "data" / "masks" / "val"
    for name, words in (("whole", []), ("tiles", ["--tile_size", "44", "--format", "tiff"])):  # float32: bf16 rounds
        run(
            [
                "predict",
                str(finished / "run"),
                str(images),
                "--output",
                str(tmp_path / name),
                "--mixed_precision",
                "no",
                *words,
            ]
        )
    confusion = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    for number in (4, 9):
        labels = np.array(Image.open(tmp_path / "whole" / f"s{number}.png"))
        assert labels.dtype == np.uint16
        assert np.array_equal(tifffile.imread(tmp_path / "tiles" / f"s{number}.tif"), labels)
        truth = np.array(Image.open(masks / f"s{number}.png"))
        for value in (DARK, BRIGHT):
            assert (labels[5:60][truth[5:60] == value] == value).mean() > 0.5
        confusion += count_confusion(torch.from_numpy(truth), torch.from_numpy(labels), CLASSES)
        assert (tmp_path / "whole" / f"s{number}_overlay.png").exists()
    found = evaluate(finished / "run", split="validation", mixed_precision="no")
    assert torch.equal(found.scores.confusion, confusion)
    by_tiles = evaluate(finished / "run", split="validation", tile_size=44, mixed_precision="no")
    assert torch.equal(by_tiles.scores.confusion, confusion)


@pytest.mark.parametrize(
    ("world_size", "micro_batch_size", "tile_size", "splits"),
    [(2, 2, None, False), (1, 2, 44, False), (2, 1, 44, True)],
)
def test_gradient_is_the_same_however_the_batch_is_cut(
    finished: Path, world_size: int, micro_batch_size: int, tile_size: int | None, splits: bool
) -> None:
    """C2 and C3: two processes, tiles of a crop, and the tiles of one sample on two processes."""
    config = Config(
        **{**KEYS, "class_weights": "sqrt", "loss": "cross_entropy+dice"},
        dtype="float64", data_path=str(finished / "data"), cache_path=str(finished / "cache"),
    )  # fmt: skip
    cache = open_data(config, Teller(speaks=False))
    expected, wanted = gradient_of(config, cache, 1, 4, None)
    got, gradient = gradient_of(config, cache, world_size, micro_batch_size, tile_size, splits=splits)
    assert got == pytest.approx(expected, rel=1e-12)
    for name, one in wanted.items():
        torch.testing.assert_close(gradient[name], one, rtol=1e-9, atol=1e-12)


class Own(CrossEntropy):
    """A loss of somebody else."""


def test_a_loss_that_may_take_255_for_nothing_is_refused(finished: Path) -> None:
    config = Config(**KEYS, data_path=str(finished / "data"), cache_path=str(finished / "cache"))
    cache = open_data(config, Teller(speaks=False))
    require_ids(loss_of(config.schedule, cache, torch.device("cpu")), cache)
    with pytest.raises(ConfigError, match="loss: got Own with num_classes 300, expected one that says takes_16_bits"):
        require_ids(Mixture([(1.0, CrossEntropy()), (0.5, Own())]), cache)


@pytest.mark.slow
def test_tables_and_the_report_show_the_worst(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "run"
    shutil.copytree(finished / "run", place)
    run(["evaluate", str(place), "--split", "validation", "--mixed_precision", "no", "--pictures", "2"])
    said = " ".join(capsys.readouterr().out.split())
    assert said.index("Written: ") < said.index("Drawing 2 pictures.") < said.index("Pictures: ")
    assert "The 10 worst; " in said
    assert f"others are better. All are in {place}/evaluation-validation.json." in said
    record = json.loads((place / "evaluation-validation.json").read_text("utf-8"))
    assert len(record["iou"]) == len(record["confusion"]) == CLASSES
    assert record["pictures"]
    ids = np.asarray(Image.open(place / "pictures" / f"{record['pictures'][0]['name']}-label.png"))
    assert ids.max() == IGNORED
    run(["report", str(place), "--output", str(tmp_path / "page.html")])
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "class_290" in page
    assert "more classes have fewer pixels" in page
    run(["prepare", "--data_path", str(finished / "data"), "--cache_path", str(tmp_path / "cache"), *flags()])
    assert f"the 10 rarest of {CLASSES} classes" in capsys.readouterr().out


def flags() -> list[str]:
    """The words of the command line for the ids."""
    return ["--num_classes", str(CLASSES), "--ignore_index", str(IGNORED)]


def test_ids_that_nobody_explained_are_one_sentence(finished: Path, tmp_path: Path) -> None:
    """16-bit masks may number objects; and what no mask of 16 bits holds is no id."""
    config = Config(data_path=str(finished / "data"), cache_path=str(tmp_path / "cache"), ignore_index=IGNORED)
    with pytest.raises(DataError, match=r"outside 0 to 254\nSet --num_classes 300, "):
        open_data(config, Teller(speaks=False))
    beyond = np.full((64, 72), 65536, np.int32)
    tifffile.imwrite(tmp_path / "big.tif", beyond)
    data = shutil.copytree(finished / "data", tmp_path / "data")
    (data / "masks" / "train" / "s0.png").unlink()
    (tmp_path / "big.tif").rename(data / "masks" / "train" / "s0.tif")
    config = Config(**KEYS, data_path=str(data), cache_path=str(tmp_path / "cache"))
    with pytest.raises(
        DataError, match=r"s0\.tif holds id 65536 \(4,608 px\), outside 0 to 65535\nWrite ids from 0 to 65535"
    ):
        open_data(config, Teller(speaks=False))
