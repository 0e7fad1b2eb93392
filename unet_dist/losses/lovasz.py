"""The Lovász-softmax loss: a smooth stand-in for the IoU of each image."""

from __future__ import annotations

import torch
from torch import Tensor

from unet_dist.data.batches.ids import ignored_of, widened
from unet_dist.data.batches.label_counts import LabelCounts
from unet_dist.losses.one_pass import OnePass


class Lovasz(OnePass):
    """The Lovász extension of one minus the IoU, averaged over the classes that occur in an image, then over the images.

    It sorts the pixels of an image, so it is no sum over tiles, and there is no exact form over a batch that is cut: it is
    defined per image, and refused where an image is cut.

    Source: Berman, Triki and Blaschko 2018 (arXiv 1705.08790), equation 9 and algorithm 1, per image, classes present.
    """

    sees_whole_images = True

    def divisor(self, counts: LabelCounts) -> Tensor:
        """What labels add to the divisor: the images with a valid pixel, float64 scalar."""
        return torch.tensor(counts.windows, dtype=torch.float64)

    def sums(
        self, logits: Tensor, labels: Tensor, *, borders: Tensor | None = None, totals: Tensor | None = None
    ) -> Tensor:
        """Compute the loss of each image.

        Args:
            logits: (N, K, H, W), any floating type; computed in float32 at least.
            labels: (N, H, W) uint8 or uint16, all bits set where a pixel counts nowhere.
            borders, totals: not used.

        Returns:
            (N,) losses, float32 or float64.
        """
        wide = logits if logits.dtype == torch.float64 else logits.float()
        num_classes = logits.shape[1]
        ignored, labels = ignored_of(labels), widened(labels)
        flat = labels.flatten(1)[:, None]  # (N, 1, P)
        classes = torch.arange(num_classes, device=labels.device, dtype=labels.dtype)
        is_label = flat == classes[:, None]  # (N, K, P)
        errors = (is_label.to(wide.dtype) - wide.softmax(1).flatten(2)).abs()
        # Ignored pixels sort behind every other and add nothing: no mask of uneven length, for which a GPU would wait.
        ordered, order = errors.masked_fill(flat == ignored, -1.0).sort(dim=2, descending=True, stable=True)
        hits = is_label.gather(2, order)
        # Whole numbers: exact, and their cumulative sum has a deterministic kernel.
        size = hits.sum(2, keepdim=True)
        missed = size - hits.cumsum(2)
        union = size + (~hits).cumsum(2)
        jaccard = 1 - missed.to(wide.dtype) / union
        slope = torch.diff(jaccard, dim=2, prepend=torch.zeros_like(jaccard[:, :, :1]))
        losses = (ordered.clamp(min=0) * slope).sum(2)  # (N, K)
        occurs = size[:, :, 0] > 0
        return (losses * occurs).sum(1) / occurs.sum(1).clamp(min=1)


PARTS = {"lovasz": Lovasz}
