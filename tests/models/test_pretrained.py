"""Proves that a model folder is read whole or refused with a sentence that names the file, and that nothing is unpickled."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import unet_dist
from tests.models.hub_stand_in import running_hub
from unet_dist.errors import CheckpointError
from unet_dist.models.pretrained import find_model_folder
from unet_dist.models.registry import load_model
from unet_dist.models.unet import UNet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    UNet(1, 2, base_channels=2, depth=1).save_pretrained(path)
    return path


def test_a_folder_has_three_readable_files(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    modes = {path.name: path.stat().st_mode & 0o444 for path in folder.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"], "who may read the config may read the weights"
    card = (folder / "README.md").read_text()
    assert "library_name: unet_dist" in card
    assert "predict_image" in card
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "unet"
    assert config["format_version"] == 1
    assert config["mean"] == [127.5]


def test_config_follows_the_attributes(folder: Path) -> None:
    model = UNet.from_pretrained(folder)
    model.class_names = ["road", "other"]
    model.mean = [99.0]
    model.save_pretrained(folder)
    again = UNet.from_pretrained(folder)
    assert again.class_names == ["road", "other"]
    assert again.mean == [99.0]


def test_saving_over_the_folder_one_was_loaded_from_keeps_the_weights(folder: Path) -> None:
    model = load_model(folder)
    kept = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for _ in range(2):
        model.save_pretrained(folder)
    assert all(torch.equal(tensor, kept[key]) for key, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, kept[key]) for key, tensor in load_model(folder).state_dict().items())


@pytest.mark.parametrize("kept_bytes", [0, 5, 100, -1])
def test_truncated_weights_are_refused_by_name(folder: Path, kept_bytes: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept_bytes])
    for load in (load_model, UNet.from_pretrained):
        with pytest.raises(
            CheckpointError, match=r"model\.safetensors \([\d,]+ bytes\) is truncated or no safetensors"
        ):
            load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(folder: Path, value: float) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["bottleneck.conv1.bias"][3] = value
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"the tensor bottleneck\.conv1\.bias holds NaN or infinite numbers"):
        load_model(folder)


def test_foreign_weights_are_summarised(folder: Path) -> None:
    save_file({f"layer{n}.weight": torch.zeros(2) for n in range(40)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert str(folder / "model.safetensors") in message
    assert (
        "Of 16 tensors: 16 missing (encoder.0.conv1.weight, encoder.0.conv1.bias, encoder.0.conv2.weight, and 13 more)"
        in (message)
    )
    assert "40 not of this model (" in message
    assert "and 37 more)" in message
    assert len(message) < 600


def test_weights_of_another_shape_are_refused_with_both_shapes(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"] = torch.zeros(7, 2, 1, 1)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"1 of another shape \(classifier.weight \(7, 2, 1, 1\) instead of \(2, 2, 1"
    ):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "segfromer"}, 'of model_type "segfromer", which is not known here'),
        ({"model_type": None}, 'names no "model_type"'),
        ({"format_version": 99}, "has format_version 99. Expected 1"),
        ({"dpeth": 3}, 'the key "dpeth", which UNet does not know. Did you mean "depth"'),
        ({"norm": "layer"}, 'does not describe a UNet: Got norm = "layer"'),
        ({"depth": "four"}, "does not describe a UNet: Got depth = 'four'"),
    ],
)
def test_a_config_that_says_something_else_is_refused(folder: Path, change: dict[str, object], message: str) -> None:
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **change}
    file.write_text(json.dumps(config))
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


def test_a_class_refuses_the_folder_of_another_type(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"unet"', '"segformer"'))
    with pytest.raises(
        CheckpointError, match=r'of model_type "segformer"\. Expected "unet" for UNet\. Use .*load_model'
    ):
        UNet.from_pretrained(folder)


def test_damaged_json_is_refused_by_name(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "un')
    with pytest.raises(CheckpointError, match=r"config\.json is damaged: .*Copy the model folder again"):
        load_model(folder)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


def test_a_pickle_is_never_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    for load in (load_model, UNet.from_pretrained):
        with pytest.raises(CheckpointError, match=r"without model\.safetensors.*pytorch_model\.bin is a pickle"):
            load(folder)
    assert not (tmp_path / "exploded").exists()


def test_a_run_is_loaded_by_its_folder_and_several_by_plus(folder: Path, tmp_path: Path) -> None:
    """As the command line takes them: best/, else last/, and the mean of runs joined by +."""
    run = tmp_path / "run"
    run.mkdir()
    folder.rename(run / "last")
    last = unet_dist.load_model(run).state_dict()
    UNet(1, 2, base_channels=2, depth=1).save_pretrained(run / "best")
    best = unet_dist.load_model(str(run)).state_dict()
    assert all(
        torch.equal(tensor, best[name]) for name, tensor in UNet.from_pretrained(run / "best").state_dict().items()
    )
    assert not all(torch.equal(tensor, best[name]) for name, tensor in last.items())
    both = unet_dist.load_model(f"{run}/best+{run}/last")
    assert [each.in_channels for each in both.members] == [1, 1]
    assert not both.training


def test_a_file_is_no_folder(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a file\. Expected a model folder"):
        load_model(folder / "model.safetensors")
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model\.onnx is a file\. .* unet_dist\.load_model takes an ONNX file\."):
        UNet.from_pretrained(folder / "model.onnx")


@pytest.mark.parametrize("name", ["/no/such/folder", "../nothing", "a/b/c", "MISSING"])
def test_a_path_that_is_neither_here_nor_a_hub_id(name: str) -> None:
    with pytest.raises(
        CheckpointError,
        match=rf'Got model "{name}": there is no such folder.*Check the spelling',
    ):
        find_model_folder(name)


def run_with_hub(program: str, address: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own: the hub library reads its address when it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(home), "HF_TOKEN": "hf_not_a_token"}
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


def test_a_model_goes_to_the_hub_and_comes_back(tmp_path: Path) -> None:
    program = """
