"""Proves the losses of overlapping classes against formulas by hand, value and gradient, whole and cut anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.losses.batches import loss_of
from unet_dist.data.batches.label_counts import count_labels
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.data.decoded.planes import pack
from unet_dist.errors import ConfigError
from unet_dist.losses.mixture import build_loss

WEIGHTS = torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64)
Formula = Callable[[Tensor, Tensor], Tensor]


def draw_planes(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (4, 3, 6, 7) with a gradient, planes (4, 3, 6, 7) of 0, 1 and 255, another share ignored in each; and packed."""
    random = np.random.default_rng(seed)
    planes = random.integers(0, 2, (4, 3, 6, 7)).astype(np.uint8)
    for sample, share in enumerate((0.0, 0.2, 0.9, 0.5)):
        planes[sample][random.random((3, 6, 7)) < share] = IGNORED
    planes[1, :, 0] = IGNORED  # a row where no class counts
    packed = np.stack([pack(one.transpose(1, 2, 0)) for one in planes])
    logits = torch.from_numpy(random.normal(size=(4, 3, 6, 7))).requires_grad_()
    return logits, torch.from_numpy(planes), torch.from_numpy(packed)


def terms(logits: Tensor, planes: Tensor, gamma: float = 0.0) -> Tensor:
    """The loss of each pixel and class, 0 where it counts nowhere."""
    p = 1 / (1 + torch.exp(-logits))
    p = torch.where(planes == 1, p, 1 - p)
    return torch.where(planes == IGNORED, 0.0, -((1 - p) ** gamma) * torch.log(p))


def plain_cross_entropy(logits: Tensor, planes: Tensor) -> Tensor:
    """The mean over all pixels and classes that count, of the whole batch."""
    return terms(logits, planes).sum() / (planes != IGNORED).sum()


def plain_weighted(logits: Tensor, planes: Tensor) -> Tensor:
    """The same, a class's terms and their number times its weight."""
    weights = WEIGHTS[:, None, None]
    return (terms(logits, planes) * weights).sum() / ((planes != IGNORED) * weights).sum()


def plain_focal(logits: Tensor, planes: Tensor) -> Tensor:
    """Lin et al. 2017, equation 4, over the pixels and classes that count."""
    return terms(logits, planes, 1.5).sum() / (planes != IGNORED).sum()


def plain_dice(logits: Tensor, planes: Tensor) -> Tensor:
    """One minus the mean of 2 I / (P + G), each summed over the whole batch."""
    p = torch.sigmoid(logits) * (planes != IGNORED)
    found = [
        2 * p[:, k][planes[:, k] == 1].sum() / (p[:, k].sum() + (planes[:, k] == 1).sum())
        for k in range(3)
        if (planes[:, k] == 1).any()
    ]
    return 1 - torch.stack(found).mean()


def plain_mixture(logits: Tensor, planes: Tensor) -> Tensor:
    """Two terms, each over a divisor of its own."""
    return plain_weighted(logits, planes) + 0.5 * plain_dice(logits, planes)


CASES: dict[str, tuple[dict[str, float], dict[str, Any], Formula]] = {
    "cross_entropy": ({"cross_entropy": 1.0}, {}, plain_cross_entropy),
    "weights": ({"cross_entropy": 1.0}, {"class_weights": WEIGHTS}, plain_weighted),
    "focal": ({"focal": 1.0}, {"focal_gamma": 1.5}, plain_focal),
    "dice": ({"dice": 1.0}, {}, plain_dice),
    "mixture": ({"cross_entropy": 1.0, "dice": 0.5}, {"class_weights": WEIGHTS}, plain_mixture),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("cut", ["whole", "samples", "tiles"])
def test_value_and_gradient_are_those_of_the_formula(name: str, cut: str) -> None:
    words, given, plain = CASES[name]
    loss: Any = build_loss(words, multi_label=True, **given)
    logits, planes, packed = draw_planes()
    if name == "dice":
        planes[:, 1][planes[:, 1] == 1] = 0  # a class that does not occur
        packed = torch.from_numpy(np.stack([pack(one.permute(1, 2, 0).numpy()) for one in planes]))
    if cut == "tiles":  # the upper and the lower part of every sample
        rows = [slice(0, 2), slice(2, 6)]
        divisor = sum(loss.divisor(count_labels(packed[:, part])) for part in rows)
        totals = None
        if loss.has_statistics:
            totals = sum(loss.statistics(logits[:, :, part].detach(), packed[:, part]) for part in rows)
        sums = [loss.sums(logits[:, :, part], packed[:, part], totals=totals) for part in rows]
        got = (torch.cat(sums).sum(0) / divisor).sum()
    else:
        got = loss_of(loss, logits, packed, [slice(None)] if cut == "whole" else [slice(0, 1), slice(1, 4)])
    expected = plain(logits, planes)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (got, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)
    assert gradients[1].abs().max() > 1e-4


@pytest.mark.parametrize("name", CASES)
def test_crop_without_a_label_adds_nothing(name: str) -> None:
    words, given, _ = CASES[name]
    loss = build_loss(words, multi_label=True, **given)
    logits, _, packed = draw_planes()
    packed = torch.full_like(packed, -1)
    assert (loss.divisor(count_labels(packed)) == 0).all()
    value = loss_of(loss, logits, packed)
    assert value == 0
    assert (torch.autograd.grad(value, logits)[0] == 0).all()


@pytest.mark.parametrize("count", [1, 8, 9, 16, 17, 32])
def test_counts_are_those_of_the_planes_for_any_number_of_classes(count: int) -> None:
    random = np.random.default_rng(count)
    planes = random.choice([0, 1, IGNORED], (5, 7, count)).astype(np.uint8)
    counts = count_labels(torch.from_numpy(pack(planes)[None]))
    for k in range(count):
        assert counts.pixels[2 * k : 2 * k + 2].tolist() == [(planes[..., k] == value).sum() for value in (0, 1)]
    assert counts.valid == (planes != IGNORED).sum()
    assert counts.pixels[IGNORED] == (planes == IGNORED).all(axis=2).sum()
    assert counts.windows == 1


def test_other_terms_are_refused_by_the_config() -> None:
    from unet_dist.config.sections import Config

    with pytest.raises(ConfigError, match=r"loss: got 'lovasz' with multi_label true"):
        Config(data_path="x", multi_label=True, loss="lovasz")
