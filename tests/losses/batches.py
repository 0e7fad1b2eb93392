"""A batch whose samples ignore very different shares of their pixels, and how it is summed when it is cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unet_dist.data.batches.label_counts import count_labels
from unet_dist.data.decoded.labels import IGNORED

NUM_CLASSES = 5
WEIGHTS = torch.tensor([0.5, 0.0, 3.0, 1.0, 0.1], dtype=torch.float64)


def draw_batch(seed: int = 0, *, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Logits (4, K, 6, 7) that require a gradient, and labels (4, 6, 7) of which a different share is ignored each."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, NUM_CLASSES, 6, 7, generator=generator, dtype=dtype).requires_grad_()
    labels = torch.randint(NUM_CLASSES, (4, 6, 7), generator=generator, dtype=torch.uint8)
    for sample, share in enumerate((0.0, 0.2, 0.9, 0.5)):
        labels[sample][torch.rand(6, 7, generator=generator) < share] = IGNORED
    return logits, labels


def loss_of(loss: Any, logits: Tensor, labels: Tensor, parts: Sequence[Any] = (slice(None),)) -> Tensor:
    """The loss of a batch that is cut into parts, as the trainer puts it together."""
    divisor = sum(loss.divisor(count_labels(labels[part])) for part in parts)
    scale = 1 / torch.where(divisor > 0, divisor, 1.0)
    totals = None
    if loss.has_statistics:
        totals = sum(loss.statistics(logits[part].detach(), labels[part]) for part in parts)
    sums = [loss.sums(logits[part], labels[part], totals=totals) for part in parts]
    return (torch.cat(sums).sum(0) * scale).sum()