import torch
from unet_dist.models.registry import load_model
from unet_dist.models.unet import UNet
model = UNet(1, 2, base_channels=2, depth=1, class_names=["a", "b"]).eval()
model.push_to_hub("someone/some-model")
loaded = load_model("someone/some-model")
image = torch.randn(1, 1, 18, 18)
assert loaded.config() == model.config()
assert torch.equal(loaded(image), model(image))
try:
    load_model("someone/some-modle")
except Exception as error:
    print(type(error).__name__, error)
"""
    with running_hub() as hub:
        done = run_with_hub(program, hub.address, tmp_path)
        assert done.returncode == 0, done.stderr
        assert sorted(hub.repositories["someone/some-model"]) == ["README.md", "config.json", "model.safetensors"]
        assert sorted(hub.fetched) == ["config.json", "model.safetensors"]
        assert "(RepositoryNotFoundError: 404" in done.stdout
        assert done.stdout.startswith('CheckpointError Got model "someone/some-modle": no such folder here')


@pytest.mark.slow
def test_a_pickle_on_the_hub_is_not_even_fetched(tmp_path: Path) -> None:
    with running_hub() as hub:
        hub.repositories["someone/old"] = {"config.json": b"{}", "pytorch_model.bin": pickle.dumps(Bomb())}
        for load in (
            "unet_dist.models.registry import load_model as load",
            "unet_dist.models.unet import UNet as load",
        ):
            name = "load.from_pretrained" if "UNet" in load else "load"
            done = run_with_hub(f"from {load}; {name}('someone/old')", hub.address, tmp_path)
            last = done.stderr.strip().splitlines()[-1]
            assert "CheckpointError: " in last
            assert "a folder without model.safetensors" in last
        assert set(hub.fetched) == {"config.json"}


def test_a_hub_that_cannot_be_reached_is_said_and_a_typo_is_not_excluded(tmp_path: Path) -> None:
    program = "from unet_dist.models.registry import load_model; load_model('someone/some-model')"
    done = run_with_hub(program, "http://127.0.0.1:9", tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert 'CheckpointError: Got model "someone/some-model": no such folder here' in last
    assert "and the hub cannot be reached. Expected the folder of a run" in last


def test_class_names_that_are_no_texts_are_refused(tmp_path: Path) -> None:
    UNet(3, 2, base_channels=2, depth=1, class_names=["a", "b"]).save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**stored, "class_names": ["a", 7]}))
    with pytest.raises(CheckpointError, match=r"does not describe a UNet: Got class_names = \['a', 7\]"):
        UNet.from_pretrained(tmp_path)
