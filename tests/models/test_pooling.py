"""Proves that pooling in parts is pooling, with its gradient and its memory format."""

from __future__ import annotations

import pytest
import torch

from unet_dist import UNet
from unet_dist.models import pooling
from unet_dist.models.pooling import halve


@pytest.mark.parametrize("limit", [1, 2 * 48 + 1, 5 * 48])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_parts_give_the_bits_of_the_whole(
    limit: int, memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    max_pool2d = pooling.F.max_pool2d
    images = torch.randn(5, 3, 4, 4).contiguous(memory_format=memory_format)
    whole, parts = images.clone().requires_grad_(), images.clone().requires_grad_()
    expected = halve(whole)
    monkeypatch.setattr(pooling.F, "max_pool2d", lambda x, side: (sizes.append(len(x)), max_pool2d(x, side))[1])
    got = halve(parts, limit)
    assert sizes == {1: [1] * 5, 97: [2, 2, 1], 240: [4, 1]}[limit]
    assert torch.equal(got, expected)
    assert got.is_contiguous(memory_format=memory_format)
    for pooled in (expected, got):
        pooled.square().sum().backward()
    assert whole.grad is not None
    assert parts.grad is not None
    assert torch.equal(whole.grad, parts.grad)


def test_no_pooling_at_full_size_has_values_that_32_bits_cannot_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """66 crops of 732 px, 64 channels wide, without their memory."""
    counts: list[int] = []
    max_pool2d = pooling.F.max_pool2d
    monkeypatch.setattr(pooling.F, "max_pool2d", lambda x, side: (counts.append(x.numel()), max_pool2d(x, side))[1])
    with torch.device("meta"):
        network, images = UNet(3, 2, base_channels=64, depth=1), torch.empty(66, 3, 732, 732)
    network(images)
    assert len(counts) == 2
    assert sum(counts) == 66 * 64 * 728**2 > 2**31 > max(counts)
