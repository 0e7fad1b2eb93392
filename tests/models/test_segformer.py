"""Proves that the adapter computes what transformers computes, keeps the promises of all models, and reads its checkpoints.

The checkpoints are made here by transformers itself, small and with random weights: nothing is downloaded.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from tests.models.hub_stand_in import running_hub
from tests.models.promises import ModelPromises
from tests.models.test_pretrained import run_with_hub

transformers = pytest.importorskip("transformers", reason="needs transformers (extra: segformer)")

from unet_dist.errors import CheckpointError, ConfigError  # noqa: E402
from unet_dist.imaging.reader import ArrayReader  # noqa: E402
from unet_dist.models.alignment import AlignedClasses, align_names  # noqa: E402
from unet_dist.models.registry import build_model, load_model  # noqa: E402
from unet_dist.models.segformer import SIZES, SegFormer  # noqa: E402
from unet_dist.prediction.values import Recipe  # noqa: E402
from unet_dist.prediction.whole import WholeImages  # noqa: E402

TINY = {
    "hidden_sizes": [8, 16, 16, 16],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 2, 2, 2],
    "decoder_hidden_size": 16,
}
NAMES = ["road", "car", "sky", "person"]


def publish(folder: Path, names: list[str] = NAMES, *, processor: dict[str, Any] | None = None, seed: int = 0) -> Any:
    """Write a checkpoint as transformers does; returns its network."""
    torch.manual_seed(seed)
    config = transformers.SegformerConfig(
        **TINY, id2label=dict(enumerate(names)), label2id={name: index for index, name in enumerate(names)}
    )
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    with torch.no_grad():  # as after training: statistics of real features, classes that differ from pixel to pixel
        network.decode_head.batch_norm.momentum = 1.0
        network.train()(torch.randn(2, 3, 64, 64))
        network.eval().decode_head.classifier.weight.mul_(50)
    network.save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return network


# The gradient of a depthwise convolution has another layout than its weight; DDP copies it, and says so.
@pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides")
class TestSegFormerKeepsItsPromises(ModelPromises):
    model_type = "segformer"
    option_sets: ClassVar = [
        {"architecture": {**SegFormer().architecture, **TINY}},
        {"architecture": {**SegFormer().architecture, **TINY}, "checkpoint_activations": True},
    ]
    compiled_sets: ClassVar = option_sets[:1]


def test_computes_what_transformers_computes(tmp_path: Path) -> None:
    network = publish(tmp_path).double()
    model = load_model(tmp_path).double()
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    expected = network(images).logits
    expected = F.interpolate(expected, size=(64, 96), mode="bilinear", align_corners=False)
    assert (model(images) - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_logits_of_a_scaled_image_are_interpolated_once(tmp_path: Path) -> None:
    """As transformers' post_process_semantic_segmentation does; by way of the window's size they differ."""
    network = publish(tmp_path, processor={"size": {"height": 64, "width": 96}}).double()
    model = load_model(tmp_path).double()
    aligned = AlignedClasses(model, align_names(NAMES, NAMES[::-1]), NAMES[::-1], None)
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    quarter = network(images).logits
    expected = F.interpolate(quarter, size=(90, 150), mode="bilinear", align_corners=False)
    assert (model.scaled_logits(images, (90, 150)) - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert torch.equal(aligned.scaled_logits(images, (90, 150)), model.scaled_logits(images, (90, 150)).flip(1))
    pixels = torch.randint(0, 256, (90, 150, 3), dtype=torch.uint8).numpy()
    whole = WholeImages(model, Recipe())
    labels = whole.compute([whole.read(0, ArrayReader(pixels), whole.plan((90, 150), 0), whole.plan((90, 150), 0)[0])])
    scaled = np.asarray(Image.fromarray(pixels).resize((96, 64), Image.Resampling.BILINEAR))
    mean, std = (torch.tensor(list(values)).double() for values in (model.mean, model.std))
    prepared = ((torch.from_numpy(scaled.copy()).double() - mean) / std).movedim(2, 0)[None]
    once = F.interpolate(network(prepared).logits, size=(90, 150), mode="bilinear", align_corners=False).argmax(1)[0]
    assert torch.equal(next(iter(labels[0].values())).long(), once)


@pytest.mark.parametrize(
    # arXiv 2105.15203, table 1: millions of parameters, encoder and decoder, with the 150 classes of ADE20K.
    ("size", "millions"),
    [("b0", 3.8), ("b1", 13.7), ("b2", 27.5), ("b3", 47.3), ("b4", 64.1), ("b5", 84.7)],
)
def test_sizes_have_the_papers_parameters(size: str, millions: float) -> None:
    with torch.device("meta"):
        model = build_model(f"segformer:{size}", num_classes=150)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
    assert set(SIZES) == {f"b{number}" for number in range(6)}


def test_dropout_is_a_function_of_the_keys() -> None:
    torch.manual_seed(0)
    model = SegFormer(3, 4, architecture=TINY, dropout=0.5).double().train()
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    keys = torch.tensor([[7, 0, 0]])
    first, again = model(images, keys), model(images, keys)
    assert torch.equal(first, again)
    assert not torch.equal(first, model(images, keys + torch.tensor([[1, 0, 0]])))


def test_a_published_checkpoint_brings_its_names_mean_and_size(tmp_path: Path) -> None:
    processor = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.5], "size": {"height": 64, "width": 96}}
    publish(tmp_path, processor=processor)
    model = load_model(tmp_path)
    assert model.class_names == NAMES
    assert model.mean == pytest.approx([127.5, 102, 76.5])
    assert model.std == pytest.approx([51, 63.75, 127.5])
    assert model.resize_to == [64, 96]
    assert not model.training
    model.save_pretrained(tmp_path / "ours")
    again = load_model(tmp_path / "ours")
    assert again.config() == model.config()
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(again(image), model(image))


@pytest.mark.parametrize(
    ("processor", "mean", "resize_to"),
    [
        (None, 0.485 * 255, [512, 512]),  # the library's own defaults
        ({"size": 640, "image_mean": [0.1, 0.2, 0.3]}, 25.5, [640, 640]),  # as written before 4.26
        ({"do_resize": False, "do_rescale": False, "image_mean": [100, 110, 120]}, 100, None),
        ({"do_normalize": False}, 0, [512, 512]),
    ],
)
def test_processors_of_all_ages_are_read(
    tmp_path: Path, processor: dict[str, Any] | None, mean: float, resize_to: list[int] | None
) -> None:
    publish(tmp_path, processor=processor)
    model = load_model(tmp_path)
    assert model.mean[0] == pytest.approx(mean)
    assert model.resize_to == resize_to


def test_an_unknown_scaling_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, processor={"size": {"shortest_edge": 512}})
    with pytest.raises(CheckpointError, match=r'preprocessor_config\.json: got size {"shortest_edge": 512}, expected'):
        load_model(tmp_path)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


def test_weights_from_before_safetensors_are_read_and_run_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = publish(tmp_path / "old")
    (tmp_path / "old/model.safetensors").unlink()
    torch.save(network.state_dict(), tmp_path / "old/pytorch_model.bin")
    image = torch.randn(1, 3, 32, 32)
    expected = F.interpolate(network(image).logits, size=(32, 32), mode="bilinear", align_corners=False)
    assert torch.allclose(load_model(tmp_path / "old")(image), expected)
    torch.save({"weight": Bomb()}, tmp_path / "old/pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is damaged, or holds more than tensors, and is not"):
        load_model(tmp_path / "old")
    assert not (tmp_path / "exploded").exists()


def test_an_encoder_alone_is_a_start_and_no_answer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = transformers.SegformerForImageClassification(transformers.SegformerConfig(**TINY, num_labels=7))
    encoder.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"an encoder without a segmentation head.*--model segformer:USER/NAME"):
        load_model(tmp_path)
    model: Any = build_model(f"segformer:{tmp_path}", num_classes=5)
    assert model.architecture["hidden_sizes"] == TINY["hidden_sizes"]
    assert model.mean == pytest.approx([123.675, 116.28, 103.53])
    assert model.resize_to is None, "training takes crops as they are"
    head = model.network.decode_head.classifier.weight.clone()
    told = model.load_variant(str(tmp_path))
    assert "108 of 124 tensors; new: decode_head." in told
    assert torch.equal(model.network.decode_head.classifier.weight, head)
    for name, tensor in encoder.segformer.state_dict().items():
        assert torch.equal(model.network.segformer.state_dict()[name], tensor), name


@pytest.mark.parametrize("names", [NAMES, NAMES[::-1]])
def test_a_head_is_kept_for_the_same_classes_only(tmp_path: Path, names: list[str]) -> None:
    network = publish(tmp_path)
    model: Any = build_model(f"segformer:{tmp_path}", num_classes=4, class_names=names)
    model.load_variant(str(tmp_path))
    is_kept = torch.equal(model.network.decode_head.classifier.weight, network.decode_head.classifier.weight)
    assert is_kept == (names == NAMES)
    assert torch.equal(model.network.decode_head.linear_fuse.weight, network.decode_head.linear_fuse.weight)


def test_grey_images_take_the_weights_that_fit(tmp_path: Path) -> None:
    publish(tmp_path)
    model: Any = build_model(f"segformer:{tmp_path}", in_channels=1, num_classes=4, mean=[90.0], std=[40.0])
    assert model.mean == [90.0]
    assert "new: segformer.stages.0.patch_embeddings.proj.weight" in model.load_variant(str(tmp_path))


def test_an_incomplete_checkpoint_is_refused(tmp_path: Path) -> None:
    network = publish(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    weights = {name: tensor for name, tensor in network.state_dict().items() if "linear_fuse" not in name}
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors .*decode_head\.linear_fuse\.weight"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("segformer:b9", r'got "segformer:b9", expected one of segformer:b0, .*segformer:b5'),
        ("unet:b0", r"model: got 'b0', expected one that exists"),
        ("segfromer:b0", r"got 'segfromer', .*Did you mean \"segformer\""),
    ],
)
def test_unknown_variants_are_answered(variant: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(variant)


def test_architectures_are_checked() -> None:
    with pytest.raises(ConfigError, match=r'architecture with the key "depth"\. Did you mean "depths"'):
        SegFormer(architecture={"depth": [1, 1, 1, 1]})


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_a_hub_id_is_downloaded_whole_and_no_pickle_beside_safetensors(tmp_path: Path) -> None:
    publish(tmp_path / "new", processor={"size": 64})
    network = publish(tmp_path / "old")
    (tmp_path / "old/model.safetensors").unlink()
    torch.save(network.state_dict(), tmp_path / "old/pytorch_model.bin")
    program = """
from unet_dist.models.registry import build_model, load_model
assert load_model("someone/new").resize_to == [64, 64]
print(load_model("someone/old").class_names)
model = build_model("segformer:someone/old", num_classes=2)
print(model.load_variant("someone/old"))
build_model("segformer:someone/none")
"""
    with running_hub() as hub:
        hub.repositories["someone/new"] = {**read_folder(tmp_path / "new"), "pytorch_model.bin": b"beside"}
        hub.repositories["someone/old"] = read_folder(tmp_path / "old")
        done = run_with_hub(program, hub.address, tmp_path)
        assert str(NAMES) in done.stdout, done.stderr
        assert "Starting from someone/old: 122 of 124 tensors; new: decode_head.classifier.weight" in done.stdout
        assert 'Got model "someone/none": no such folder here' in done.stderr.strip().splitlines()[-1]
        assert hub.fetched.count("pytorch_model.bin") == 1, "the old repository's only"
