"""The Dice loss over the whole global batch, exact however the batch is cut.

Owns the two passes of a ratio of sums. The first counts what the ratio is made of, without a gradient; summed over tiles,
micro-batches and ranks it fixes the ratio's derivative. The second is then a sum over pixels, whose gradient is the
ratio's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unet_dist.data.batches.ids import ignored_of, widened
from unet_dist.data.batches.label_counts import LabelCounts


class Dice:
    """One minus the mean of the classes' soft Dice coefficients 2 I / (P + G), over the classes that occur.

    I: the summed probability of a class where it is the label; P: everywhere; G: the pixels of the label. All three are sums
    over the valid pixels of the global batch, and a class that occurs in none of its labels counts nowhere.

    Source: Milletari et al. 2016 (arXiv 1606.04797), section 3, in the form without squares of Drozdzal et al. 2016 (arXiv
    1608.04117), equation 1, for several classes.

    Sums are in units of pixels, as those of the other losses: divided by the valid pixels of the batch they are the loss.
    """

    has_statistics = True
    sees_whole_images = False
    takes_borders = False

    def divisor(self, counts: LabelCounts) -> Tensor:
        """What labels add to the divisor: their valid pixels, float64 scalar."""
        return torch.tensor(counts.valid, dtype=torch.float64)

    def statistics(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Count what the batch's coefficients are made of.

        Args:
            logits: (N, K, H, W), any floating type.
            labels: (N, H, W) uint8 or uint16.

        Returns:
            (3 K,) float64: I, P and G of each class.
        """
        counts = torch.stack(self.count(logits, labels))  # (3, N, K)
        return counts.double().sum(1).flatten()

    def sums(
        self, logits: Tensor, labels: Tensor, *, borders: Tensor | None = None, totals: Tensor | None = None
    ) -> Tensor:
        """Share the loss out to the samples, with the gradient of the whole.

        Args:
            logits, labels: as in statistics.
            borders: not used.
            totals: the statistics of the global batch.

        Returns:
            (N,) what each adds; the value is its part of P + G - 2 I, the derivative that of the coefficients.
        """
        assert totals is not None, "the first pass comes first"
        hits, mass, size = self.count(logits, labels)  # (N, K) each
        # A sample that is not finite makes the totals so: put aside, it is the only one whose own sum is not.
        hits_all, mass_all, size_all = torch.nan_to_num(totals, 0.0, 0.0, 0.0).to(hits).view(3, -1)
        union = torch.where(size_all > 0, mass_all + size_all, 1.0)
        # Of each class in the mean, times the divisor that the trainer takes out again.
        share = (size_all > 0) * size_all.sum() / (size_all > 0).sum().clamp(min=1)
        value = ((mass + size - 2 * hits) / union * share).sum(1).detach()
        linear = ((2 * hits_all / union**2 * mass - 2 / union * hits) * share).sum(1)
        return value + (linear - linear.detach())

    @staticmethod
    def count(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """I, P and G of each sample and class: (N, K), in float32 at least."""
        wide = logits if logits.dtype == torch.float64 else logits.float()
        probabilities = wide.softmax(1)
        ignored, labels = ignored_of(labels), widened(labels)
        classes = torch.arange(logits.shape[1], device=labels.device, dtype=labels.dtype)
        is_label = labels[:, None] == classes[:, None, None]  # (N, K, H, W)
        hits = (probabilities * is_label).sum((2, 3))
        mass = (probabilities * (labels != ignored)[:, None]).sum((2, 3))
        return hits, mass, is_label.sum((2, 3)).to(wide.dtype)


PARTS = {"dice": Dice}
