"""Proves that a script gets what the commands write: the scores of evaluate and the labels of predict, to the bit."""

from __future__ import annotations

import doctest
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.distributed.processes import ROOT, quiet_environment
from unet_dist import UNet, evaluate, predict, predict_files
from unet_dist.assembly.opening import load_network
from unet_dist.cli import run
from unet_dist.commands import evaluate as evaluate_command
from unet_dist.errors import CheckpointError, ConfigError, DataError, LocalityError
from unet_dist.imaging.reader import ArrayReader
from unet_dist.models.registry import load_model
from unet_dist.prediction.image import predict_logits


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of four pictures in three classes, and a network: data/ and model/."""
    folder = tmp_path_factory.mktemp("library")
    rng = np.random.default_rng(0)
    for number in range(4):
        for kind, values in (("images", rng.integers(0, 256, (50, 70, 3))), ("masks", rng.integers(0, 3, (50, 70)))):
            (folder / "data" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(folder / "data" / kind / f"s{number}.png")
    torch.manual_seed(0)
    model = UNet(3, 3, base_channels=2, depth=2, mean=[128.0] * 3, std=[20.0] * 3).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.normal_(0, 0.4)  # as drawn, one class is the answer everywhere
    model.save_pretrained(folder / "model")
    return folder


def test_evaluate_gives_what_the_command_writes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = {"split": "all", "tile_size": 60, "flip": True, "mixed_precision": "no"}
    words = [word for key, value in keys.items() for word in (f"--{key}", str(value).lower())]
    output = place / "evaluated"
    run(["evaluate", str(place / "model"), "--data_path", str(place / "data"), "--output_path", str(output), *words])
    assert "precision" in capsys.readouterr().out
    written = json.loads((output / "evaluation-all.json").read_text(encoding="utf-8"))
    found = evaluate(place / "model", place / "data", split="all", tile_size=60, flip=True, mixed_precision="no")
    assert json.loads(json.dumps(found.record())) == {k: v for k, v in written.items() if k != "pictures"}
    assert (written["mixed_precision"], written["averaged_over"]) == ("no", "flip")
    assert found.scores.confusion.sum() == 4 * 50 * 70
    assert found.table().row_count == 3 + 2
    plain = evaluate(place / "model", place / "data", split="all", tile_size=60, mixed_precision="no")
    assert not torch.equal(plain.scores.confusion, found.scores.confusion), "the flip makes a difference here"


def test_data_without_a_test_split_are_scored_on_validation(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, split in enumerate(("train", "train", "val")):
        for kind in ("images", "masks"):
            (tmp_path / "data" / kind / split).mkdir(parents=True, exist_ok=True)
            shutil.copy(place / "data" / kind / f"s{number}.png", tmp_path / "data" / kind / split)
    run(
        [
            "evaluate",
            str(place / "model"),
            "--data_path",
            str(tmp_path / "data"),
            "--output_path",
            str(tmp_path / "scores"),
        ]
    )
    printed = capsys.readouterr().out
    assert "no test split: scored on validation" in " ".join(printed.split())
    assert "validation-*.png" in printed
    written = json.loads((tmp_path / "scores" / "evaluation-validation.json").read_text(encoding="utf-8"))
    assert [image["id"] for image in written["by_image"]] == ["s2"]


def test_evaluate_takes_a_network_and_leaves_it_as_it_is(place: Path) -> None:
    model = load_model(place / "model", device=torch.device("cpu"))
    expected = evaluate(place / "model", place / "data", split="all", ignore_index=1, mixed_precision="no")
    found = evaluate(model, place / "data", split="all", ignore_index=1, mixed_precision="no")
    assert torch.equal(found.scores.confusion, expected.scores.confusion)
    assert found.scores.iou[1] is None
    assert model.ignore_index is None
    with pytest.raises(ConfigError, match="data_path"):
        evaluate(model)


def test_names_of_classes_can_come_later(place: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("sky\nroad\n", encoding="utf-8")
    found = evaluate(place / "model", place / "data", split="all", names=names, mixed_precision="no")
    plain = evaluate(place / "model", place / "data", split="all", mixed_precision="no")
    assert found.class_names == ["sky", "road", "class_2"]
    assert plain.class_names == ["class_0", "class_1", "class_2"]
    assert torch.equal(found.scores.confusion, plain.scores.confusion)
    names.write_text("sky\nroad\ncar\ntree\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^names: got a name for class 3, expected 0 to 2\. Correct the file"):
        evaluate(place / "model", place / "data", split="all", names=names, mixed_precision="no")


def test_data_without_names_are_read_by_the_ids_of_the_network(place: Path, tmp_path: Path) -> None:
    model = load_model(place / "model", device=torch.device("cpu"))
    for kind in ("images", "masks"):
        shutil.copytree(place / "data" / kind, tmp_path / "data" / kind)
    for path in (tmp_path / "data/masks").iterdir():  # of three classes, the first and the last: a gap
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask == 1, 0, mask).astype(np.uint8)).save(path)
    model.class_names = ["sky", "road", "car"]
    found = evaluate(model, tmp_path / "data", split="all", mixed_precision="no")
    assert found.class_names == ["sky", "road", "car"]
    assert found.scores.confusion.sum(1).tolist()[1] == 0, "no label says road"
    assert found.scores.confusion.shape == (3, 3)
    names = tmp_path / "names.txt"
    names.write_text("road\nx\nSky\n", encoding="utf-8")
    aligned = evaluate(model, tmp_path / "data", split="all", names=names, mixed_precision="no")
    assert aligned.class_names == ["road", "x", "Sky"]
    assert int(aligned.scores.confusion[:, 1].sum()) == 0, "the network lacks x"


def test_predict_gives_what_the_command_writes(place: Path) -> None:
    images = place / "data" / "images"
    run(["predict", str(place / "model"), str(images), "--output", str(place / "out"), "--overlay", "false"])
    found = list(predict(place / "model", images))
    assert [each.name for each in found] == ["s0", "s1", "s2", "s3"]
    for each in found:
        np.testing.assert_array_equal(each.labels, np.asarray(Image.open(place / "out" / f"{each.name}.png")))
        assert each.probabilities is each.confidence is None


@pytest.mark.slow
def test_predict_files_gives_the_bytes_of_the_command_on_two_processes(place: Path) -> None:
    """A script below torchrun; predict shares out whole images there."""
    images, bytes_of = place / "data" / "images", {}
    script = place / "script.py"
    script.write_text(
        "import os, sys\nfrom unet_dist import predict, predict_files\n"
        "model, images, output = sys.argv[1:]\n"
        "found = predict_files(model, images, output, window_batch=2, probabilities='uint8')\n"
        "assert found.is_complete and len(found.outputs) == 4 and not found.unreadable\n"
        "names = [each.name for each in predict(model, images)]\n"
        "assert names == ['s0 s2', 's1 s3'][int(os.environ['RANK'])].split(), names\n"
        "assert len(list(predict(model, images, is_shared=False))) == 4\n"
    )
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = ["--output", str(place / "by command"), "--window_batch", "2", "--probabilities", "uint8"]
    for name, call in (
        ("script", [*launcher, str(script), str(place / "model"), str(images), str(place / "by script")]),
        (
            "command",
            [
                "-m",
                "unet_dist",
                "predict",
                str(place / "model"),
                str(images),
                "--output",
                str(place / "by command"),
                *words,
            ],
        ),
    ):
        ran = subprocess.run([sys.executable, *call], cwd=ROOT, env=quiet_environment(), capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        bytes_of[name] = {path.name: path.read_bytes() for path in (place / f"by {name}").glob("*.*")}
    assert len(bytes_of["script"]) == 3 * 4
    assert bytes_of["script"] == bytes_of["command"]


def test_predict_files_takes_a_network_and_says_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = load_model(place / "model", device=torch.device("cpu"))
    image = place / "data" / "images" / "s1.png"
    found = predict_files(model, image, place / "by network", overlay=False)
    assert found.outputs == {str(image): {"labels": place / "by network" / "s1.png"}}
    written = np.asarray(Image.open(place / "by network" / "s1.png"))
    np.testing.assert_array_equal(written, next(predict(model, image)).labels)
    assert capsys.readouterr().out == ""
    with pytest.raises(ConfigError, match=r"got the key .overlap.*overlay"):
        predict_files(model, image, place / "by network", overlap=False)


def test_predict_takes_pictures_from_anywhere_one_by_one(place: Path) -> None:
    torch.manual_seed(0)
    model = UNet(3, 3, base_channels=2, depth=2).double().eval()
    path = place / "data" / "images" / "s0.png"
    pixels = np.asarray(Image.open(path))
    taken = []

    def pictures():  # type: ignore[no-untyped-def]
        for picture in (pixels, Image.open(path), ArrayReader(pixels), path):
            taken.append(picture)
            yield picture

    predicted = predict(model, pictures(), probabilities=True, confidence=True, mixed_precision="no", tile_size=60)
    first = next(predicted)
    assert len(taken) == 1, "a picture is asked for when its turn comes"
    expected = predict_logits(model, pixels).softmax(0)
    for each in (first, *predicted):
        assert each.probabilities is not None
        assert each.confidence is not None
        np.testing.assert_array_equal(each.labels, expected.argmax(0).numpy())
        np.testing.assert_allclose(each.probabilities, expected.numpy(), atol=1e-7)
        np.testing.assert_allclose(each.confidence, expected.amax(0).numpy(), atol=1e-7)
    assert [each.name for each in predict(model, [pixels, path, pixels])] == ["image-0", "s0", "image-1"]


def test_what_cannot_be_is_named(place: Path) -> None:
    model = UNet(3, 3, base_channels=2, depth=2).eval()
    with pytest.raises(DataError, match=r"image-0: Got an image with 2 channels"):
        next(predict(model, np.zeros((40, 40, 2), np.uint8)))
    with pytest.raises(LocalityError, match="--blend true"):
        next(predict(UNet(3, 3, base_channels=4, depth=2, norm="group").eval(), place / "data" / "images"))


def test_a_bad_file_costs_itself_only(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(place / "data" / "images", folder)
    whole = (folder / "s1.png").read_bytes()
    (folder / "s1.png").write_bytes(whole[: len(whole) // 2])  # its header is whole
    (folder / "notes.txt").write_text("no image")
    (folder / "more").mkdir()
    words = ["predict", str(place / "model"), str(folder), "--overlay", "false", "--output"]
    with pytest.raises(SystemExit) as ended:
        run([*words, str(tmp_path / "out")])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert (
        f"No images, so left out: {folder / 'more'}, {folder / 'notes.txt'}. Folders inside a folder are not searched"
        in said
    )
    assert re.search(r"Not predicted: .*s1\.png", said.splitlines()[-1])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["s0.png", "s2.png", "s3.png"]
    with pytest.raises(DataError, match=r"s1\.png"):
        run([*words, str(tmp_path / "strict"), "--strict", "true"])
    with pytest.raises(DataError, match=r"s1\.png"):
        run(["predict", str(place / "model"), str(folder / "s1.png"), "--output", str(tmp_path / "alone")])


def test_runs_joined_by_plus_are_one_network(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    other = UNet(3, 3, base_channels=2, depth=2, mean=[100.0] * 3, std=[30.0] * 3).eval()
    for weights in other.parameters():
        torch.nn.init.normal_(weights, 0, 0.4)
    other.save_pretrained(tmp_path / "other")
    both = f"{place / 'model'}+{tmp_path / 'other'}"
    image = place / "data/images/s1.png"
    (found,) = predict(both, image, probabilities=True, mixed_precision="no")
    each = [next(predict(one, image, probabilities=True, mixed_precision="no")) for one in both.split("+")]
    mean = np.mean([one.probabilities for one in each if one.probabilities is not None], axis=0)
    np.testing.assert_allclose(found.probabilities, mean, atol=1e-6)
    assert (found.labels == mean.argmax(0)).mean() > 0.999
    assert (found.labels != each[0].labels).any()
    words = ["--data_path", str(place / "data"), "--split", "all", "--mixed_precision", "no"]
    run(["evaluate", both, *words, "--output_path", str(tmp_path / "scores")])
    written = json.loads((tmp_path / "scores/evaluation-all.json").read_text(encoding="utf-8"))
    assert written["model"] == both
    run(["predict", both, str(image), "--output", str(tmp_path / "labels"), "--mixed_precision", "no"])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "labels/s1.png")), found.labels)
    capsys.readouterr()


def test_several_runs_are_evaluated_one_after_the_other(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their mean and spread are printed; each has its scores in its own folder."""
    assert doctest.testmod(evaluate_command).failed == 0
    with pytest.raises(ConfigError, match=r"output_path: got here for 2 runs, expected none: .* Join them by \+"):
        run(["evaluate", str(place / "model"), str(place / "model"), "--output_path", "here"])


def test_an_average_needs_the_checkpoints_of_a_run(place: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"average: got last:2 for .*, which has no checkpoints\. Expected the folder of a run"
    ):
        load_network(str(place / "model"), torch.device("cpu"), average="last:2")


def test_a_refused_prediction_leaves_no_folder_that_it_made(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for output in (tmp_path / "new", old):
        with pytest.raises(CheckpointError, match="there is no such folder"):
            predict_files(tmp_path / "runs" / "none", tmp_path, output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]
    assert not list(old.iterdir())
