"""Proves a run of overlapping classes from end to end, and that however it is cut, its gradient and its scores are the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from tests.assembly.cuts import gradient_of
from tests.circles import draw_scene, write_circles, write_folders
from tests.distributed.processes import ROOT, quiet_environment
from unet_dist import Config, evaluate, predict, train
from unet_dist.assembly.data_set import open_data
from unet_dist.assembly.network import build_network
from unet_dist.cli import run
from unet_dist.commands import demo
from unet_dist.errors import ConfigError
from unet_dist.losses.pixelwise import CrossEntropy
from unet_dist.report.contents import read_run
from unet_dist.report.summary import class_scores
from unet_dist.terminal import Teller

KEYS: dict[str, Any] = {
    "multi_label": True, "input_size": 60, "base_channels": 8, "depth": 1, "norm": "weight", "batch_size": 4, "total_steps": 80,
    "eval_steps": 40, "learning_rate": 8e-3, "trackers": [], "mixed_precision": "no", "loss": "cross_entropy+dice",
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on circles whose masks are folders of classes: data/, cache/ and run/."""
    place = tmp_path_factory.mktemp("circles")
    write_circles(place / "data", count=12, write=write_folders)
    train(
        Config(**KEYS, data_path=str(place / "data"), cache_path=str(place / "cache"), output_path=str(place / "run"))
    )
    return place


def test_circles_are_learnt_and_scored(finished: Path) -> None:
    found = evaluate(finished / "run", split="validation", mixed_precision="no")
    assert found.scores.miou > 0.8
    assert found.class_names == ["blue", "red"]
    best = max(
        record["miou_present"]
        for record in map(json.loads, (finished / "run" / "metrics.jsonl").read_text("utf-8").splitlines())
        if record["split"] == "validation"
    )
    assert found.scores.miou_present == pytest.approx(best, rel=1e-6), "best/ is the best validation"
    by_tiles = evaluate(finished / "run", split="validation", tile_size=44, mixed_precision="no")
    assert torch.equal(by_tiles.scores.confusion, found.scores.confusion)
    record = found.record()
    assert record["counts"]["blue"]["true_positives"] == int(found.scores.confusion[0, 1, 1])
    assert sum(record["calibration"]["pixels"]) == int(found.scores.confusion.sum())
    assert len(record["by_image"]) == 3


def test_labels_are_planes_that_match_the_scores(finished: Path) -> None:
    confusion = torch.zeros(2, 2, 2, dtype=torch.int64)
    numbers = (3, 7, 11)
    images = [finished / "data" / "images" / "val" / f"s{number}.png" for number in numbers]
    for number, (_, labels, *_) in zip(numbers, predict(finished / "run", images, mixed_precision="no"), strict=True):
        truth = draw_scene(number)[1].transpose(2, 0, 1)[::-1]  # blue, red
        for k in range(2):
            for a in (0, 1):
                for b in (0, 1):
                    confusion[k, a, b] += int(((truth[k] == a) & (labels[k] == b)).sum())
    found = evaluate(finished / "run", split="validation", mixed_precision="no")
    assert torch.equal(found.scores.confusion, confusion)


def test_commands_write_scores_and_bands(finished: Path, tmp_path: Path) -> None:
    run(
        [
            "evaluate",
            str(finished / "run"),
            "--split",
            "validation",
            "--output_path",
            str(tmp_path),
            "--mixed_precision",
            "no",
        ]
    )
    written = json.loads((tmp_path / "evaluation-validation.json").read_text("utf-8"))
    assert sorted(picture["id"] for picture in written["pictures"]) == ["s11", "s3", "s7"]
    assert list((tmp_path / "figures").glob("validation-*.png"))
    images = str(finished / "data" / "images" / "val")
    run(["predict", str(finished / "run"), images, "--output", str(tmp_path / "out"), "--tile_size", "44"])
    bands = tifffile.imread(tmp_path / "out" / "s3.tif")
    assert bands.shape == (2, 64, 64)
    assert set(np.unique(bands)) == {0, 1}
    assert (tmp_path / "out" / "s3_overlay.png").exists()


