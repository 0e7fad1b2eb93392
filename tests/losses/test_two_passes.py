"""Proves the other losses against their published formulas, value and gradient, whole and cut anywhere they may be."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.losses.batches import NUM_CLASSES, WEIGHTS, draw_batch, loss_of
from unet_dist.data.batches.label_counts import count_labels
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.losses.dice import Dice
from unet_dist.losses.lovasz import Lovasz
from unet_dist.losses.mixture import Mixture, build_loss
from unet_dist.losses.pixelwise import CrossEntropy, Focal

ROWS = [(slice(None), slice(0, 2)), (slice(None), slice(2, 6))]
"""Tiles: the upper and the lower part of every sample."""


def valid_pixels(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (P, K) and labels (P,) of the pixels that count."""
    valid = labels != IGNORED
    return logits.movedim(1, 3)[valid].softmax(1), labels[valid].long()


def plain_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """Milletari et al. 2016 without squares, over all pixels at once, by autograd."""
    p, y = valid_pixels(logits, labels)
    coefficients = [
        2 * p[y == k, k].sum() / (p[:, k].sum() + (y == k).sum()) for k in range(NUM_CLASSES) if (y == k).any()
    ]
    return 1 - torch.stack(coefficients).mean()


def plain_focal(logits: Tensor, labels: Tensor) -> Tensor:
    """Lin et al. 2017, equation 5, weighted by class and divided by the weights."""
    p, y = valid_pixels(logits, labels)
    p = p[torch.arange(len(y)), y]
    return -(WEIGHTS[y] * (1 - p) ** 2.5 * p.log()).sum() / WEIGHTS[y].sum()


def jaccard_loss(is_wrong: Tensor, is_label: Tensor) -> Tensor:
    """Berman et al. 2018, equation 3: one minus the IoU of a class whose wrong pixels are these."""
    return is_wrong.sum().double() / (is_label | is_wrong).sum()


def plain_lovasz(logits: Tensor, labels: Tensor) -> Tensor:
    """Berman et al. 2018, equation 6: the Lovász extension as a sum of set function differences, pixel by pixel."""
    images = []
    for sample in range(len(labels)):
        p, y = valid_pixels(logits[sample : sample + 1], labels[sample : sample + 1])
        classes = []
        for k in y.unique().tolist():
            errors = (p[:, k] - (y == k).to(p)).abs()
            is_wrong = torch.zeros_like(y, dtype=torch.bool)
            value, before = torch.zeros(()).to(p), torch.zeros(()).to(p)
            for pixel in errors.argsort(descending=True):
                is_wrong[pixel] = True
                after = jaccard_loss(is_wrong, y == k)
                value, before = value + errors[pixel] * (after - before), after
            classes.append(value)
        images.append(torch.stack(classes).mean())
    return torch.stack(images).mean()


def plain_smoothed(logits: Tensor, labels: Tensor) -> Tensor:
    """torch's own smoothing."""
    return F.cross_entropy(logits, labels.long(), ignore_index=IGNORED, label_smoothing=0.2)


def plain_weighted_smoothed(logits: Tensor, labels: Tensor) -> Tensor:
    """By hand: a pixel's smoothed loss weighs what its label's class does (torch weighs each class of the spread by its own)."""
    p, y = valid_pixels(logits, labels)
    logs = p.log()
    answers = [k for k in range(NUM_CLASSES) if k != 4]  # the ignored class is no answer
    spread = -torch.stack([logs[:, k] for k in answers], dim=1).mean(1)
    hits = -logs[torch.arange(len(y)), y]
    return (WEIGHTS[y] * (0.9 * hits + 0.1 * spread)).sum() / WEIGHTS[y].sum()


def plain_mixture(logits: Tensor, labels: Tensor) -> Tensor:
    """Three terms, each over a divisor of its own."""
    weighted = F.cross_entropy(logits, labels.long(), WEIGHTS, ignore_index=IGNORED)
    return 0.7 * weighted + 2 * plain_dice(logits, labels) + 0.3 * plain_focal(logits, labels)


