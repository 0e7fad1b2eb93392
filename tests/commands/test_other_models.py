"""Proves that other networks train in the same loop and are scored by the same command, published ones by their own rules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from unet_dist.cli import main
from unet_dist.cli import run as run_command
from unet_dist.errors import ConfigError, DataError, LocalityError
from unet_dist.models.unet import UNet

pytest.importorskip("transformers", reason="needs transformers (extra: segformer)")

from tests.models.test_segformer import NAMES, publish

SIZE = (64, 96)
"""Of the pictures, px."""


@pytest.fixture(autouse=True)
def _processes() -> Iterator[None]:
    """Leave no accelerate state behind: these runs share the test's process."""
    from accelerate.state import AcceleratorState

    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six pictures of noise with masks of four named classes and an ignored id."""
    folder, random = tmp_path / "data", np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(6):
        image = random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        mask = random.integers(0, 4, SIZE, dtype=np.uint8)
        mask[:, :7] = 255
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    name_classes(folder, NAMES)
    return folder


def name_classes(folder: Path, names: list[str]) -> None:
    (folder / "id2label.json").write_text(json.dumps(dict(enumerate(names))))


def call(*words: str) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(list(words))
    assert leaving.value.code == 0


def evaluate(model: Path, data: Path, output: Path, *more: str) -> dict[str, Any]:
    words = ["--data_path", str(data), "--cache_path", str(output / "cache"), "--ignore_index", "255", "--split", "all"]
    call(
        "evaluate",
        str(model),
        *words,
        "--output_path",
        str(output),
        "--pictures",
        "0",
        "--mixed_precision",
        "no",
        *more,
    )
    return dict(json.loads((output / "evaluation-all.json").read_text()))


@pytest.mark.slow
def test_a_segformer_trains_and_is_evaluated_beside_the_unet(tmp_path: Path) -> None:
    scores = {}
    for name, options in (("segformer", []), ("unet", ["--base_channels", "4", "--depth", "2", "--norm", "weight"])):
        run = tmp_path / name
        words = ["--model", name, *options, "--synthetic_images", "10", "--synthetic_size", "96x128"]
        words += ["--input_size", "64" if name == "segformer" else "60", "--batch_size", "2", "--total_steps", "20"]
        words += ["--cache_path", str(tmp_path / "cache"), "--output_path", str(run), "--mixed_precision", "no"]
        call("train", *words, "--eval_steps", "10", "--log_steps", "1", "--trackers", "[]", "--learning_rate", "1e-3")
        call("evaluate", str(run), "--mixed_precision", "no", "--pictures", "1")
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses = [record["loss"] for record in records if record["split"] == "train"]
        assert len(losses) == 20
        assert np.mean(losses[-5:]) < 0.97 * np.mean(losses[:5])
        assert [record["step"] for record in records if record["split"] == "validation"] == [10, 20]
        scores[name] = json.loads((run / "evaluation-test.json").read_text())
        assert list((run / "figures").glob("test-*.png"))
    assert scores["segformer"]["inference"] == "blended tiles"
    assert scores["unet"]["inference"] == "exact tiles"
    counted = [np.array(score["confusion"]).sum(axis=1) for score in scores.values()]
    np.testing.assert_array_equal(*counted, err_msg="both are counted over the same labels")
    assert {score["training_split"] for score in scores.values()} == {"its own"}

    picture = next((tmp_path / "unet" / "figures").glob("test-*.png"))
    with pytest.raises(LocalityError, match=r"SegformerAttention.*--blend true.*--whole true"):
        run_command(["predict", str(tmp_path / "segformer"), str(picture), "--output", str(tmp_path / "out")])


def reference(network: Any, data: Path, size: tuple[int, int], mean: list[float], std: list[float]) -> np.ndarray:
    """The confusion matrix by the library's own network: scale, normalise, logits to the image in one step, as it does."""
    confusion = np.zeros((4, 4), dtype=np.int64)
    for path in sorted((data / "images").iterdir()):
        scaled = np.asarray(Image.open(path).resize(size[::-1], Image.Resampling.BILINEAR)) / 255
        pixels = torch.tensor((scaled - mean) / std, dtype=torch.float32).permute(2, 0, 1)[None]
        with torch.no_grad():
            logits = F.interpolate(network(pixels).logits, size=SIZE, mode="bilinear", align_corners=False)
        labels, mask = logits.argmax(1)[0].numpy(), np.asarray(Image.open(data / "masks" / path.name))
        np.add.at(confusion, (mask[mask < 4], labels[mask < 4]), 1)
    return confusion


