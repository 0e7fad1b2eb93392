"""Proves that the kit passes our own parts and those of the package from outside, and finds each broken promise."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.losses.batches import WEIGHTS
from unet_dist.config.courses import COURSES
from unet_dist.config.loss_terms import LOSSES
from unet_dist.data.batches.transforms import build_transform
from unet_dist.data.sources.registry import SOURCES
from unet_dist.data.sources.synthetic import SyntheticSource
from unet_dist.imaging.npy import NPY
from unet_dist.imaging.picture import PICTURE
from unet_dist.imaging.readers import ArrayReader
from unet_dist.imaging.tiff import TIFF
from unet_dist.losses.dice import Dice
from unet_dist.losses.mixture import Mixture, build_loss
from unet_dist.losses.one_pass import OnePass
from unet_dist.losses.pixelwise import CrossEntropy
from unet_dist.metrics.registry import METRICS
from unet_dist.models.encoders.registry import ENCODERS
from unet_dist.models.registry import build_model
from unet_dist.models.wrap import Wrapped, wrap
from unet_dist.testing.checking import BrokenPromiseError
from unet_dist.testing.models import check_batch, check_encoder, check_locality, check_model, check_sizes
from unet_dist.testing.parts import check_course, check_format, check_loss, check_metric, check_source, check_transform

LASTING = np.random.default_rng(0)
PACKAGE = Path(__file__).parents[1] / "extending/package"


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PACKAGE))
    for name in [name for name in sys.modules if name.partition(".")[0] == "leaf_parts"]:
        monkeypatch.delitem(sys.modules, name)


def leaves(count: int) -> Any:
    return SOURCES.build(f"leaf_parts.data:Leaves(count={count})")


@pytest.mark.parametrize("name", [*LOSSES.own, "leaf_parts.losses:Squares(factor=2.0)"])
def test_losses(name: str) -> None:
    check_loss(build_loss({name: 1.0}))


def test_losses_with_weights_and_in_sums() -> None:
    check_loss(CrossEntropy(WEIGHTS, label_smoothing=0.1))
    check_loss(Mixture([(0.7, CrossEntropy()), (2.0, Dice())]))


@pytest.mark.parametrize("name", [*COURSES.own, "leaf_parts.courses:halving(every=3)"])
def test_courses(name: str) -> None:
    check_course(
        lambda rate, steps: COURSES.build(name, {"learning_rate": rate, "total_steps": steps, "warmup_fraction": 0.3})
    )


@pytest.mark.parametrize("name", [*METRICS.own, "leaf_parts.metrics:kappa"])
def test_metrics(name: str) -> None:
    check_metric(METRICS.load(name))


def test_sources() -> None:
    check_source(leaves(3))
    check_source(SyntheticSource(3, (40, 60), 0), most=2)


@pytest.mark.parametrize(
    "name", [[{"name": "Deform", "scale": [0.5, 2], "p": 0.8}], "leaf_parts.transforms:NoisyFlip(strength=3)"]
)
def test_transforms(name: Any) -> None:
    check_transform(build_transform(name))


@pytest.mark.parametrize(
    ("transform", "sentence"),
    [
        (lambda *planes, seed: (np.roll(planes[0], LASTING.integers(1, 24)), *planes[1:]), "it depends on when it is asked"),
        (lambda *planes, seed: (planes[0][:5], *planes[1:]), r"gave uint8 \(5, 32, 3\), uint8 \(24, 32\)"),
        (lambda *planes, seed: (planes[0], planes[1] // 2, *planes[2:]), r"made the labels \[1\], which no pixel had"),
        (lambda *planes, seed: planes[0].sort() or planes, "its arrays are read-only"),
        (lambda *planes, seed: planes[:2], "expected uint8 .* float32"),
    ],
    ids=["draws", "shape", "labels", "writes", "border"],
)  # fmt: skip
def test_a_transform_that_breaks_its_word_is_found(transform: Any, sentence: str) -> None:
    with pytest.raises(BrokenPromiseError, match=f"(?i){sentence}"):
        check_transform(transform)


@pytest.mark.parametrize("name", ["a.npy", "a.png", "a.tif", "a.plane"])
def test_formats(name: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    file, part = tmp_path / name, {".npy": NPY, ".png": PICTURE, ".tif": TIFF}.get(name[1:])
    if part is None:
        formats = importlib.import_module("leaf_parts.formats")
        part = formats.PLANE
        file.write_bytes(formats.write_plane(pixels))
    elif part is NPY:
        np.save(file, pixels)
    else:
        Image.fromarray(pixels).save(file)
    check_format(part, file)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"recognises": lambda encoded: True}, r"it takes the bytes b'' for its own"),
        ({"suffixes": (".PLANE",)}, r"got the suffixes \['.PLANE'\]"),
        ({"open": lambda encoded, opening: ArrayReader(np.zeros((4, 4, 3), np.uint8))}, "it ignores Opening.interpret"),
    ],
    ids=["greedy", "suffix", "masks"],
)
def test_a_format_that_breaks_its_word_is_found(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    formats = importlib.import_module("leaf_parts.formats")
    (tmp_path / "a.plane").write_bytes(formats.write_plane(np.zeros((4, 4, 3), np.uint8)))
    check_format(formats.PLANE, tmp_path / "a.plane")
    with pytest.raises(BrokenPromiseError, match=sentence):
        check_format(dataclasses.replace(formats.PLANE, **changes), tmp_path / "a.plane")


def test_a_network_from_outside_keeps_them_all_with_its_export() -> None:
    pytest.importorskip("onnxruntime")
    model = build_model("leaf_parts.nets:make(width=3)", in_channels=3, num_classes=2)
    assert isinstance(model, Wrapped)
    check_model(model, trust=["leaf_parts"], exports=True)


@pytest.mark.parametrize("encoder", [*ENCODERS.own, "leaf_parts.encoders:Plain(width=4)"])
def test_encoders(encoder: str) -> None:
    check_encoder(encoder, depth=1 if encoder in ENCODERS.own else 3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda part: setattr(part.Convolution, "needed", lambda self, span: span),
            "that `needed` asks for is too small",
        ),
        (lambda part: setattr(part.Plain, "std", 0.0), "got channels .* and std 0.0, expected 2 counts"),
        (lambda part: setattr(part.nn, "Conv2d", _blurred), "differs from the whole image by"),
    ],
    ids=["reach", "std", "global"],
)
def test_an_encoder_that_breaks_its_word_is_found(change: Any, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part = importlib.import_module("leaf_parts.encoders")
    monkeypatch.setattr(part, "nn", SimpleNamespace(**vars(nn)))
    change(part)
    with pytest.raises(BrokenPromiseError, match=sentence):
        check_encoder(part.Plain)


def _blurred(*sizes: int) -> nn.Module:
    """A convolution beside which every pixel sees the mean of the window."""
    return _Blurred(*sizes)


class _Blurred(nn.Conv2d):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) + features.mean()


class Mean(OnePass):
    """A mean of means: the usual mistake."""

    def divisor(self, counts: Any) -> Tensor:
        return torch.tensor(counts.windows, dtype=torch.float64)

    def sums(self, logits: Tensor, labels: Tensor, *, borders: Any = None, totals: Any = None) -> Tensor:
        losses = nn.functional.cross_entropy(logits, labels.long(), ignore_index=255, reduction="none")
        return losses.sum((1, 2)) / (labels != 255).sum((1, 2)).clamp(min=1)


def test_a_mean_of_means_is_found() -> None:
    with pytest.raises(BrokenPromiseError, match=r"loss: cut into tiles its value differs from the whole's by"):
        check_loss(Mean())


def test_a_course_that_counts_is_found() -> None:
    def make(rate: float, steps: int) -> Any:
        calls: list[int] = []
        return lambda step: (calls.append(step), (rate / len(calls), 0.9))[1]

    with pytest.raises(BrokenPromiseError, match="it depends on when it is asked"):
        check_course(make)


def test_a_metric_that_is_no_number_is_found() -> None:
    with pytest.raises(BrokenPromiseError, match="NaN where nothing was counted"):
        check_metric(lambda confusion: (confusion.diagonal().sum() / confusion.sum()).item())


def test_a_source_that_draws_is_found() -> None:
    source = leaves(2)
    kept = source.read_pair
    source._side, calls = 16, []

    def read(split: str, index: int) -> Any:
        calls.append(index)
        return kept(split, index + len(calls) % 3)

    source.read_pair = read  # type: ignore[method-assign]
    with pytest.raises(BrokenPromiseError, match="is another pair when several threads ask"):
        check_source(source)


@pytest.mark.parametrize(
    ("change", "check", "sentence"),
    [
        ({"sizes": {"stride": 1, "remainder": 0, "minimum": 5, "margin": 0}}, check_sizes, r"sizes: images of \(5, 6\) px gave"),
        ({"locality": {"halo": 2, "stride": 1}}, check_locality, r"halo 2 and stride 1 are stated; a window at"),
        ({"locality": {"halo": 3, "stride": 1}, "obstacle": "x"}, check_locality, "the obstacle 'x': one of them is"),
    ],
    ids=["sizes", "halo", "both"],
)  # fmt: skip
def test_what_a_network_states_wrongly_is_found(change: dict[str, Any], check: Any, sentence: str) -> None:
    """A 3x3 convolution, rectified, and another with zeros around: it loses 1 px, and its halo is 3."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 5, padding=2))
    model = wrap(network, in_channels=3, num_classes=2)
    assert model.locality is not None
    assert model.locality.halo == 3
    check(model)
    model.measured = {**model.measured, **change}
    with pytest.raises(BrokenPromiseError, match=sentence):
        check(model)


def test_a_batch_that_is_coupled_without_a_word_is_found() -> None:
    model = wrap(nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)), in_channels=3, num_classes=2)
    check_batch(model)
    model.measured = {**model.measured, "couples_batch": None}
    with pytest.raises(BrokenPromiseError, match="couples_batch is None, and a sample's logits moved by"):
        check_batch(model)
