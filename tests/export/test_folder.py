"""Proves that the folder for the hub is a model folder, that its card states the records and nothing else, that the snippet
on it runs, and that it goes to a hub whole.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import unet_dist
from tests.export.conftest import NAMES, TINY, make_model, make_run
from tests.models.hub_stand_in import running_hub
from unet_dist import UNet, predict_image
from unet_dist.cli import main, run
from unet_dist.errors import ConfigError, DataError
from unet_dist.export.card import write_card
from unet_dist.models.registry import load_model
from unet_dist.models.segformer import SegFormer
from unet_dist.report.figures import draw_prediction

FILES = ["README.md", "config.json", "model.safetensors"]
FILES_WITH_EXAMPLE = ["README.md", "config.json", "example.png", "example_input.png", "model.safetensors"]


@pytest.fixture
def folder(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    run(["export", str(run_folder), "--format", "huggingface", "--license", "mit"])
    printed = capsys.readouterr().out
    assert f"load_model('{run_folder}/huggingface')" in printed
    assert "no example picture: --example FILE adds one" in printed
    return run_folder / "huggingface"


@pytest.fixture
def folder_of_scenes(tmp_path: Path) -> Path:
    """The export of a network that was trained on the drawn street scenes."""
    trained = make_run(tmp_path / "drawn", "synthetic")
    run(["export", str(trained), "--format", "huggingface", "--license", "mit"])
    return trained / "huggingface"


def front_matter(card: str) -> dict:
    return dict(yaml.safe_load(card.split("---")[1]))


def snippet(card: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return str(code)


def test_it_is_a_model_folder(folder: Path, run_folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == FILES
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    expected = predict_image(load_model(run_folder / "best"), noise)
    assert np.array_equal(predict_image(UNet.from_pretrained(folder), noise), expected)


def test_a_street_scene_is_shown_of_a_network_of_street_scenes_alone(folder_of_scenes: Path, folder: Path) -> None:
    assert sorted(path.name for path in folder_of_scenes.iterdir()) == FILES_WITH_EXAMPLE
    card = (folder_of_scenes / "README.md").read_text()
    assert "](example.png)" in card
    assert "no photograph" in card
    assert '"example_input.png"' in snippet(card)
    card = (folder / "README.md").read_text()
    assert "example" not in card
    assert "some.jpg" in snippet(card)


def test_the_card_says_what_was_recorded(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    head = front_matter(card)
    assert (head["license"], head["library_name"], head["pipeline_tag"]) == ("mit", "unet_dist", "image-segmentation")
    results = head["model-index"][0]["results"]
    scores = {(r["dataset"]["split"], m["type"]): m["value"] for r in results for m in r["metrics"]}
    assert scores == {
        ("test", "mean_iou"): 0.4321,
        ("test", "accuracy"): 0.75,
        ("validation", "mean_iou"): 0.5,
        ("validation", "accuracy"): 0.75,
    }
    assert "| | test of my-streets | validation of my-streets |" in card
    assert "| IoU road | 0.2500 | 0.2500 |" in card
    assert "| IoU sky | - | - |" in card
    assert "| 1 | sky |" in card
    assert "| input_size | 80 |" in card
    assert "Licence of the weights: mit." in card


def test_the_card_gives_away_no_place_and_breaks_no_table(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert "secret place" not in card
    assert str(folder.parent) not in card
    tables = [line for line in card.splitlines() if line.startswith("|") and "bush" in line]
    assert tables
    assert all(r"tree \| bush" in line for line in tables)


def test_the_snippet_runs(folder_of_scenes: Path) -> None:
    code = (
        snippet((folder_of_scenes / "README.md").read_text())
        + "\nassert labels.shape == (540, 960) and labels.dtype == 'uint8'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder_of_scenes, env=_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_without_licence_scores_or_run(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["export", str(run_folder / "best"), "--format", "huggingface", "--output", str(tmp_path / "a model")])
    assert "No --license was named, and the card says so." in capsys.readouterr().out
    card = (tmp_path / "a model/README.md").read_text()
    assert not {"license", "model-index", "datasets"} & set(front_matter(card))
    assert "No licence was stated for these weights." in card
    assert "No evaluation was recorded." in card
    assert "## Training" not in card


def test_a_network_without_a_halo_is_used_by_the_command(tmp_path: Path) -> None:
    """predict_image would refuse it: the card does not say to call it, and the example shows what the command makes."""
    make_model(norm="group").save_pretrained(tmp_path / "best")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)).save(tmp_path / "mine.png")
    words = ["export", str(tmp_path / "best"), "--format", "huggingface", "--output", str(tmp_path / "out")]
    run([*words, "--example", str(tmp_path / "mine.png")])
    run(
        [
            "predict",
            str(tmp_path / "best"),
            str(tmp_path / "mine.png"),
            "--output",
            str(tmp_path / "labels"),
            "--blend",
            "--mixed_precision",
            "no",
        ]
    )
    mine, labels = (np.asarray(Image.open(tmp_path / name)) for name in ("mine.png", "labels/mine.png"))
    assert len(np.unique(labels)) > 1
    draw_prediction(tmp_path / "expected.png", mine, labels, NAMES)
    assert (tmp_path / "out/example.png").read_bytes() == (tmp_path / "expected.png").read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES_WITH_EXAMPLE
    card = (tmp_path / "out/README.md").read_text()
    assert "`unet-dist predict FOLDER some.jpg --output out --blend`" in card
    assert "predict_image" not in card.split("## Use")[1].split("## ")[0]
    assert "](example.png)" in card
    np.save(tmp_path / "bands.npy", np.zeros((50, 70, 2), np.uint8))
    with pytest.raises(DataError, match=r"2 channels"):
        run([*words, "--example", str(tmp_path / "bands.npy")])


def test_a_segformer_is_loaded_by_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(
        "transformers", reason="the extra segformer is not installed: pip install 'unet_dist[segformer]'"
    )
    SegFormer(num_classes=3, class_names=NAMES, architecture=TINY).save_pretrained(tmp_path / "best")
    run(["export", str(tmp_path / "best"), "--format", "huggingface", "--output", str(tmp_path / "out")])
    assert f"unet_dist.load_model('{tmp_path}/out')" in capsys.readouterr().out
    model = unet_dist.load_model(tmp_path / "out")
    assert (type(model), model.class_names) == (SegFormer, NAMES)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


def test_the_example_is_what_the_user_names(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(mine).save(tmp_path / "mine.png")
    run(["export", str(run_folder), "--format", "huggingface", "--example", str(tmp_path / "mine.png")])
    out = capsys.readouterr().out
    assert "make sure that you may pass it on" in out
    assert out.index("Predicting the example image.") < out.index("Written:")
    assert np.array_equal(np.asarray(Image.open(run_folder / "huggingface/example_input.png")), mine)
    np.save(tmp_path / "bands.npy", mine[:, :, :2])
    before = sorted(run_folder.rglob("*"))
    with pytest.raises(DataError, match=r"2 channels"):
        run(["export", str(run_folder), "--format", "huggingface", "--example", str(tmp_path / "bands.npy")])
    assert sorted(run_folder.rglob("*")) == before


def test_a_folder_of_other_things_is_not_replaced(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/to.txt").touch()
    with pytest.raises(ConfigError, match=r"holds something else, and an export replaces the whole folder"):
        run(["export", str(run_folder), "--format", "huggingface", "--output", str(tmp_path / "letters")])
    assert (tmp_path / "letters/to.txt").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--output", "model.onnx"],
            "output: got model.onnx, expected a folder. Add --format onnx, or change --output.",
        ),
        (["--format", "huggingface", "--license", "My Licence"], "expected a name as the hub has it"),
        (["--format", "huggingface", "--private"], "expected --push REPO_ID with it"),
        (["--format", "huggingface", "--push", "streets"], "expected an id such as someone/some-model"),
        (["--format", "onnx", "--push", "a/b"], "expected --format huggingface with it"),
        (["--format", "onnx", "--output", "model"], "expected a name that ends in .onnx"),
    ],
)
def test_words_without_effect_are_refused(
    run_folder: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["export", str(run_folder), *words])
    assert sentence in capsys.readouterr().err


def _environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    root = str(Path(__file__).resolve().parents[2])
    return {**kept, "PYTHONPATH": root, **more}


@pytest.mark.slow
def test_pushed_used_and_predicted_by_its_id(tmp_path: Path) -> None:
    """In processes of their own: the hub library reads its address when it is imported."""

    def call(*words: str, token: str = "hf_not_a_token") -> subprocess.CompletedProcess[str]:
        there = _environment(HF_ENDPOINT=hub.address, HF_HOME=str(tmp_path / "hf"), HF_TOKEN=token)
        return subprocess.run([sys.executable, *words], env=there, cwd=tmp_path, capture_output=True, text=True)

    run_folder = make_run(tmp_path, "synthetic")
    with running_hub() as hub:
        export = ("-m", "unet_dist", "export", str(run_folder), "--format", "huggingface", "--push", "someone/streets")
        done = call(*export)
        assert done.returncode == 0, done.stderr
        assert "On the hub: " in done.stdout
        files = hub.repositories["someone/streets"]
        assert sorted(name for name in files if name != ".gitattributes") == FILES_WITH_EXAMPLE
        for name in FILES_WITH_EXAMPLE:
            assert files[name] == (run_folder / "huggingface" / name).read_bytes()
        code = snippet(files["README.md"].decode())
        assert 'load_model("someone/streets")' in code
        done = call("-c", code + "\nassert labels.shape == (540, 960)\n")
        assert done.returncode == 0, done.stderr

        Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "a.png")
        done = call("-m", "unet_dist", "predict", "someone/streets", "a.png", "--output", "out")
        assert done.returncode == 0, done.stderr
        expected = predict_image(load_model(run_folder / "best"), tmp_path / "a.png")
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out/a.png")), expected)


@pytest.mark.slow
def test_a_hub_out_of_reach_is_a_sentence(run_folder: Path, tmp_path: Path) -> None:
    there = _environment(HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path), HF_TOKEN="hf_not_a_token")
    words = [sys.executable, "-m", "unet_dist"]
    done = subprocess.run(
        [*words, "export", str(run_folder), "--format", "huggingface", "--push", "someone/streets"],
        env=there,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith("unet-dist export: starting")
    assert done.stderr.count("\n") == 2
    assert "push: the hub did not take someone/streets" in done.stderr
    assert json.loads((run_folder / "huggingface/config.json").read_text())["model_type"] == "unet"


def test_a_card_shows_names_as_they_are() -> None:
    """Class and folder names of somebody else are no HTML, no link and no line of their own."""
    names = ["<script>alert(1)</script>", "[a](http://evil.example)", "a|b\n# c", "\x1b[2J"]
    model = UNet(3, 4, base_channels=2, depth=1, class_names=names)
    card = write_card(model, name="<b>m</b>", trained=None, evaluations=[], license=None, repo_id=None, example=None)
    rows = [line for line in card.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert rows == [
        "| 0 | &lt;script&gt;alert(1)&lt;/script&gt; |",
        "| 1 | \\[a\\](http&#58;//evil.example) |",
        "| 2 | a\\|b # c |",
        "| 3 | \\\\x1b\\[2J |",
    ]
    assert "# &lt;b&gt;m&lt;/b&gt;" in card
