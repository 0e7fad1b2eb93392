"""The gradient of a step, however its batch is cut: for tests that any cut gives the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unet_dist import Config
from unet_dist.assembly.network import build_network
from unet_dist.assembly.objective import loss_of
from unet_dist.data.batches.crops import CropReader
from unet_dist.data.batches.recipes import RECIPES
from unet_dist.data.batches.shares import RunShares
from unet_dist.data.decoded.cache import Cache
from unet_dist.tiling.crop_plan import CropPlanner
from unet_dist.tiling.gradient import WindowGradient


def gradient_of(
    config: Config, cache: Cache, world_size: int, micro_batch_size: int, tile_size: int | None, *, splits: bool = False
) -> tuple[float, dict[str, Tensor]]:
    """The loss and the gradient of step 1, rank after rank, as the trainer puts them together."""
    model: Any = build_network(config, cache).train()
    planner = CropPlanner.of(model, side=60, tile_size=tile_size, splits_samples=splits)
    crops = CropReader(cache.split("train"), 3, 60, planner.halo, recipe=RECIPES["paper"], zero=tuple(model.mean))
    loss = loss_of(config.schedule, cache, torch.device("cpu"))
    gradient = WindowGradient(model, model, loss, trim=planner.halo - model.window_sizes.margin)
    shares = [
        RunShares(
            crops, planner=planner, batch_size=4, micro_batch_size=micro_batch_size, rank=rank, world_size=world_size,
            splits_samples=splits,
        )[1]
        for rank in range(world_size)
    ]  # fmt: skip
    divisor = sum(share.divisor(loss) for share in shares)
    totals = sum(gradient.count(share.batches, torch.device("cpu")) for share in shares)
    value = 0.0
    for share in shares:
        for batch in share.batches:
            there = batch.on(torch.device("cpu"))
            sums = gradient.add(there.windows, there.labels, there.keys, scale=1 / divisor, totals=totals)
            value += float((sums.sum(0) / divisor).sum())
    return value, {name: p.grad for name, p in model.named_parameters()}
