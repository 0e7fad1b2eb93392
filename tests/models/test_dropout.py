"""Proves that a keyed dropout mask is a pure function of sample and position, and a fair one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unet_dist.models.dropout import PositionalDropout, keep_mask, lowbias32
from unet_dist.models.unet import UNet


def lowbias32_of_an_int(x: int) -> int:
    """The published function, in Python's unbounded integers."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ (x >> 16)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1))
def test_hash_is_the_published_one(values: list[int]) -> None:
    got = lowbias32(torch.tensor([0, 2**32 - 1, *values])).tolist()
    assert got == [lowbias32_of_an_int(value) for value in (0, 2**32 - 1, *values)]


int64 = st.integers(-(2**63), 2**63 - 1)
small = st.integers(-(2**40), 2**40)


@given(key=int64, row=small, column=small, down=st.integers(0, 5), right=st.integers(0, 5))
def test_mask_of_a_window_is_that_of_its_tiles(key: int, row: int, column: int, down: int, right: int) -> None:
    whole = keep_mask(torch.tensor([[key, row, column]]), (3, 8, 9), p=0.4)
    tile = keep_mask(torch.tensor([[key, row + down, column + right]]), (3, 3, 4), p=0.4)
    assert torch.equal(tile, whole[:, :, down : down + 3, right : right + 4])


def test_mask_does_not_depend_on_the_batch_or_the_generator() -> None:
    keys = torch.tensor([[7, 0, 0], [-3, 5, -9], [2**62, -1, 4]])
    together = keep_mask(keys, (4, 5, 6), p=0.5)
    torch.manual_seed(123)
    alone = torch.cat([keep_mask(key[None], (4, 5, 6), p=0.5) for key in keys])
    assert torch.equal(together, alone)


def test_masks_are_fair_and_independent() -> None:
    keys = torch.tensor([[0, 0, 0], [1, 0, 0], [2**32, 0, 0], [0, 1000, 0]])
    for p in (0.1, 0.5, 0.9):
        dropped = (~keep_mask(keys, (64, 48, 48), p=p)).double()  # (4, 64, 48, 48)
        num = dropped[0].numel()
        # Five standard errors of a binomial share; and of a correlation, which scatters by 1 / sqrt(n) about 0.
        assert (dropped.mean(dim=(1, 2, 3)) - p).abs().max() < 5 * math.sqrt(p * (1 - p) / num)
        for dim in (1, 2, 3):  # no channel, row or column is favoured
            others = [other for other in (1, 2, 3) if other != dim]
            share = dropped.mean(dim=others)
            assert (share - p).abs().max() < 5 * math.sqrt(p * (1 - p) / (num / dropped.shape[dim]))
        centred = dropped - p
        variance = p * (1 - p)
        neighbours = {
            "sample": (centred[0], centred[1]),
            "high bits of the key": (centred[0], centred[2]),
            "far rows": (centred[0], centred[3]),
            "channel": (centred[0, 1:], centred[0, :-1]),
            "row": (centred[0, :, 1:], centred[0, :, :-1]),
            "column": (centred[0, :, :, 1:], centred[0, :, :, :-1]),
            "diagonal": (centred[0, :, 1:, 1:], centred[0, :, :-1, :-1]),
        }
        for name, (first, second) in neighbours.items():
            assert abs((first * second).mean().item() / variance) < 5 / math.sqrt(first.numel()), (p, name)


def test_kept_values_are_scaled_and_dropped_ones_pass_no_gradient() -> None:
    layer = PositionalDropout(0.2)
    features = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    keys = torch.tensor([[5, 0, 0], [6, 0, 0]])
    out = layer(features, keys)
    keep = keep_mask(keys, (3, 8, 8), p=0.2)
    assert torch.allclose(out, torch.where(keep, features / 0.8, 0.0), rtol=1e-15, atol=0)
    out.sum().backward()
    assert torch.equal(features.grad, keep * (1 / 0.8))


def test_is_off_in_evaluation_and_torchs_own_without_keys() -> None:
    layer = PositionalDropout(0.5)
    features = torch.ones(1, 4, 16, 16)
    torch.manual_seed(3)
    got = layer(features)
    torch.manual_seed(3)
    assert torch.equal(got, torch.nn.functional.dropout(features, 0.5))
    assert layer.eval()(features, torch.tensor([[0, 0, 0]])) is features


@pytest.mark.parametrize("keys", [torch.zeros(2, 3), torch.zeros(3, 3, dtype=torch.int64), torch.zeros(2).long()])
def test_refuses_keys_of_another_form(keys: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"dropout_keys are .* expected \(2, 3\) torch.int64"):
        PositionalDropout(0.5)(torch.ones(2, 1, 4, 4), keys)


@pytest.mark.parametrize("options", [{}, {"norm": "weight"}, {"checkpoint_activations": True}, {"padding": "same"}])
def test_training_on_tiles_drops_what_training_on_the_crop_drops(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = UNet(3, 5, base_channels=4, depth=2, dropout=0.5, **options).double().train()
    assert model.locality is not None
    halo, stride, margin = model.locality.halo, model.locality.stride, model.window_sizes.margin
    trim = -(-(halo - margin) // stride) * stride
    window = model.window_sizes.round_up(2 * (margin + trim) + stride)
    crop = torch.randn(1, 3, window + 3 * stride, window, dtype=torch.float64)
    key = 42
    whole = model(crop, torch.tensor([[key, 0, 0]]))
    assert not torch.equal(whole, model(crop, torch.tensor([[key + 1, 0, 0]])))
    for row in range(0, 4 * stride, stride):
        # Here the crop's first row has the number 0; any number will do that grows by one with the stride.
        tile = model(crop[:, :, row : row + window], torch.tensor([[key, row // stride, 0]]))
        exact = slice(trim, tile.shape[2] - trim)
        columns = slice(trim, tile.shape[3] - trim)
        expected = whole[:, :, row + trim : row + tile.shape[2] - trim, columns]
        assert expected.numel() > 0
        assert (tile[:, :, exact, columns] - expected).abs().max() <= 1e-12 * expected.abs().max()
