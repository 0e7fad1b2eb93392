"""What losses have in common that are sums over pixels or images as they stand."""

from __future__ import annotations

import torch
from torch import Tensor


class OnePass:
    """A loss that needs no first pass over the batch; by default a sum over pixels that knows no border weights."""

    has_statistics = False
    sees_whole_images = False
    takes_borders = False

    def statistics(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Nothing: (0,) float64."""
        return torch.zeros(0, dtype=torch.float64, device=logits.device)
