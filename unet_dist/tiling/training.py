"""The gradient of a batch, window by window: exact at any crop size, in the memory of one window.

Owns the forward and the backward pass of windows, whole crops or tiles of them. With valid convolutions and nothing that
couples pixels or samples, the loss of a crop is a sum over its tiles, so its gradient is the sum of theirs: no exchange of
halos, no second pass. Must not know processes, optimizers or where windows come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from unet_dist.errors import LocalityError
from unet_dist.tiling.inference import normalise

_SPREAD = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: Knuth, The Art of Computer Programming 3, section 6.4


class SummedLoss(Protocol):
    """A loss that is a sum over pixels."""

    def sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(N, K, h, w) logits and (N, h, w) labels -> (N,) sums."""


def require_separable(model: Any, setting: str, *, by_pixels: bool) -> None:
    """Refuse to cut a sample or a batch where that would change the gradient.

    Args:
        model: the network.
        setting: what the user set, such as "tile_size 572 below input_size 1100".
        by_pixels: whether a sample is cut into tiles, not only a batch into samples.

    Raises:
        LocalityError: a layer couples what would be cut; names it.
    """
    obstacle = model.couples_batch or (model.locality_obstacle if by_pixels else None)
    if obstacle is not None:
        raise LocalityError(
            f"Got {setting}, with a network that couples what this takes apart: {obstacle}. Expected a network whose gradient "
            "is a sum over windows. Set --norm weight or none, or take the setting back."
        )


@dataclass(frozen=True)
class WindowGradient:
    """Adds the gradients of windows to a network's.

    Attributes:
        model: the network, on the device.
        wrapped: what is called: the network, or its wrapper for mixed precision and several processes.
        loss: the loss, a sum over pixels.
        trim: pixels cut off each side of the logits, so that they cover the labels.
        seed: the run's, for dropout.
    """

    model: Any
    wrapped: Any
    loss: SummedLoss
    trim: int = 0
    seed: int = 0

    def add(
        self,
        windows: Tensor,
        labels: Tensor,
        keys: Tensor,
        *,
        scale: Tensor,
        backward: Callable[[Tensor], object] = torch.Tensor.backward,
    ) -> Tensor:
        """Add the gradient of scale * loss.

        Args:
            windows: (n, h, w, C) uint8, on the device, as the others.
            labels: (n, h - 2 halo, w - 2 halo) uint8, IGNORED where another tile counts the pixel, or none does.
            keys: (n, 3) int64: the key of the sample, and the row and the column of the window in the sample's grid, in
                strides.
            scale: scalar. The division comes before the backward pass: summed gradients overflow fp16.
            backward: runs the backward pass of a loss.

        Returns:
            (n,) the windows' summed losses, without scale and without a graph.
        """
        sums = self.loss.sums(self.logits(windows, keys), labels)
        backward(sums.sum() * scale.to(sums.dtype))
        return sums.detach()

    def logits(self, windows: Tensor, keys: Tensor) -> Tensor:
        """Compute the logits (n, K, h - 2 halo, w - 2 halo) that the labels are for."""
        model = self.model
        images = normalise(windows, model.mean, model.std, next(model.parameters()).dtype)  # (n, C, h, w)
        # Measured on a CPU without matrix units: channels last is 1.4 times as fast forward, and slower in sum with backward.
        channels_last = windows.device.type == "cuda"
        images = images.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        # A dropped value is a function of (seed, sample, position), however batch and sample are cut. The seed is spread
        # over 63 bits, so that neither a large one overflows nor two of them share their masks.
        seed_key = torch.tensor([(self.seed * _SPREAD) % 2**63, 0, 0]).to(keys.device, non_blocking=True)
        logits: Tensor = self.wrapped(images, keys + seed_key)
        trim = self.trim
        return logits[:, :, trim : logits.shape[2] - trim, trim : logits.shape[3] - trim]
