"""Proves the scores against a slow count, pixel by pixel: cut anywhere, ignored pixels and the ignored class nowhere.

The calibration error is compared with the mean distance of confidence and accuracy, bin by bin, from the pixels themselves.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unet_dist.data.decoded.labels import IGNORED
from unet_dist.metrics import confusion
from unet_dist.metrics.confusion import (
    CALIBRATION_BINS,
    Calibration,
    Scores,
    count_confidence,
    count_confusion,
    image_scores,
)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Labels and predictions (n,) uint8 of K classes; the ignored labels come on top."""
    num_classes = draw(st.sampled_from([2, 3, 5, 35, 255]))
    size = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    few = draw(st.integers(1, num_classes))  # some classes never occur
    labels = rng.integers(few, size=size)
    labels[rng.random(size) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = IGNORED
    return labels.astype(np.uint8), rng.integers(few, size=size).astype(np.uint8), num_classes


def slow_scores(
    labels: np.ndarray, predictions: np.ndarray, num_classes: int
) -> tuple[list[float | None], float, float]:
    """IoU of each class, mean IoU and pixel accuracy from sets of pixels, one class after the other."""
    valid = labels != IGNORED
    iou: list[float | None] = []
    for index in range(num_classes):
        truth, found = (labels == index) & valid, (predictions == index) & valid
        union = int((truth | found).sum())
        iou.append(int((truth & found).sum()) / union if union else None)
    known = [value for value in iou if value is not None]
    accuracy = int((labels == predictions)[valid].sum()) / int(valid.sum()) if valid.any() else 0.0
    return iou, sum(known) / len(known) if known else 0.0, accuracy


@given(labelled(), st.integers(0, 60))
def test_scores_equal_a_slow_count(case: tuple[np.ndarray, np.ndarray, int], cut: int) -> None:
    """Counted in two parts, as two processes would, and summed before anything is divided."""
    labels, predictions, num_classes = case
    counted = sum(
        count_confusion(torch.from_numpy(labels[part]), torch.from_numpy(predictions[part]), num_classes)
        for part in (slice(None, cut), slice(cut, None))
    )
    assert isinstance(counted, torch.Tensor)
    assert counted.dtype == torch.int64
    assert counted.shape == (num_classes, num_classes)
    assert int(counted.sum()) == (labels != IGNORED).sum()
    scores = Scores.of(counted)
    assert (scores.iou, scores.miou, scores.pixel_accuracy) == slow_scores(labels, predictions, num_classes)
    valid = labels != IGNORED
    present = [iou for index, iou in enumerate(scores.iou) if iou is not None and (labels[valid] == index).any()]
    assert scores.miou_present == (sum(present) / len(present) if present else 0.0)
    for index in range(num_classes):
        truth, found = (labels == index) & valid, (predictions == index) & valid
        hits = int((truth & found).sum())
        for value, total in ((scores.recall, truth.sum()), (scores.precision, found.sum())):
            assert value[index] == (hits / total if total else None)
        both = int(truth.sum() + found.sum())
        assert scores.dice[index] == (pytest.approx(2 * hits / both) if both else None)


def test_a_false_pixel_of_an_absent_class_lowers_one_mean_only() -> None:
    scores = Scores.of(torch.tensor([[8, 0, 1], [0, 9, 0], [0, 0, 0]]))
    assert scores.miou == pytest.approx((8 / 9 + 1 + 0) / 3)
    assert scores.miou_present == pytest.approx((8 / 9 + 1) / 2)
    assert scores.record(["a", "b", "c"])["precision"] == {"a": 1.0, "b": 1.0, "c": 0.0}
    assert scores.record(["a", "b", "c"])["recall"] == {"a": 8 / 9, "b": 1.0, "c": None}


def test_bins_hold_what_falls_into_them_unrounded() -> None:
    """A confidence of 0.20004 is above 3/15: rounded to thousandths it would fall a bin lower."""
    label = torch.zeros(2, dtype=torch.uint8)
    assert Calibration.of(count_confidence(label, label, torch.tensor([0.20004, 0.19996]))).pixels[2:4] == [1, 1]


def test_counting_is_the_same_on_either_kind_of_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU is given to do, done here: no torch.bincount, which waits."""
    values = torch.randint(0, 7, (500,), generator=torch.Generator().manual_seed(0))

    class Elsewhere(torch.Tensor):
        device = property(lambda _: torch.device("meta"))  # any but the CPU

    expected = confusion._count(values, 9)
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *shape, dtype, device: zeros(*shape, dtype=dtype))
    monkeypatch.setattr(torch, "bincount", None)
    found = confusion._count(values.as_subclass(Elsewhere), 9)
    assert torch.equal(found.as_subclass(torch.Tensor), expected)


def test_rows_are_labels_and_columns_predictions() -> None:
    labels = torch.tensor([[0, 0], [1, IGNORED]], dtype=torch.uint8)
    predictions = torch.tensor([[1, 0], [1, 0]], dtype=torch.uint8)
    assert count_confusion(labels, predictions, 2).tolist() == [[1, 1], [0, 1]]


def test_mean_of_the_parts_is_another_number() -> None:
    """Why the matrix is summed first: two halves of one picture score 1.0 and 0.25, the picture does not score 0.625."""
    halves = [([0, 0], [0, 0]), ([1, 1, 0, 0], [1, 0, 1, 1])]
    parts = [count_confusion(*torch.tensor(half, dtype=torch.uint8), num_classes=2) for half in halves]
    mean = sum(Scores.of(part).miou for part in parts) / 2
    assert Scores.of(parts[0] + parts[1]).miou == pytest.approx((2 / 5 + 1 / 4) / 2)
    assert mean != pytest.approx(Scores.of(parts[0] + parts[1]).miou)


def test_nothing_valid_scores_nothing() -> None:
    labels = torch.full((3, 4), IGNORED, dtype=torch.uint8)
    scores = Scores.of(count_confusion(labels, torch.zeros_like(labels), 3))
    assert (scores.iou, scores.miou, scores.pixel_accuracy) == ([None] * 3, 0.0, 0.0)


def test_ignored_class_is_in_no_mean_and_no_table() -> None:
    counted = torch.tensor([[3, 1, 0], [1, 5, 0], [0, 0, 0]])
    scores = Scores.of(counted, ignore_index=1)
    assert scores.iou == [3 / 5, None, None]
    assert scores.miou == 3 / 5
    record = scores.record(["road", "void", "sky"], ignore_index=1)
    assert record["iou"] == {"road": 3 / 5, "sky": None}
    assert record["miou"] == 3 / 5
    assert record["confusion"] == counted.tolist()


# -------------------------------------------------------------------------------------------------- confidence and images


@given(labelled(), st.integers(0, 60))
def test_calibration_equals_a_slow_count(case: tuple[np.ndarray, np.ndarray, int], cut: int) -> None:
    labels, predictions, _ = case
    rng = np.random.default_rng(len(labels) + cut)
    confidence = rng.random(len(labels))
    confidence[::7] = rng.integers(CALIBRATION_BINS + 1, size=len(confidence[::7])) / CALIBRATION_BINS  # on the edges
    counts = sum(
        count_confidence(*(torch.from_numpy(values[part]) for values in (labels, predictions, confidence)))
        for part in (slice(None, cut), slice(cut, None))
    )
    assert isinstance(counts, torch.Tensor)
    calibration = Calibration.of(counts)
    valid = labels != IGNORED
    expected = 0.0
    for index in range(CALIBRATION_BINS):
        lower, upper = index / CALIBRATION_BINS, (index + 1) / CALIBRATION_BINS
        inside = valid & (confidence <= upper) & ((confidence > lower) | (index == 0))
        assert calibration.pixels[index] == inside.sum()
        assert calibration.right[index] == (inside & (labels == predictions)).sum()
        if inside.any():
            assert calibration.confidence[index] == pytest.approx(confidence[inside].mean(), abs=1e-7)
            expected += abs((labels == predictions)[inside].mean() - confidence[inside].mean()) * inside.sum()
        else:
            assert calibration.confidence[index] is None
    assert calibration.error == pytest.approx(expected / max(1, valid.sum()), abs=1e-7)


def test_sure_and_right_is_calibrated_and_sure_and_wrong_is_not() -> None:
    labels, sure = torch.zeros(10, dtype=torch.uint8), torch.ones(10)
    assert Calibration.of(count_confidence(labels, labels, sure)).error == 0
    assert Calibration.of(count_confidence(labels, labels + 1, sure)).error == 1
    damaged = count_confidence(labels, labels, sure * float("nan"))
    assert Calibration.of(damaged).pixels == [10] + [0] * (CALIBRATION_BINS - 1)


def test_an_image_without_a_valid_pixel_has_no_score() -> None:
    counted = torch.tensor([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    counts = torch.stack([counted.diagonal(), counted.sum(1), counted.sum(0)])
    scores = image_scores(torch.stack([counts, torch.zeros_like(counts)]), None)
    whole = Scores.of(counted)
    assert scores == [(whole.miou, whole.pixel_accuracy), (None, None)]


def hub_mean_iou(labels: np.ndarray, predictions: np.ndarray, num_classes: int, ignore_index: int) -> float:
    """The hub's mean_iou by its own steps: pixels of the ignored label are masked, unions of 0 are not a number and left out."""
    kept = labels != ignore_index
    found, truth = predictions[kept], labels[kept]
    hits = np.histogram(found[found == truth], bins=num_classes, range=(0, num_classes))[0]
    union = sum(np.histogram(part, bins=num_classes, range=(0, num_classes))[0] for part in (found, truth)) - hits
    with np.errstate(invalid="ignore"):
        return float(np.nanmean(hits / np.where(union > 0, union, np.nan)))


def test_the_hubs_metric_differs_by_the_ignored_class_alone() -> None:
    """Equal where nothing answers the ignored class; once it is answered the hub averages its 0 in."""
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 5, 400).astype(np.uint8), rng.integers(0, 4, 400).astype(np.uint8)
    ours = np.where(labels == 4, IGNORED, labels).astype(np.uint8)

    def score(found: np.ndarray) -> float:
        return Scores.of(count_confusion(torch.from_numpy(ours), torch.from_numpy(found), 5), ignore_index=4).miou

    assert score(predictions) == pytest.approx(hub_mean_iou(labels, predictions, 5, 4), rel=1e-12)
    predictions[:40] = 4
    assert hub_mean_iou(labels, predictions, 5, 4) == pytest.approx(score(predictions) * 4 / 5, rel=1e-12)
