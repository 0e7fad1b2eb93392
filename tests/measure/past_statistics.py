"""Batch normalisation by the statistics of earlier steps, to be compared with the norms that the toolkit has.

    python -m tests.measure.past_statistics train configs/camvid_unet_cpu.yaml --norm batch --batch_size 2

is `unet-dist train ...` with each batch norm replaced: in training, too, it normalises by its running mean and variance, as
they were before the step, and counts the step's into them afterwards, summed over the global batch. Such a layer would keep
every promise of the toolkit: no sample or tile depends on another, and the trained network is one with ordinary batch norms.
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from unet_dist.cli import main
from unet_dist.models import blocks, normalisation

MOMENTUM = 0.1
"""The share of a step in the running statistics, as torch's batch norms have it."""


class PastBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics are those of the steps before, constants to the gradient; the first step takes its own.

    For one micro-batch a step: a second one would see what the first has counted.
    """

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return super().forward(features)
        mean, variance = global_statistics(features.detach())
        past_mean, past_variance = mean, variance
        if self.num_batches_tracked > 0:
            past_mean, past_variance = self.running_mean.clone(), self.running_var.clone()
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            share = max(MOMENTUM, 1 / float(self.num_batches_tracked))  # the mean of all steps at first
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance, share)
        return F.batch_norm(features, past_mean, past_variance, self.weight, self.bias, eps=self.eps)


def global_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of (N, C, H, W) over the samples of all processes and their pixels."""
    pixels = features.new_tensor([features.numel() / features.shape[1]])
    sums = torch.cat([features.sum((0, 2, 3)), features.square().sum((0, 2, 3)), pixels])
    if dist.is_initialized():
        dist.all_reduce(sums)
    mean, mean_square = (sums[:-1] / sums[-1]).chunk(2)
    return mean, (mean_square - mean.square()).clamp(min=0)


def activation_norm(norm: str, channels: int) -> nn.Module:
    """The layer between a convolution and its ReLU, of the steps before where batch norm is asked for."""
    return PastBatchNorm2d(channels) if norm == "batch" else normalisation.activation_norm(norm, channels)


if __name__ == "__main__":
    blocks.activation_norm = activation_norm
    sys.exit(main())
