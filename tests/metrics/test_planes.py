"""Proves the scores of overlapping classes against their definitions by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unet_dist.data.batches.planes import unpack
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.data.decoded.planes import pack
from unet_dist.errors import ConfigError
from unet_dist.metrics.confusion import Scores, count_planes
from unet_dist.metrics.registry import compute_metrics, make_metrics


def draw() -> tuple[np.ndarray, np.ndarray]:
    """Planes and predictions (4, 9, 8): a class that never occurs, one that is only predicted, and two others."""
    random = np.random.default_rng(3)
    truth = random.choice([0, 1, IGNORED], (4, 9, 8), p=[0.5, 0.3, 0.2]).astype(np.uint8)
    found = random.integers(0, 2, (4, 9, 8)).astype(np.uint8)
    truth[2:][truth[2:] == 1] = 0
    found[3] = 0
    return truth, found


def test_scores_are_those_of_counts_by_hand() -> None:
    truth, found = draw()
    scores = Scores.of(count_planes(torch.from_numpy(truth), torch.from_numpy(found)))
    ious, right = [], 0
    for k in range(4):
        here, there = truth[k][truth[k] != IGNORED] == 1, found[k][truth[k] != IGNORED] == 1
        tp, fp, fn = (here & there).sum(), (~here & there).sum(), (here & ~there).sum()
        right += (here == there).sum()
        ious.append(tp / (tp + fp + fn) if tp + fp + fn else None)
        assert scores.iou[k] == ious[k]
        assert scores.dice[k] == (None if ious[k] is None else pytest.approx(2 * tp / (2 * tp + fp + fn)))
        assert scores.precision[k] == (tp / (tp + fp) if tp + fp else None)
        assert scores.recall[k] == (tp / (tp + fn) if tp + fn else None)
        assert scores.shares[k] == here.mean()
    assert ious[2] == 0
    assert ious[3] is None
    assert scores.miou == pytest.approx(sum(ious[:3]) / 3)
    assert scores.miou_present == pytest.approx(sum(ious[:2]) / 2)
    assert scores.pixel_accuracy == pytest.approx(right / (truth != IGNORED).sum())


def test_record_holds_counts_by_name() -> None:
    truth, found = draw()
    record = Scores.of(count_planes(torch.from_numpy(truth), torch.from_numpy(found))).record(["a", "b", "c", "d"])
    assert "confusion" not in record
    counts = record["counts"]["a"]
    assert counts["true_positives"] == ((truth[0] == 1) & (found[0] == 1)).sum()
    assert counts["false_positives"] == ((truth[0] == 0) & (found[0] == 1)).sum()
    assert counts["false_negatives"] == ((truth[0] == 1) & (found[0] == 0)).sum()
    assert sum(counts.values()) == (truth[0] != IGNORED).sum()


@pytest.mark.parametrize("count", [1, 8, 16, 32])
def test_planes_come_out_of_the_packed_numbers(count: int) -> None:
    planes = np.random.default_rng(count).choice([0, 1, IGNORED], (6, 5, count)).astype(np.uint8)
    assert torch.equal(unpack(torch.from_numpy(pack(planes)), count), torch.from_numpy(planes.transpose(2, 0, 1)))


def kappa(confusion: torch.Tensor) -> float:
    """A metric of somebody who knows nothing of planes."""
    return float(confusion.flatten()[0])


def test_metrics_are_ours_or_say_that_they_take_planes() -> None:
    truth, found = draw()
    counts = count_planes(torch.from_numpy(truth), torch.from_numpy(found))
    dice = [one for one in Scores.of(counts).dice if one is not None]
    made = make_metrics("mean_dice", 4, None, multi_label=True)
    assert compute_metrics(made, counts)["mean_dice"] == pytest.approx(sum(dice) / len(dice))
    with pytest.raises(ConfigError, match="metrics: got kappa with multi_label"):
        make_metrics([kappa], 4, None, multi_label=True)
    kappa.takes_planes = True  # type: ignore[attr-defined]
    try:
        assert list(make_metrics([kappa], 4, None, multi_label=True)) == ["kappa"]
    finally:
        del kappa.takes_planes  # type: ignore[attr-defined]
