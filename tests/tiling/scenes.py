"""Small images with labels in memory, and the gradient of a step's share computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unet_dist.data.batches.crops import CropReader
from unet_dist.data.batches.mixing import Mixing
from unet_dist.data.batches.shares import KEPT_PX, RunShares
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.losses.pixelwise import CrossEntropy
from unet_dist.models.unet import UNet
from unet_dist.tiling.crop_plan import CropPlanner
from unet_dist.tiling.geometry import aligned_halo
from unet_dist.tiling.gradient import WindowGradient

NUM_CLASSES = 4
CLASS_WEIGHTS = torch.tensor([0.3, 1.0, 2.5, 0.7], dtype=torch.float64)


class Scenes:
    """Noise of given shapes, a tenth of its pixels ignored."""

    def __init__(self, shapes: Sequence[tuple[int, int]], channels: int = 3) -> None:
        random = np.random.default_rng(0)
        self.images = [random.integers(0, 256, (*shape, channels), dtype=np.uint8) for shape in shapes]
        self.labels = [random.integers(0, NUM_CLASSES, shape, dtype=np.uint8) for shape in shapes]
        for label in self.labels:
            label[random.random(label.shape) < 0.1] = IGNORED
        self.ids = [f"scene {index}" for index in range(len(shapes))]

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> np.ndarray:
        return self.images[index]

    def label(self, index: int) -> np.ndarray:
        return self.labels[index]


def build_model(dtype: torch.dtype = torch.float64, **options: Any) -> UNet:
    """A narrow, shallow network in training mode, always with the same weights."""
    torch.manual_seed(0)
    model = UNet(3, NUM_CLASSES, **{"base_channels": 2, "depth": 2, **options})
    return model.to(dtype).train()


def build_shares(
    model: UNet,
    samples: Any,
    *,
    input_size: int | None,
    tile_size: int | None,
    batch_size: int,
    micro_batch_size: int = 1,
    rank: int = 0,
    world_size: int = 1,
    splits_samples: bool = False,
    kept_px: int = KEPT_PX,
    mixing: Mixing | None = None,
    **crop_options: Any,
) -> RunShares:
    """One rank's shares of a run over samples."""
    assert model.locality is not None
    halo = aligned_halo(model.window_sizes, model.locality)
    return RunShares(
        CropReader(samples, 7, window_side=input_size, halo=halo, **crop_options),
        planner=CropPlanner(model.window_sizes, model.locality, halo, tile_size),
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        rank=rank,
        world_size=world_size,
        splits_samples=splits_samples,
        kept_px=kept_px,
        mixing=mixing,
    )


def gradient_of(
    model: UNet, shares: RunShares, step: int = 1, wrapped: Any = None, loss: Any = None
) -> tuple[dict[str, Tensor], float]:
    """The gradient of each parameter and the loss of one step, from all windows of a share."""
    loss = loss or CrossEntropy(CLASS_WEIGHTS)
    share = shares[step]
    scale = 1 / share.divisor(loss)
    trim = shares.planner.halo - model.window_sizes.margin
    gradient = WindowGradient(model, wrapped or model, loss, trim=trim, seed=7)
    totals = gradient.count(share.batches, torch.device("cpu")) if loss.has_statistics else None
    sums = [
        gradient.add(b.windows, b.labels, b.keys, scale=scale, borders=b.borders, totals=totals)
        for b in (batch.on(torch.device("cpu")) for batch in share.batches)
    ]
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return gradients, float((torch.cat(sums).sum(0) * scale).sum())


def relative_differences(got: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """|got - expected| / |expected| of each tensor."""
    assert got.keys() == expected.keys()
    return {name: float((got[name] - e).norm() / e.norm()) for name, e in expected.items()}


def global_difference(got: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The same over all tensors together."""
    flat_got, flat_expected = (torch.cat([t.flatten() for t in tensors.values()]) for tensors in (got, expected))
    return float((flat_got - flat_expected).norm() / flat_expected.norm())
