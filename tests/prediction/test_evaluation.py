"""Proves what an evaluation counts beyond the scores: each image's own counts, and the confidence of every valid pixel.

That counts are the same on any number of processes is proved with real processes, in tests/distributed.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.measure.validation_busy import Host, busy
from unet_dist import UNet, predict_image
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.metrics.confusion import Scores, count_confusion, image_scores
from unet_dist.metrics.instances import InstanceScores, score_image
from unet_dist.prediction.evaluation import Details, evaluate_instances, evaluate_split
from unet_dist.prediction.exact import ExactTiles
from unet_dist.prediction.image import predict_logits
from unet_dist.prediction.values import Recipe
from unet_dist.processes.group import open_processes

SHAPES = ((40, 70), (55, 30), (20, 20))


class Scenes:
    """Images of several shapes with random labels; the last has no valid pixel."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.images = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in SHAPES]
        self.labels = [rng.integers(0, 4, shape).astype(np.uint8) for shape in SHAPES]
        self.labels[0][:9] = IGNORED
        self.labels[2][:] = IGNORED
        self.ids = ["a", "b", "c"]

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> np.ndarray:
        return self.images[index]

    def label(self, index: int) -> np.ndarray:
        return self.labels[index]


def test_details_are_those_of_each_image_and_pixel() -> None:
    torch.manual_seed(0)
    model = UNet(3, 4, base_channels=2, depth=2).double().eval()
    scenes = Scenes()
    with open_processes(mixed_precision="no") as processes:
        model.to(processes.device)
        details = Details.none_yet(len(scenes), 4, processes.device)
        sure_tiles = ExactTiles(model, Recipe(confidence="float32"), window_batch=3)
        scores = evaluate_split(sure_tiles, scenes, processes, tile_size=60, details=details)
        plain = evaluate_split(ExactTiles(model, window_batch=3), scenes, processes, tile_size=60)
    assert scores is not None
    assert plain is not None
    assert torch.equal(scores.confusion, plain.confusion)
    right = sure = 0
    for index, (miou, accuracy) in enumerate(image_scores(details.by_image, None)):
        label = torch.from_numpy(scenes.label(index))
        prediction = torch.from_numpy(predict_image(model, scenes.image(index)))
        alone = Scores.of(count_confusion(label, prediction, 4))
        valid = label != IGNORED
        expected = (alone.miou, alone.pixel_accuracy) if valid.any() else (None, None)
        assert (miou, accuracy) == expected
        confidence = predict_logits(model, scenes.image(index)).softmax(dim=0).amax(dim=0)
        assert confidence.shape == label.shape
        right += int((prediction == label)[valid].sum())
        sure += int((confidence[valid] > 4 / 15).sum())
    assert details.confidence[:2].sum(1).tolist() == [int(scores.confusion.sum()), right]
    assert details.confidence[0, 4:].sum() == sure > 0


def test_objects_are_scored_by_the_average_that_is_evaluated() -> None:
    """With flip, by the mean of the border's probability over both views, as the labels are."""
    torch.manual_seed(0)
    model = UNet(3, 4, base_channels=2, depth=2).double().eval()
    model.classifier.weight.data *= 100  # probabilities on both sides of the thresholds
    scenes = Scenes()
    with open_processes(mixed_precision="no") as processes:
        model.to(processes.device)
        scored = [
            evaluate_instances(ExactTiles(model, Recipe(flip=flip)), scenes, processes, border_class=1, tile_size=60)
            for flip in (False, True)
        ]
    plain, averaged = [], []
    for image, label in zip(scenes.images, scenes.labels, strict=True):
        one = predict_logits(model, image).softmax(0)[1]
        other = predict_logits(model, image[:, ::-1].copy()).softmax(0)[1].flip(1)
        plain.append(score_image(one.float().double().numpy(), label, 1))
        averaged.append(score_image(((one + other) / 2).float().double().numpy(), label, 1))
    assert scored == [InstanceScores.of(np.array(plain)), InstanceScores.of(np.array(averaged))]
    assert scored[0] != scored[1]


def test_the_formula_of_a_busy_gpu_takes_the_slowest_part_of_a_batch() -> None:
    host = Host(batches=2, start_s=0.5, order_s=4.0, read_s=6.0, end_s=0.5, best_s=10.0)  # of a batch 2 and 3 s
    found = busy(host, batches=10, device_s=4.0, copy_s=1.0)
    assert found["busy"] == pytest.approx(40 / (0.5 + 3 + 2 + 40 + 0.5))
    assert found["busy, one core"] == pytest.approx(40 / (6 + 50))
    assert found["busy, best/ written"] == pytest.approx(40 / (46 + 10))
    assert busy(host, batches=10, device_s=2.0, copy_s=5.0)["busy"] == pytest.approx(20 / (6 + 50))


def test_a_gpu_is_busy_above_nine_tenths_of_a_validation() -> None:
    """Recorded by tests.measure.validation_busy on the null GPU; how many launches the host orders is held in tests/nullgpu."""
    record = Path(__file__).parents[2] / "docs/evidence/validation_busy.json"
    for name, found in json.loads(record.read_text(encoding="utf-8"))["settings"].items():
        assert found["busy"] > 0.9, name
        assert found["busy, best/ written"] > 0.9, name
