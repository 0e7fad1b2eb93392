"""Losses that add one number per pixel: cross-entropy and focal.

Owns what a crop adds to the loss and to its divisor. A loss here is never a mean: the trainer divides the sum over the
whole global batch once, so that how the batch is cut into ranks, micro-batches or tiles leaves the gradient alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unet_dist.data.batches.ids import ignored_of, widened
from unet_dist.data.batches.label_counts import LabelCounts
from unet_dist.data.decoded.labels import IGNORED, ignored_in, label_dtype
from unet_dist.losses.one_pass import OnePass

_ROWS_PAY = 16
"""Least number of classes with which a CPU computes channels-last logits over rows: a row then fills a register of AVX-512."""


class CrossEntropy(OnePass):
    """Softmax cross-entropy, where pixels may weigh more or less.

    Source: Ronneberger et al. 2015, equation 1: the sum of w(x) times the loss at x, w(x) = w_c(x) + border(x). The divisor
    is the summed weight of the valid pixels of the global batch (torch's own definition of the weighted mean). With smoothing
    s the loss at a pixel is (1 - s) times that of its label and s times the mean over the classes (Szegedy et al. 2016,
    section 7), the ignored class not among them: it is no answer.

    Args:
        class_weights: (K,) weights of 0 or more, or None for 1 each.
        label_smoothing: s, 0 to below 1.
        ignore_index: the ignored class, if any.
    """

    takes_borders = True

    def __init__(
        self,
        class_weights: Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
    ) -> None:
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        # Labels are counted on the host, and so is the divisor: no copy in the step.
        self._weights = self._host_weights = None
        if class_weights is not None:
            num_labels = ignored_in(label_dtype(len(class_weights))) + 1
            self._weights = F.pad(class_weights, (0, num_labels - len(class_weights)))  # what counts nowhere weighs 0
            self._host_weights = class_weights.to("cpu", torch.float64)

    def divisor(self, counts: LabelCounts) -> Tensor:
        """What labels add to the divisor: the summed weights of the valid pixels, float64 scalar."""
        if self._host_weights is None:
            return torch.tensor(counts.valid + counts.border, dtype=torch.float64)
        pixels = counts.pixels[: len(self._host_weights)].double()
        return (pixels * self._host_weights[: len(pixels)]).sum() + counts.border  # no labels at all are 256 of them

    def sums(
        self, logits: Tensor, labels: Tensor, *, borders: Tensor | None = None, totals: Tensor | None = None
    ) -> Tensor:
        """Sum the loss over the valid pixels of each sample.

        Args:
            logits: (N, K, H, W), any floating type; computed in float32 at least.
            labels: (N, H, W) uint8 or uint16, all bits set where a pixel counts nowhere.
            borders: (N, H, W), what each pixel weighs beyond its class.
            totals: not needed.

        Returns:
            (N,) sums, float32 or float64.
        """
        assert totals is None
        num_samples, num_classes = logits.shape[:2]
        scores, targets = logits, widened(labels).long()
        if logits.device.type != "cpu" or (logits.stride(1) == 1 and num_classes >= _ROWS_PAY):
            # Rows of pixels: the deterministic CUDA kernel exists for (pixels, K) only, and channels_last makes this a view. Of
            # planes a CPU would make a copy: 58 ms over rows, 24 over planes (35 classes, 388x388, two threads, with backward). Of
            # channels last rows are a view there, too, and faster where they fill a register.
            scores, targets = logits.permute(0, 2, 3, 1).reshape(-1, num_classes), targets.flatten()  # (N * H * W, K)
        scores = scores if scores.dtype == torch.float64 else scores.float()
        losses = self.losses(scores, targets, ignored=ignored_of(labels))  # as the targets
        if self._weights is not None or borders is not None:
            weights = 1.0 if self._weights is None else self._weights.to(scores)[targets]
            losses = losses * (weights if borders is None else weights + borders.reshape(targets.shape).to(scores))
        return losses.view(num_samples, -1).sum(1)  # (N,)

    def losses(self, logits: Tensor, targets: Tensor, *, ignored: int = IGNORED) -> Tensor:
        """Compute the unweighted loss of each pixel, 0 where it is ignored.

        Args:
            logits: (P, K), or (N, K, H, W).
            targets: (P,) or (N, H, W) labels, int64; the result is shaped like them.
            ignored: the target where nothing counts.
        """
        if not self.label_smoothing:
            return F.cross_entropy(logits, targets, ignore_index=ignored, reduction="none")
        logs = F.log_softmax(logits, dim=1)
        hits = F.nll_loss(logs, targets, ignore_index=ignored, reduction="none")
        answers = torch.ones(logits.shape[1], device=logits.device, dtype=logits.dtype)
        if self.ignore_index is not None and self.ignore_index < len(answers):
            answers[self.ignore_index] = 0
        shares = (answers / answers.sum()).view(-1, *[1] * (logits.dim() - 2))
        spread = -(logs * shares).sum(1) * (targets != ignored)
        return (1 - self.label_smoothing) * hits + self.label_smoothing * spread


class Focal(CrossEntropy):
    """Cross-entropy times (1 - p)^gamma, p being the probability of the label: learnt pixels count less.

    Source: Lin et al. 2017 (arXiv 1708.02002), equation 5; the class weights are its alpha. It divides as cross-entropy does.

    Args:
        focal_gamma: the exponent, 0 or more; 0 is cross-entropy.
    """

    def __init__(self, class_weights: Tensor | None = None, *, focal_gamma: float = 2.0) -> None:
        super().__init__(class_weights)
        self.gamma = focal_gamma

    def losses(self, logits: Tensor, targets: Tensor, *, ignored: int = IGNORED) -> Tensor:
        """As in cross-entropy."""
        return focused(super().losses(logits, targets, ignored=ignored), self.gamma)


def focused(losses: Tensor, gamma: float) -> Tensor:
    """Multiply losses -log p by (1 - p)^gamma."""
    # 1 - p = -expm1(-loss), without cancellation. Kept off 0, where the slope of a power below 1 is infinite.
    return (-torch.expm1(-losses)).clamp_min(torch.finfo(losses.dtype).tiny) ** gamma * losses


PARTS = {"cross_entropy": CrossEntropy, "focal": Focal}