@pytest.mark.parametrize(
    ("world_size", "micro_batch_size", "tile_size", "splits", "more"),
    [
        (1, 1, None, False, {}),
        (2, 2, None, False, {}),
        (2, 1, None, False, {}),
        (1, 2, 44, False, {}),
        (2, 1, 44, True, {}),
        (2, 1, 44, True, {"depth": 2, "deep_supervision": 1}),
    ],
)
def test_gradient_is_the_same_however_the_batch_is_cut(
    finished: Path, world_size: int, micro_batch_size: int, tile_size: int | None, splits: bool, more: dict[str, Any]
) -> None:
    """C2 and C3: micro-batches, two processes, tiles of a crop, and the tiles of one sample on two processes."""
    config = Config(
        **{**KEYS, "class_weights": "median", **more},
        dtype="float64",
        data_path=str(finished / "data"),
        cache_path=str(finished / "cache"),
    )
    cache = open_data(config, Teller(speaks=False))
    expected, wanted = gradient_of(config, cache, 1, 4, None)
    got, gradient = gradient_of(config, cache, world_size, micro_batch_size, tile_size, splits=splits)
    assert got == pytest.approx(expected, rel=1e-12)
    for name, one in wanted.items():
        torch.testing.assert_close(gradient[name], one, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"loss": "lovasz"}, "loss: got 'lovasz' with multi_label true"),
        ({"border_class": 1}, "border_class: got 1 with multi_label true"),
        ({"label_smoothing": 0.1}, "label_smoothing: got 0.1 with multi_label true"),
        ({"data_path": "synthetic"}, "data_path: got 'synthetic' with multi_label true"),
        ({"augmentation": "tests.extending.parts:shift"}, "augmentation: got .* with multi_label true"),
        ({"augmentation": [{"name": "D4"}]}, "augmentation: got .* with multi_label true"),
        ({"classmix": 0.5}, "classmix: got 0.5 with multi_label true"),
        ({"thresholds": [0.5, 1.5]}, "thresholds: got .*, expected numbers above 0 and below 1"),
        ({"multi_label": False, "thresholds": 0.4}, "thresholds: got 0.4, which has no effect without multi_label"),
        ({"multi_label": False, "num_classes": 1}, "num_classes: got 1, expected 2 to 65535"),
    ],
)
def test_keys_without_a_meaning_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Config(**{**KEYS, "data_path": "somewhere", "loss": "cross_entropy", **changes})


