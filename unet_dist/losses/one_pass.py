"""What losses have in common that are sums over pixels or images as they stand."""

from __future__ import annotations

import torch
from torch import Tensor


class OnePass:
    """A loss that needs no first pass over the batch."""

    has_statistics = False

    def statistics(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Nothing: (0,) float64."""
        return torch.zeros(0, dtype=torch.float64, device=logits.device)
