"""Proves that a loss is a sum that can be cut anywhere, that ignored pixels add nothing, and what a class weighs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.losses.batches import WEIGHTS, draw_batch
from unet_dist.data.batches.label_counts import count_labels
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.errors import ConfigError
from unet_dist.losses import pixelwise
from unet_dist.losses.class_weights import weigh_classes
from unet_dist.losses.pixelwise import CrossEntropy, Focal


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_sums_are_torchs_summed_cross_entropy(class_weights: Tensor | None) -> None:
    logits, labels = draw_batch()
    sums = CrossEntropy(class_weights).sums(logits, labels)
    expected = [
        F.cross_entropy(
            logits[i : i + 1], labels[i : i + 1].long(), class_weights, ignore_index=IGNORED, reduction="sum"
        )
        for i in range(4)
    ]
    torch.testing.assert_close(sums, torch.stack(expected), rtol=1e-14, atol=0)


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_sum_over_divisor_is_torchs_mean_however_it_is_cut(class_weights: Tensor | None) -> None:
    """Value and gradient; a mean of the parts' means is another number, as their ignored pixels are uneven."""
    logits, labels = draw_batch()
    loss = CrossEntropy(class_weights)
    whole = F.cross_entropy(logits, labels.long(), class_weights, ignore_index=IGNORED)
    (gradient,) = torch.autograd.grad(whole, logits)

    parts = [slice(0, 1), slice(1, 4)]
    divisor = torch.stack([loss.divisor(count_labels(labels[part])) for part in parts]).sum()
    sums = [loss.sums(logits[part], labels[part]).sum() for part in parts]
    torch.testing.assert_close(sum(sums) / divisor, whole, rtol=1e-14, atol=0)
    (from_parts,) = torch.autograd.grad(sum(s / divisor for s in sums), logits)
    torch.testing.assert_close(from_parts, gradient, rtol=1e-13, atol=1e-17)

    mean_of_means = sum(s / loss.divisor(count_labels(labels[part])) for s, part in zip(sums, parts, strict=True)) / 2
    assert abs(mean_of_means - whole) > 1e-3


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_crop_without_a_valid_pixel_adds_nothing(class_weights: Tensor | None) -> None:
    logits, labels = draw_batch()
    labels[1] = IGNORED
    loss = CrossEntropy(class_weights)
    sums = loss.sums(logits, labels)
    assert sums[1] == 0
    assert loss.divisor(count_labels(labels[1:2])) == 0
    (gradient,) = torch.autograd.grad(sums.sum(), logits)
    assert torch.isfinite(gradient).all()
    assert (gradient[1] == 0).all()


def test_divisor_is_the_valid_pixels_or_their_summed_weights() -> None:
    labels = torch.tensor([[[0, 0, 2], [IGNORED, 1, 2]]], dtype=torch.uint8)
    counts = count_labels(labels)
    assert CrossEntropy().divisor(counts).item() == 5
    assert CrossEntropy(WEIGHTS).divisor(counts).item() == 0.5 + 0.5 + 3.0 + 0.0 + 3.0
    assert CrossEntropy().divisor(counts).dtype == CrossEntropy(WEIGHTS).divisor(counts).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_logits_are_summed_in_float32(dtype: torch.dtype) -> None:
    """A million pixels of loss 3.4 do not fit float16, and bfloat16 would lose all but two digits."""
    logits = torch.zeros(1, 30, 1000, 1000, dtype=dtype)
    labels = torch.zeros(1, 1000, 1000, dtype=torch.uint8)
    sums = CrossEntropy(torch.ones(30, dtype=torch.float64)).sums(logits, labels)
    assert sums.dtype == torch.float32
    assert sums.item() == pytest.approx(1e6 * torch.log(torch.tensor(30.0)).item(), rel=1e-6)


# ------------------------------------------------------------------------------------------------------ class weights


def test_weights_by_hand() -> None:
    """Frequencies 0.5, 0.3, 0.2: their mean is 1/3, their median 0.3. Class 2 does not occur, class 4 is ignored."""
    histogram = [50, 30, 0, 20, 900]
    inverse = weigh_classes("inverse", histogram, ignore_index=4)
    median = weigh_classes("median", histogram, ignore_index=4)
    torch.testing.assert_close(inverse, torch.tensor([2 / 3, 10 / 9, 0, 5 / 3, 0], dtype=torch.float64))
    torch.testing.assert_close(median, torch.tensor([0.6, 1.0, 0, 1.5, 0], dtype=torch.float64))
    torch.testing.assert_close(weigh_classes("sqrt", histogram, ignore_index=4), median.sqrt())


def test_the_median_of_an_even_number_lies_between_the_middle_two() -> None:
    """Frequencies 0.4, 0.3, 0.2, 0.1: the median is 0.25, where torch.median says 0.2."""
    weights = weigh_classes("median", [40, 30, 20, 10], ignore_index=None)
    torch.testing.assert_close(weights, torch.tensor([0.625, 0.25 / 0.3, 1.25, 2.5], dtype=torch.float64))


def test_inverse_weights_give_every_class_the_same_say() -> None:
    histogram = [1, 10, 1000]
    weights = weigh_classes("inverse", histogram, ignore_index=None)
    shares = weights * torch.tensor(histogram)
    torch.testing.assert_close(shares, shares.mean().expand(3))


def test_ignore_index_beyond_the_classes_takes_none_away() -> None:
    assert (weigh_classes("median", [3, 5], ignore_index=255) > 0).all()


def test_listed_weights_are_taken_as_they_are() -> None:
    assert weigh_classes([1, 0.5], [7, 9], ignore_index=None).tolist() == [1.0, 0.5]
    with pytest.raises(ConfigError) as refusal:
        weigh_classes([1.0], [7, 9], ignore_index=None)
    assert str(refusal.value) == "class_weights: got 1 numbers, expected 2, one per class (the ignored one included)."


@pytest.mark.parametrize(
    "loss", [CrossEntropy(WEIGHTS), CrossEntropy(label_smoothing=0.1, ignore_index=1), Focal(WEIGHTS, focal_gamma=2.0)]
)
@pytest.mark.parametrize("least_of_rows", [1, 16])
def test_the_memory_format_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, loss: CrossEntropy, least_of_rows: int
) -> None:
    """On a CPU planes and rows are summed in different ways; with border weights, and trimmed logits."""
    monkeypatch.setattr(pixelwise, "_ROWS_PAY", least_of_rows)
    logits, labels = draw_batch()
    borders = torch.rand(labels.shape, dtype=torch.float64)[:, 1:-1, 1:-1]
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        own = logits.detach().clone(memory_format=memory_format).requires_grad_()
        sums = loss.sums(own[:, :, 1:-1, 1:-1], labels[:, 1:-1, 1:-1], borders=borders)
        results.append((sums, *torch.autograd.grad(sums.sum(), own)))
    for planes, rows in zip(*results, strict=True):
        torch.testing.assert_close(planes, rows, rtol=1e-13, atol=1e-15)
