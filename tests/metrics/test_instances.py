"""Proves the challenge's scores against counting pairs of pixels by hand and against scikit-image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage, sparse

from unet_dist.data.decoded.labels import IGNORED
from unet_dist.metrics.instances import THRESHOLDS, InstanceScores, score_image, score_segments, thin


def draw_segments(seed: int, pixels: int, segments: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.integers(1, segments + 1, pixels)
    proposal = np.where(random.random(pixels) < 0.6, truth, random.integers(1, segments + 3, pixels))
    return proposal, truth


@pytest.mark.parametrize("seed", range(4))
def test_v_rand_counts_pairs(seed: int) -> None:
    """Of all ordered pairs, a pixel with itself among them: twice those in one segment of both, over those of each."""
    proposal, truth = draw_segments(seed, 40, 5)
    pairs = list(itertools.product(range(40), repeat=2))
    ours = [proposal[i] == proposal[j] for i, j in pairs]
    theirs = [truth[i] == truth[j] for i, j in pairs]
    both = sum(a and b for a, b in zip(ours, theirs, strict=True))
    assert score_segments(proposal, truth)[0] == pytest.approx(2 * both / (sum(ours) + sum(theirs)), rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_scikit_image(seed: int) -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is the reference: pip install -e .[test]")
    proposal, truth = draw_segments(seed, 3000, 30)
    v_rand, v_info = score_segments(proposal, truth)
    # Its Rand counts pairs of different pixels: n / (n - 1) of the shares, less the pixels with themselves.
    joint, ours, theirs = (np.unique(ids, return_counts=True)[1] for ids in (proposal * 1000 + truth, proposal, truth))
    table = sparse.csr_array((np.ones(3000), (truth, proposal)))
    table.sum_duplicates()  # scipy 1.13 has not, where scikit-image makes it
    error, _, _ = metrics.adapted_rand_error(truth, proposal, table=table)
    without_self = 2 * (np.square(joint).sum() - 3000) / (np.square(ours).sum() + np.square(theirs).sum() - 6000)
    assert 1 - error == pytest.approx(without_self, rel=1e-12)
    assert v_rand == pytest.approx(1 - error, abs=0.01)
    missed = metrics.variation_of_information(truth, proposal, table=table / 3000).sum() * np.log(
        2
    )  # H(S|T) + H(T|S), in nats
    entropies = sum(-(c / 3000 * np.log(c / 3000)).sum() for c in (ours, theirs))
    assert v_info == pytest.approx(1 - missed / entropies, rel=1e-10)


def test_equal_segmentations_are_perfect_whatever_their_numbers() -> None:
    _, truth = draw_segments(0, 100, 7)
    assert score_segments(900 - 3 * truth, truth) == pytest.approx((1.0, 1.0))
    assert score_segments(np.ones(5, int), np.full(5, 3)) == (1.0, 1.0)
    assert score_segments(np.zeros(0, int), np.zeros(0, int)) == (1.0, 1.0)


def test_a_merge_and_a_split_by_hand() -> None:
    """Two objects of 3 and 1 pixels. Merged: 10 of 16 pairs. The larger one split 2 and 1: 6 of 10."""
    truth = np.array([1, 1, 1, 2])
    assert score_segments(np.ones(4, int), truth)[0] == pytest.approx(2 * 10 / (16 + 10))
    assert score_segments(np.array([1, 1, 3, 2]), truth)[0] == pytest.approx(2 * 6 / (6 + 10))
    assert score_segments(np.ones(4, int), truth)[1] == 0.0  # one segment tells nothing


def boxes() -> np.ndarray:
    """Four rooms with walls of 2 px; class 0 is the wall."""
    label = np.ones((22, 22), np.uint8)
    label[10:12] = label[:, 10:12] = 0
    return label


def test_width_of_the_border_does_not_matter_and_a_gap_does() -> None:
    label = boxes()
    wide = (ndimage.binary_dilation(label == 0, iterations=2) * 0.95 + 0.01).astype(np.float32)
    np.testing.assert_allclose(score_image(wide, label, 0), 1.0)
    gap = wide.copy()
    gap[3:5, 8:14] = 0.45  # open below 0.5: two rooms are one
    scores = score_image(gap, label, 0)
    open_at = np.array(THRESHOLDS) > 0.45
    np.testing.assert_allclose(scores[~open_at], 1.0)
    np.testing.assert_allclose(
        scores[open_at, 0], 2 * 4 / (4 + 6)
    )  # rooms of 1, 1 and 2 against four: in n^2 of a room
    assert (scores[open_at, 1] < 0.9).all()
    best = InstanceScores.of(np.stack([scores, np.ones_like(scores)]))
    assert best == InstanceScores(1.0, THRESHOLDS[0], 1.0, THRESHOLDS[0])


def test_only_objects_of_the_truth_count() -> None:
    label = boxes()
    border = (label == 0) * 1.0
    spoilt = border.copy()
    spoilt[12:, 12:] = np.random.default_rng(0).random((10, 10))
    assert score_image(spoilt, label, 0).min() < 0.99
    label[12:, 12:] = IGNORED
    np.testing.assert_allclose(score_image(spoilt, label, 0), 1.0)


def test_thinning_gives_every_pixel_to_the_nearest_object() -> None:
    assert thin(np.array([[1, 1, 0, 0, 0, 1]], bool)).tolist() == [[1, 1, 1, 1, 2, 2]]
    assert (thin(np.zeros((2, 2), bool)) == 0).all()


def test_v_info_of_small_arrays_by_hand() -> None:
    """In bits. Truth of 3 and 1 pixels: H = 0.811278. Merged, nothing is known of it. Split 2, 1 and 1: H = 1.5, all of it is."""
    truth = np.array([1, 1, 1, 2])
    entropy = 0.75 * np.log2(4 / 3) + 0.25 * np.log2(4)
    assert entropy == pytest.approx(0.811278, abs=1e-6)
    assert score_segments(np.ones(4, int), truth)[1] == pytest.approx(0.0, abs=1e-12)
    assert score_segments(np.array([1, 1, 3, 2]), truth)[1] == pytest.approx(2 * entropy / (1.5 + entropy), rel=1e-12)
