"""Batch normalisation over the processes of a run, without a wait for the device.

Owns one thing that torch's layer does otherwise: in every forward pass it asks the device three times which processes had no
pixels, to leave them out. Here each process always has some.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules._functions import SyncBatchNorm as Statistics


def share_statistics(model: nn.Module) -> nn.Module:
    """Let the batch norms of a network take their statistics over all processes; the same network otherwise."""
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for layer in converted.modules():
        if type(layer) is nn.SyncBatchNorm and layer.momentum is not None:
            layer.__class__ = SharedBatchNorm
    return converted


class SharedBatchNorm(nn.SyncBatchNorm):
    """torch's, for processes that each have pixels."""

    def forward(self, features: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        group: Any = self.process_group or dist.group.WORLD
        if not self.training or not dist.is_initialized() or dist.get_world_size(group) == 1:
            return super().forward(features)
        assert features.numel() > 0, tuple(features.shape)
        mean, var = (self.running_mean, self.running_var) if self.track_running_stats else (None, None)
        if self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        normalised: Tensor = _Normalise.apply(
            features, self.weight, self.bias, mean, var, self.eps, self.momentum, group
        )
        return normalised


class _Normalise(torch.autograd.Function):
    """The operations of torch's own function, in its order, but for the choice among the processes.

    Source: torch 2.13, torch/nn/modules/_functions.py, SyncBatchNorm.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        eps: float,
        momentum: float,
        group: Any,
    ) -> Tensor:
        if not features.is_contiguous(memory_format=torch.channels_last):
            features = features.contiguous()
        channels, world_size = features.shape[1], dist.get_world_size(group)
        mean, inverse = torch.batch_norm_stats(features, eps)
        count = torch.full((1,), features.numel() // channels, dtype=mean.dtype, device=mean.device)
        own = torch.cat([mean, inverse, count])  # (2 C + 1,)
        everyone = own.new_empty(world_size * len(own))
        dist.all_gather_into_tensor(everyone, own, group)
        means, inverses, counts = everyone.view(world_size, -1).split(channels, dim=1)
        counts = counts.reshape(-1)
        if running_mean is not None:
            counts = counts.to(running_mean.dtype)
        mean, inverse = torch.batch_norm_gather_stats_with_counts(
            features, means, inverses, running_mean, running_var, momentum, eps, counts
        )
        ctx.save_for_backward(features, weight, mean, inverse, counts.to(torch.int32))
        ctx.process_group = group
        return torch.batch_norm_elemt(features, weight, bias, mean, inverse, eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        by_features, by_weight, by_bias, *_ = Statistics.backward(ctx, gradient)
        return by_features, by_weight, by_bias, None, None, None, None, None