CASES: dict[str, tuple[Any, Any]] = {
    "dice": (Dice(), plain_dice),
    "focal": (Focal(WEIGHTS, focal_gamma=2.5), plain_focal),
    "lovasz": (Lovasz(), plain_lovasz),
    "label smoothing": (CrossEntropy(label_smoothing=0.2), plain_smoothed),
    "label smoothing with weights": (
        CrossEntropy(WEIGHTS, label_smoothing=0.1, ignore_index=4),
        plain_weighted_smoothed,
    ),
    "mixture": (
        Mixture([(0.7, CrossEntropy(WEIGHTS)), (2.0, Dice()), (0.3, Focal(WEIGHTS, focal_gamma=2.5))]),
        plain_mixture,
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("cut", ["whole", "samples", "tiles"])
def test_value_and_gradient_are_those_of_the_formula(name: str, cut: str) -> None:
    if cut == "tiles" and name == "lovasz":
        pytest.skip("it is no sum over tiles, and refused with them")
    loss, plain = CASES[name]
    logits, labels = draw_batch()
    labels[labels == 3] = 0  # a class that does not occur
    parts: Any = {"whole": [slice(None)], "samples": [slice(0, 1), slice(1, 4)], "tiles": ROWS}[cut]
    if cut == "tiles":  # (N, K, h, W) and (N, h, W) are cut along their rows
        images = [logits[:, :, rows] for _, rows in parts]
        divisor = sum(loss.divisor(count_labels(labels[part])) for part in parts)
        totals = None
        if loss.has_statistics:
            totals = sum(loss.statistics(i.detach(), labels[p]) for i, p in zip(images, parts, strict=True))
        sums = [loss.sums(i, labels[p], totals=totals) for i, p in zip(images, parts, strict=True)]
        got = (torch.cat(sums).sum(0) / divisor).sum()
    else:
        got = loss_of(loss, logits, labels, parts)
    expected = plain(logits, labels)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (got, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)
    assert gradients[1].abs().max() > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_crop_without_a_valid_pixel_adds_nothing(name: str) -> None:
    loss, _ = CASES[name]
    logits, labels = draw_batch()
    labels[:] = IGNORED
    assert (loss.divisor(count_labels(labels)) == 0).all()
    value = loss_of(loss, logits, labels)
    assert value == 0
    assert (torch.autograd.grad(value, logits)[0] == 0).all()


def test_lovasz_of_a_hard_answer_is_one_minus_the_iou() -> None:
    """Where every probability is 0 or 1 the extension is the set function: all 16 answers for 4 pixels of two classes."""
    labels = torch.tensor([[[0, 1], [1, 1]]], dtype=torch.uint8)
    for answer in itertools.product((0, 1), repeat=4):
        predicted = torch.tensor(answer).view(1, 2, 2)
        logits = F.one_hot(predicted, 2).movedim(3, 1).double() * 100
        ious = [
            ((predicted == k) & (labels == k)).sum().double() / ((predicted == k) | (labels == k)).sum() for k in (0, 1)
        ]
        assert Lovasz().sums(logits, labels).item() == pytest.approx(1 - sum(ious).item() / 2, abs=1e-12)


def test_dice_names_the_sample_that_is_not_finite() -> None:
    logits, labels = draw_batch()
    broken = logits.detach().clone()
    broken[2, 0, labels[2] != IGNORED] = torch.nan
    sums = Dice().sums(broken, labels, totals=Dice().statistics(broken, labels))
    assert sums.isfinite().tolist() == [True, True, False, True]


def test_smoothing_gives_the_ignored_class_nothing() -> None:
    logits, labels = draw_batch()
    labels[labels == 4] = IGNORED
    got = loss_of(CrossEntropy(label_smoothing=0.4, ignore_index=4), logits, labels)
    valid = labels != IGNORED
    logs = logits.movedim(1, 3)[valid].log_softmax(1)
    hits = logs[torch.arange(len(logs)), labels[valid].long()]
    torch.testing.assert_close(got, -(0.6 * hits + 0.4 * logs[:, :4].mean(1)).mean())


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_border_weights_add_to_the_class_weights(class_weights: Tensor | None) -> None:
    logits, labels = draw_batch()
    borders = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) * 10
    loss = CrossEntropy(class_weights)
    got = loss.sums(logits, labels, borders=borders).sum() / loss.divisor(count_labels(labels, borders))
    valid = labels != IGNORED
    of_class = torch.ones(NUM_CLASSES).double() if class_weights is None else class_weights
    weights = of_class[labels[valid].long()] + borders[valid]
    plain = F.cross_entropy(logits.movedim(1, 3)[valid], labels[valid].long(), reduction="none")
    torch.testing.assert_close(got, (weights * plain).sum() / weights.sum())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_finite_where_everything_is_learnt(gamma: float) -> None:
    logits = torch.tensor([[[[200.0]], [[-200.0]]]], requires_grad=True)
    labels = torch.zeros(1, 1, 1, dtype=torch.uint8)
    (gradient,) = torch.autograd.grad(Focal(focal_gamma=gamma).sums(logits, labels).sum(), logits)
    assert (gradient == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["dice", "lovasz", "focal"])
def test_narrow_logits_are_summed_in_float32(name: str, dtype: torch.dtype) -> None:
    logits, labels = draw_batch(dtype=dtype)
    loss = build_loss({name: 1.0})
    got, wide = (loss_of(loss, tensor, labels).detach() for tensor in (logits, logits.double()))
    torch.testing.assert_close(got.double(), wide, rtol=1e-5, atol=0)