@pytest.mark.parametrize(
    "words",
    [
        ["export", "RUN", "--format", "onnx"],
        ["demo", "RUN"],
        ["predict", "RUN", "IMAGES", "--output", "OUT", "--confidence", "true"],
    ],
    ids=lambda words: words[0],
)
def test_what_shows_one_class_per_pixel_is_refused(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr(demo, "require_gradio", lambda folder: None)
    meant = {"RUN": finished / "run", "IMAGES": finished / "data" / "images" / "val", "OUT": tmp_path / "out"}
    with pytest.raises(ConfigError, match="the network was trained with multi_label"):
        run([str(meant.get(word, word)) for word in words])
    assert not list(tmp_path.rglob("*"))


def test_the_report_shows_each_class(finished: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(finished / "run", place)
    run(
        [
            "evaluate",
            str(place),
            "--split",
            "validation",
            "--mixed_precision",
            "no",
            "--data_path",
            str(finished / "data"),
        ]
    )
    run(["report", str(place), "--output", str(tmp_path / "page.html")])
    contents = read_run(place)
    assert [score.name for score in class_scores(contents, "validation")] == ["blue", "red"]
    counts = contents.evaluations["validation"]["counts"]["blue"]
    labelled = counts["true_positives"] + counts["false_negatives"]
    (blue, _) = class_scores(contents, "validation")
    assert blue.split_share == pytest.approx(labelled / sum(counts.values()))
    assert blue.iou == pytest.approx(counts["true_positives"] / (labelled + counts["false_positives"]), abs=1e-6)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "validation split, 2 classes that occur" in page
    assert "not evaluated" not in page
    assert "Where classes overlap, their colours are mixed" in page
    kept = contents.evaluations["validation"]["pictures"]
    (s3,) = (picture["name"] for picture in kept if picture["id"] == "s3")
    label = np.asarray(Image.open(place / "pictures" / f"{s3}-label.png")).reshape(2, 64, 64)[0]
    truth = draw_scene(3)[1]  # red, blue
    assert np.array_equal(label & 15, truth[..., 1] + 4 * truth[..., 0])


def test_the_model_card_says_that_classes_overlap(finished: Path, tmp_path: Path) -> None:
    run(["export", str(finished / "run"), "--format", "huggingface", "--output", str(tmp_path / "card")])
    card = (tmp_path / "card" / "README.md").read_text("utf-8")
    assert "2 classes, which may overlap." in card
    assert "# (classes, height, width) uint8, 1 where a class is" in card
    assert "per pixel" not in card


def test_an_object_that_takes_class_ids_is_refused(finished: Path) -> None:
    keys = {key: value for key, value in KEYS.items() if key != "loss"}
    config = Config(**keys, data_path=str(finished / "data"), cache_path=str(finished / "cache"))
    with pytest.raises(ConfigError, match="loss: got an object with multi_label true"):
        train(config, loss=CrossEntropy())


@pytest.mark.processes
@pytest.mark.slow
def test_two_processes_train_as_one(finished: Path, tmp_path: Path) -> None:
    keys = {**KEYS, "total_steps": 6, "eval_steps": 6, "log_steps": 1, "dtype": "float64", "augmentation": "street"}
    words = [f"--{key}={json.dumps(value) if isinstance(value, bool) else value}" for key, value in keys.items()]
    rows = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        where = ["--data_path", finished / "data", "--cache_path", finished / "cache", "--output_path", folder]
        command = [sys.executable, "-m", "unet_dist", "train", *words, *map(str, where)]
        done = subprocess.run(
            [*command, "--processes", str(number), "--device", "cpu"],
            env=quiet_environment(), cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rows.append([json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()])
    one, two = ([row["loss"] for row in each if row["split"] == "train"] for each in rows)
    assert len(one) == 6
    assert two == pytest.approx(one, rel=1e-8)
    assert max(one) - min(one) > 0.01, "a run that learns nothing proves nothing"
    assert rows[0][-1]["iou"] == rows[1][-1]["iou"]


def test_thresholds_are_one_per_class(finished: Path) -> None:
    keys = {**KEYS, "data_path": str(finished / "data"), "cache_path": str(finished / "cache")}
    config = Config(**keys, thresholds=[0.3, 0.6])
    cache = open_data(config, Teller(speaks=False))
    model: Any = build_network(config, cache)
    assert model.thresholds == [0.3, 0.6]
    with pytest.raises(ConfigError, match=r"thresholds: got .*, expected 2 probabilities"):
        build_network(Config(**keys, thresholds=[0.3]), cache)


def test_data_and_network_are_of_one_kind(finished: Path, tmp_path: Path) -> None:
    from unet_dist import UNet

    UNet(3, 2, base_channels=2, depth=1).save_pretrained(tmp_path / "model")
    config = Config(**KEYS, data_path=str(finished / "data"), cache_path=str(finished / "cache"))
    cache = open_data(config, Teller(speaks=False))
    with pytest.raises(
        ConfigError, match="multi_label: got data of overlapping classes and a network of one class per pixel"
    ):
        evaluate(tmp_path / "model", cache, split="validation", mixed_precision="no")
