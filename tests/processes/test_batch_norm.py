"""Proves that batch norm over processes takes the statistics of all of them; what CUDA computes for it is computed here by hand.

That it waits for nothing is proven on the null GPU, with two processes.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from unet_dist.processes.batch_norm import SharedBatchNorm, share_statistics

EPS, MOMENTUM = 1e-5, 0.1


def stats(features: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    var, mean = torch.var_mean(features, dim=(0, 2, 3), correction=0)
    return mean, (var + eps).rsqrt()


def gather(
    features: Tensor, means: Tensor, inverses: Tensor, running_mean: Tensor, running_var: Tensor, *more: Any
) -> tuple[Tensor, Tensor]:
    momentum, eps, counts = more
    assert means.shape == inverses.shape == (2, features.shape[1])
    assert counts.shape == (2,)
    weights = (counts / counts.sum())[:, None]
    mean = (weights * means).sum(0)
    var = (weights * (inverses**-2 - eps + means**2)).sum(0) - mean**2
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(var * counts.sum() / (counts.sum() - 1), momentum)
    return mean, (var + eps).rsqrt()


def elementwise(features: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor, eps: float) -> Tensor:
    scale, shift = inverse * weight, bias - mean * inverse * weight
    return features * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def test_the_statistics_are_those_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    own, other = torch.randn(2, 3, 4, 5, dtype=torch.float64), 2 + torch.randn(3, 3, 4, 5, dtype=torch.float64)

    def all_gather(everyone: Tensor, mine: Tensor, _group: object) -> None:
        mean, inverse = stats(other, EPS)
        everyone.copy_(torch.cat([mine, mean, inverse, mean.new_tensor([60.0])]))

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda _group=None: 2)
    monkeypatch.setattr(dist, "all_gather_into_tensor", all_gather)
    monkeypatch.setattr(torch, "batch_norm_stats", stats)
    monkeypatch.setattr(torch, "batch_norm_gather_stats_with_counts", gather)
    monkeypatch.setattr(torch, "batch_norm_elemt", elementwise)
    plain = nn.BatchNorm2d(3, eps=EPS, momentum=MOMENTUM).double()
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    shared = next(share_statistics(nn.Sequential(nn.BatchNorm2d(3).double())).children())
    assert isinstance(shared, SharedBatchNorm)
    shared.load_state_dict(plain.state_dict())
    assert torch.allclose(shared(own), plain(torch.cat([own, other]))[:2], rtol=1e-10)
    for name, value in plain.state_dict().items():
        assert torch.allclose(shared.state_dict()[name], value, rtol=1e-10), name
    shared.eval()
    expected = F.batch_norm(own, plain.running_mean, plain.running_var, plain.weight, plain.bias, eps=EPS)
    assert torch.allclose(shared(own), expected, rtol=1e-10), "in evaluation the running ones"
