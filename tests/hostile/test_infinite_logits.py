"""Proves that finite weights whose logits overflow are refused by the image's name, in each way to predict and evaluate.

Without this the first class would stand everywhere, in silence: NaN is larger than nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.hostile.segformers import small_segformer
from tests.prediction.parts import Prediction, draw, write_images
from unet_dist import UNet, predict_image
from unet_dist.errors import DataError, ExportError
from unet_dist.export.check import Agreement, _count
from unet_dist.imaging.pixels import Pixels
from unet_dist.models.ensemble import Ensemble
from unet_dist.models.registry import load_model
from unet_dist.prediction.blended import BlendedTiles
from unet_dist.prediction.evaluation import Details, evaluate_split
from unet_dist.prediction.exact import ExactTiles
from unet_dist.prediction.image import predict_rasters
from unet_dist.prediction.tiles import Tiles
from unet_dist.prediction.values import Recipe
from unet_dist.prediction.whole import WholeImages
from unet_dist.processes.group import open_processes

LARGE = 1e38  # of float32, whose largest is 3.4e38
SIDE = 60


def network(
    num_classes: int = 3, *, scale: float = LARGE, thresholds: list[float] | None = None, **options: Any
) -> UNet:
    torch.manual_seed(0)
    model = UNet(3, num_classes, base_channels=2, depth=1, **options)
    model.thresholds = thresholds
    if scale != 1:
        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        for convolution in convolutions[:2]:
            nn.init.constant_(convolution.weight, scale)
        assert all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())
    return model.eval()


@contextmanager
def refused(name: str) -> Iterator[None]:
    with pytest.raises(DataError, match=rf"^{name}: the network gives logits that are NaN or infinite"):
        yield


WAYS = {
    "exact": lambda model: ExactTiles(model, window_batch=2),
    "flip": lambda model: ExactTiles(model, Recipe(flip=True)),
    "confidence": lambda model: ExactTiles(model, Recipe(confidence="uint8")),
    "blend": lambda model: BlendedTiles(model),
    "whole": lambda model: WholeImages(model),
}
MODELS = {
    "one class of a pixel": {},
    "an ignored class": {"ignore_index": 1},
    "many classes": {"num_classes": 300, "ignore_index": 7},
    "overlapping classes": {"thresholds": [0.5] * 3},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", MODELS)
def test_an_image_without_a_class_is_refused(kind: str, way: str) -> None:
    options = MODELS[kind]
    image = draw(30, 40)
    for scale in (1, LARGE):
        model = network(scale=scale, **options)
        tiles: Tiles = WAYS[way](model)
        if scale == 1:
            assert predict_rasters(tiles, image, SIDE)["labels"].max() < model.num_classes
            continue
        with refused("the image"):
            predict_rasters(tiles, image, SIDE)


@pytest.mark.parametrize("kind", ["one class of a pixel", "overlapping classes"])
def test_a_damaged_member_of_an_ensemble_is_refused(kind: str) -> None:
    members = [network(scale=scale, **MODELS[kind]) for scale in (1, LARGE)]
    with refused("the image"):
        predict_image(Ensemble(members).eval(), draw(30, 40), SIDE)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", MODELS)
def test_one_pixel_suffices_wherever_it_lies(kind: str, value: float) -> None:
    """The rest of the image stays as it was; a pixel without data needs no class."""
    model = network(scale=1, **MODELS[kind])
    model.pixels, model.mean, model.std = Pixels("float32"), [0.0] * 3, [1.0] * 3
    image = draw(30, 40).astype(np.float32)
    image[29, 39] = 1000
    forward = model.forward

    def one_pixel(images: torch.Tensor, *rest: Any) -> torch.Tensor:
        logits = forward(images, *rest)
        margin = model.window_sizes.margin
        there = images[:, :1, margin : images.shape[2] - margin, margin : images.shape[3] - margin] > 900
        return torch.where(there, value, logits)

    predict_image(model, image, SIDE)
    model.forward = one_pixel  # type: ignore[method-assign]
    with refused("the image"):
        predict_image(model, image, SIDE)
    image[29, 39] = np.nan  # no data: the network sees its mean
    assert (predict_image(model, image, SIDE)[..., 29, 39] >= model.num_classes).all()


def test_a_prediction_names_the_file(tmp_path: Path) -> None:
    sources = write_images(tmp_path / "in", [(30, 40)])
    prediction = Prediction(tmp_path / "out", sources, model=network())
    with refused(str(sources[0])):
        prediction.launch()
    assert not list((tmp_path / "out").glob("*.tif"))


class Split:
    """Two images, of which the network gives numbers for the dark one only."""

    ids = ("dark", "bright")

    def __init__(self, overlap: bool) -> None:
        self._overlap = overlap

    def __len__(self) -> int:
        return 2

    def image(self, index: int) -> np.ndarray:
        return np.full((30, 40, 3), 200 * index, np.uint8)

    def label(self, index: int) -> np.ndarray:
        return np.zeros((30, 40), np.int64 if self._overlap else np.uint8)


@pytest.mark.parametrize("is_detailed", [False, True])
@pytest.mark.parametrize("kind", ["one class of a pixel", "overlapping classes"])
def test_an_evaluation_names_the_image(kind: str, is_detailed: bool) -> None:
    options = MODELS[kind]
    sound, model = network(scale=1, **options), network(**options)
    for convolution in (module for module in model.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)):
        nn.init.zeros_(convolution.bias)
    recipe = Recipe(probabilities="float32", confidence="float32") if is_detailed else Recipe()
    split = Split(overlap=bool(options))
    with open_processes(mixed_precision="no") as processes:
        details = Details.none_yet(2, 3, processes.device) if is_detailed else None
        assert evaluate_split(ExactTiles(sound, recipe), split, processes, tile_size=SIDE, details=details) is not None
        with refused("bright"):
            evaluate_split(ExactTiles(model, recipe), split, processes, tile_size=SIDE, details=details)


def test_an_export_of_it_is_refused() -> None:
    logits = torch.zeros(1, 3, 4, 4)
    logits[0, 1, 2, 2] = torch.inf
    with pytest.raises(ExportError, match="gives logits that are NaN or infinite"):
        _count(Agreement(), logits, logits, None)


def test_an_onnx_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from unet_dist.export.graph import write_onnx

    path = tmp_path / "model.onnx"
    write_onnx(path, network(scale=1), {})
    predict_image(load_model(path), draw(30, 40), SIDE)
    graph = onnx.load(path)
    for tensor in graph.graph.initializer:
        if len(tensor.dims) == 4:
            values = np.full(tensor.dims, LARGE, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(graph, path)
    with refused("the image"):
        predict_image(load_model(path), draw(30, 40), SIDE)


def test_a_segformer_is_refused(tmp_path: Path) -> None:
    foreign = small_segformer()
    for scale in (1, LARGE):
        with torch.no_grad():
            foreign.decode_head.classifier.weight.fill_(scale)
            foreign.decode_head.batch_norm.bias.fill_(10.0)
        foreign.save_pretrained(tmp_path)
        model = load_model(tmp_path)
        for kind in (BlendedTiles, WholeImages):
            if scale == 1:
                assert predict_rasters(kind(model), draw(64, 64), 64)["labels"].max() < 4
                continue
            with refused("the image"):
                predict_rasters(kind(model), draw(64, 64), 64)