def test_a_published_checkpoint_is_scored_by_its_own_rules_and_by_name(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mean, std, size = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25], (32, 64)
    processor = {"image_mean": mean, "image_std": std, "size": {"height": size[0], "width": size[1]}}
    network = publish(tmp_path / "published", processor=processor)
    expected = reference(network, data, size, mean, std)
    assert (expected.sum(axis=0) > 0).sum() >= 3, "a network that answers with one class proves nothing"
    first = evaluate(tmp_path / "published", data, tmp_path / "first")
    # The scaled pixels enter as (x - 255 mean) / (255 std) here and as (x / 255 - mean) / std there: ties may fall otherwise.
    assert np.abs(np.array(first["confusion"]) - expected).sum() <= 4
    assert (first["inference"], first["resized_to"], first["training_split"]) == ("whole image", [32, 64], "unknown")
    assert "training split unknown" in " ".join(capsys.readouterr().out.split())

    order = [2, 0, 3, 1]  # the same network under other ids
    with torch.no_grad():
        for tensor in (network.decode_head.classifier.weight, network.decode_head.classifier.bias):
            tensor.copy_(tensor[order].clone())
    names = [NAMES[index].upper().replace("-", "_") for index in order]
    network.config.id2label = dict(enumerate(names))
    network.config.label2id = {name: index for index, name in enumerate(names)}
    network.save_pretrained(tmp_path / "permuted")
    (tmp_path / "permuted/preprocessor_config.json").write_text(json.dumps(processor))
    second = evaluate(tmp_path / "permuted", data, tmp_path / "second")
    assert "Classes aligned by name: 4 of 4." in capsys.readouterr().out
    assert second["confusion"] == first["confusion"]
    assert second["iou"] == first["iou"]

    # Blended at the images' own scale is another answer, and said to be.
    blended = evaluate(tmp_path / "published", data, tmp_path / "blended", "--blend", "true", "--tile_size", "64")
    assert (blended["inference"], blended["resized_to"], blended["tile_size"]) == ("blended tiles", None, 64)
    assert blended["confusion"] != first["confusion"]

    call(
        "predict",
        str(tmp_path / "published"),
        str(data / "images"),
        "--output",
        str(tmp_path / "out"),
        "--overlay",
        "no",
        "--mixed_precision",
        "no",
    )
    labels = [np.asarray(Image.open(tmp_path / "out" / f"{number}.png")) for number in range(6)]
    masks = [np.asarray(Image.open(data / "masks" / f"{number}.png")) for number in range(6)]
    pairs = np.concatenate([4 * m[m < 4].astype(int) + p[m < 4] for m, p in zip(masks, labels, strict=True)])
    assert np.bincount(pairs, minlength=16).reshape(4, 4).tolist() == first["confusion"]


def test_classes_of_one_side_only_are_said(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(tmp_path / "published", ["sky", "tree", "road", "car", "wall"], processor={"size": 32})
    scores = evaluate(tmp_path / "published", data, tmp_path / "out")
    told = capsys.readouterr().out
    assert "3 of 4; never answered, as the network lacks them: person; left out of its answers, as" in told
    assert "lack them: tree, wall." in told
    answered = np.array(scores["confusion"]).sum(axis=0)
    assert answered[NAMES.index("person")] == 0
    assert answered.sum() == 6 * SIZE[0] * (SIZE[1] - 7)
    name_classes(data, ["a", "b", "c", "d"])
    words = ["evaluate", str(tmp_path / "published"), "--data_path", str(data), "--cache_path", str(tmp_path / "cache")]
    with pytest.raises(DataError, match=r"share no class by name\. The network's: sky, tree, .*The data's: a, b, c, d"):
        run_command([*words, "--ignore_index", "255", "--output_path", str(tmp_path / "out")])


def test_a_unet_that_couples_pixels_is_evaluated_without_being_called_exact(tmp_path: Path, data: Path) -> None:
    torch.manual_seed(0)
    UNet(3, 4, base_channels=4, depth=1, norm="group", class_names=NAMES).save_pretrained(tmp_path / "unet")
    blended = evaluate(tmp_path / "unet", data, tmp_path / "blended", "--tile_size", "100")
    whole = evaluate(tmp_path / "unet", data, tmp_path / "whole", "--whole", "true")
    assert [scores["inference"] for scores in (blended, whole)] == ["blended tiles", "whole image"]
    assert np.array(blended["confusion"]).sum() == np.array(whole["confusion"]).sum()
    UNet(3, 4, base_channels=4, depth=1, class_names=NAMES).save_pretrained(tmp_path / "local")
    exact = evaluate(tmp_path / "local", data, tmp_path / "exact")
    whole = evaluate(tmp_path / "local", data, tmp_path / "local-whole", "--whole", "true")
    assert exact["confusion"] == whole["confusion"], "of a local network both are the same function"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--model", "segformer", "--base_channels", "8"],
            r"base_channels: got 8, which has no effect on the model segf",
        ),
        (["--model", "segformer:b1", "--norm", "weight"], r"it takes dropout, checkpoint_activations\. Remove norm"),
        (["--model", "smp:Unet:resnet34", "--dropout", "0.5"], r"it takes no such key\. Remove dropout"),
        (["--model", "vnet"], r"model: got 'vnet', expected one that exists"),
    ],
)
def test_settings_without_effect_are_refused_before_any_data(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run_command(["train", *words, "--output_path", str(tmp_path), "--data_path", "/no/such"])


@pytest.mark.slow
def test_the_plan_of_a_segformer_reads_well(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "segformer:b0", "--input_size", "60", "--device", "cpu", "--batch_size", "2"]
    run_command(["plan", *words, "--image_size", "64x64", "--num_classes", "5"])
    told = " ".join(capsys.readouterr().out.split())
    assert "rounded up to 64, output 64" in told
    assert "SegFormer: 3,715,429 parameters, segformer:b0" in told
    assert "No exact tiles: network.segformer.stages.0.blocks.0.attention (SegformerAttention)" in told
    assert "predicted peak memory of a process" in told
