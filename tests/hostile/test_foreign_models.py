"""Proves that a model folder whose files were changed is refused in a sentence, and never computes something else in silence."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.hostile.segformers import small_segformer
from unet_dist import UNet, predict_image
from unet_dist.errors import CheckpointError
from unet_dist.models.registry import load_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    UNet(3, 4, base_channels=2, depth=1, class_names=list("abcd")).save_pretrained(tmp_path)
    return tmp_path


def change(folder: Path, **keys: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


@pytest.mark.parametrize(
    "keys",
    [
        {"mean": [math.nan, 1.0, 1.0]},
        {"mean": [math.inf, 1.0, 1.0]},
        {"mean": [1e308, 1.0, 1.0]},
        {"std": [1.0, math.nan, 1.0]},
        {"std": [math.inf] * 3},
        {"std": [1e-320] * 3},
        {"num_classes": 2**40, "class_names": None},
        {"num_classes": True, "class_names": ["a"]},
        {"num_classes": 1_000_000, "class_names": [f"class {number}" for number in range(1_000_000)]},
        {"in_channels": 2**31, "mean": None, "std": None},
        {"class_names": "abcd"},
        {"class_names": ["a", "b", "c", "d" * 10_000]},
        {"class_names": ["a", "b", "c", "\ud800"]},
        {"ignore_index": 1e300},
        {"ignore_index": "2"},
        {"bottleneck_dilations": [1] * 1_000_000},
        {"bottleneck_dilations": [2**62]},
        {"pixels": []},
        {"pixels": {"nodata": "x"}},
        {"pixels": {"nodata": True}},
        {"pixels": {"bands": [1, 2]}},
        {"pixels": {"bands": [0, 1, 2]}},
        {"pixels": {"bands": [1.5, 2, 3]}},
        {"pixels": {"limits": [[0, 1]]}},
        {"pixels": {"limits": [[math.nan, 1]] * 3}},
        {"pixels": {"limits": [[1, 0]] * 3}},
    ],
)
def test_a_description_that_cannot_be_is_refused(folder: Path, keys: dict[str, Any]) -> None:
    change(folder, **keys)
    with pytest.raises(CheckpointError, match="does not describe a UNet") as refusal:
        load_model(folder)
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize("kind", ["int8", "uint8", "bool", "int64", "complex64", "float8_e4m3fn", "float8_e5m2"])
def test_weights_of_another_kind_of_numbers_are_refused(folder: Path, kind: str) -> None:
    """Copied into the network, they would be rounded or cut without a word."""
    try:
        _change_weights(folder, lambda tensor: tensor.to(getattr(torch, kind)))
    except KeyError:
        pytest.skip("this release of safetensors writes no such numbers")
    with pytest.raises(CheckpointError, match=f"holds {kind}, expected float32"):
        load_model(folder)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_weights_of_another_precision_are_read(folder: Path, kind: str) -> None:
    _change_weights(folder, lambda tensor: tensor.to(getattr(torch, kind)))
    assert {str(tensor.dtype) for tensor in load_model(folder).state_dict().values()} == {f"torch.{kind}"}


def test_a_header_of_a_million_tensors_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.loads(content[8 : 8 + length]) | {f"t{number}": empty for number in range(200_000)}
    words = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(words)) + words + content[8 + length :])
    with pytest.raises(CheckpointError, match=r"holds 200,\d+ tensors"):
        load_model(folder)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder of transformers."""
    small_segformer().save_pretrained(tmp_path)
    assert load_model(tmp_path).num_classes == 4
    return tmp_path


def test_values_of_transformers_that_cannot_be_are_refused(foreign: Path) -> None:
    sound = (foreign / "config.json").read_text()
    for keys in (
        {"num_labels": "x", "id2label": None},
        {"num_labels": 10**9, "id2label": None},
        {"num_labels": math.inf, "id2label": None},
        {"id2label": ["a", "b"]},
        {"id2label": 5},
        {"num_channels": None},
        {"depths": [10**6, 1, 1, 1]},
        {"depths": "abcd"},
        {"depths": None},
        {"depths": []},
        {"hidden_sizes": [10**5] * 4},
        {"hidden_sizes": [50_000] * 4},
        {"num_attention_heads": [7] * 4},
        {"decoder_hidden_size": -1},
        {"hidden_act": "x"},
        {"patch_sizes": [10**9] * 4},
        {"architectures": 5},
    ):
        (foreign / "config.json").write_text(json.dumps({**json.loads(sound), **keys}))
        with pytest.raises(CheckpointError, match="describe"):
            load_model(foreign)


def _change_weights(folder: Path, change: Callable[[Tensor], Tensor]) -> None:
    file = folder / "model.safetensors"
    weights = {name: change(tensor).clone() for name, tensor in load_file(file).items()}
    file.unlink()
    save_file(weights, file)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of ONNX as export writes it."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from unet_dist.export.graph import write_onnx

    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    torch.manual_seed(0)
    write_onnx(path, UNet(3, 4, base_channels=2, depth=1, class_names=list("abcd")).eval(), {})
    assert load_model(path).num_classes == 4
    return path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("side_stride", value) for value in ("-1", "0", "99999999999999", "1.5", "null")),
        *(("side_remainder", value) for value in ("-1", "1", "99999999999999")),
        *(("minimum_side", value) for value in ("-1", "0", "16", "99999999999999")),
        *(("margin", value) for value in ("-1", "9", "99999999999999", "[8]")),
        *(("halo", value) for value in ("-1", "0", "null", "99999999999999")),
        *(("stride", value) for value in ("-1", "0", "null", "99999999999999")),
        *(("resize_to", value) for value in ("[-5, 0]", "[1]", "[0, 0, 0]", "{}")),
        *(("mean", value) for value in ("[1, 2]", "[1e999, 1, 1]", "NaN", "[" * 5000)),
        *(("in_channels", value) for value in ("1", "0", "true", "9" * 6000)),
        *(("num_classes", value) for value in ("3", "5", "-1", '"x"')),
        *(
            ("class_names", value)
            for value in ('["a", "b"]', '["a", "a", "b", "c"]', json.dumps([*"abc", "d" * 10_000]))
        ),
        ("pixels", '{"limits": [[1, 0]]}'),
        ("ignore_index", '"2"'),
    ],
)
def test_words_in_an_onnx_file_that_cannot_be_are_refused(
    onnx_file: Path, tmp_path: Path, key: str, value: str
) -> None:
    path = rewrite(onnx_file, tmp_path / "bad.onnx", **{key: value})
    with pytest.raises(CheckpointError, match="does not say what unet_dist writes into an ONNX file") as refusal:
        load_model(path)
    assert len(str(refusal.value)) < 1500


def test_an_onnx_file_whose_margin_is_not_its_graphs_is_refused(onnx_file: Path, tmp_path: Path) -> None:
    """Of another margin each label would lie elsewhere."""
    model = load_model(rewrite(onnx_file, tmp_path / "bad.onnx", margin="4"))
    with pytest.raises(CheckpointError, match=r"gives logits of shape .* where its margin says"):
        predict_image(model, np.zeros((30, 40, 3), np.uint8))


def rewrite(source: Path, path: Path, **words: str) -> Path:
    onnx = pytest.importorskip("onnx")
    stored = onnx.load(source)
    for prop in stored.metadata_props:
        prop.value = words.get(prop.key, prop.value)
    onnx.save(stored, path)
    return path
