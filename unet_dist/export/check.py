"""Whether an exported network computes what the original does, pixel by pixel.

Owns the comparison and its tolerance. Every pixel of an image is computed by both, in windows of different shapes and numbers:
a graph that was frozen to one size would not survive it. Of a file with sides of its own, or that pads, one window an image is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from unet_dist.errors import ExportError
from unet_dist.export.graph import INPUT, Form, input_type
from unet_dist.imaging.reader import ArrayReader, ImageReader, read_window
from unet_dist.models.contract import Network
from unet_dist.tiling.geometry import DEFAULT_TILE_SIZE_PX, WindowSizes
from unet_dist.tiling.windows import classify, window_logits
from unet_dist.wording import counted

MAX_DIFFERENCE = 1e-3
"""Of two logits."""

TIE = 1e-4
"""Where torch's two best logits are closer than this, either label is right. float32 logits were seen to differ by 2e-5
between two tile sizes of torch itself."""

MAX_DIFFERENCE_COUPLED, TIE_COUPLED = 1e-2, 2e-2
"""The same where every pixel depends on its whole window (group and instance normalisation, attention): each library sums over
all its pixels in an order of its own. Logits of a U-Net 16 wide with group normalisation and random weights were seen to differ
by 1.4e-3; a label can change where the two best are closer than twice the difference."""

# Pixels of windows computed at once by both sides: four of 572 px.
_BATCH_PX = 4 * 572 * 572


@dataclass
class Agreement:
    """What two networks make of the same images.

    Attributes:
        images, pixels: that were compared.
        difference: the largest of two logits.
        differing: pixels of another label.
        ties: those of them whose two best logits torch itself can hardly tell apart.
        is_coupled: whether every pixel depends on its whole window.
    """

    images: int = 0
    pixels: int = 0
    difference: float = 0.0
    differing: int = 0
    ties: int = 0
    is_coupled: bool = False

    @property
    def max_difference(self) -> float:
        """The difference that is allowed of two logits."""
        return MAX_DIFFERENCE_COUPLED if self.is_coupled else MAX_DIFFERENCE

    @property
    def tie(self) -> float:
        """The distance of torch's two best logits up to which either label is right."""
        return TIE_COUPLED if self.is_coupled else TIE

    def __str__(self) -> str:
        ties = f", ties apart ({self.ties})" if self.ties else ""
        allowed = (
            f" ({self.max_difference:.0e} is allowed where a pixel depends on its whole window)"
            if self.is_coupled
            else ""
        )
        return (
            f"{counted(self.images, 'image')}, {self.pixels / 1e6:.3g} Mpx: every "
            f"label equal{ties}, logits within {self.difference:.1e}"
            f"{allowed}"
        )

    def require(self) -> None:
        """Raises ExportError: labels differ, ties apart, or logits by more than max_difference."""
        if self.differing > self.ties or not self.difference <= self.max_difference:  # NaN is not within
            raise ExportError(
                f"The exported network differs from the original: {self.differing - self.ties} of {self.pixels} labels, logits "
                f"by up to {self.difference:.1e}; expected none, ties apart, and {self.max_difference:.0e}. Nothing was written. "
                "Report it with the versions of torch, onnxscript and onnxruntime."
            )


def compare(
    model: Network,
    session: Any,
    readers: Iterator[ImageReader],
    tell: Callable[[], None],
    form: Form = Form(),  # noqa: B008
) -> Agreement:
    """Compute images by torch and by onnxruntime.

    Args:
        model: the original, in evaluation mode, float32, on the CPU.
        session: of the exported file.
        tell: called after each image.
        form: what the file takes.
    """
    found = Agreement(is_coupled=model.locality is None)
    for number, reader in enumerate(readers):
        for pixels in _windows(reader, model.window_sizes, number, form):
            ours = _same_size(model, pixels) if form.is_padded else _logits(model, pixels)
            taken = pixels.astype(input_type(model), copy=False)
            theirs = torch.from_numpy(session.run(None, {INPUT: taken})[0])
            _count(found, ours, theirs, model.ignore_index)
        found.images += 1
        tell()
    return found


def _count(found: Agreement, ours: torch.Tensor, theirs: torch.Tensor, ignore_index: int | None) -> None:
    if theirs.shape != ours.shape:
        raise ExportError(
            f"The exported network gives logits of shape {tuple(theirs.shape)}, the original {tuple(ours.shape)}. "
            "Nothing was written. Report it with the versions of torch, onnxscript and onnxruntime."
        )
    if not bool(ours.isfinite().all()):
        raise ExportError(
            "The network gives logits that are NaN or infinite. Nothing was written. Its weights are damaged or diverged, or the "
            "pictures are far from those of the training."
        )
    labels, other = (
        classify(logits, ignore_index).long()[:, None] for logits in (ours, theirs.nan_to_num())
    )  # (N, 1, h, w)
    differs = labels != other
    margin = (ours.gather(1, labels) - ours.gather(1, other))[differs]
    difference = (ours - theirs).abs().max().item()
    found.pixels += labels.numel()
    found.differing += int(differs.sum())
    found.ties += int((margin <= found.tie).sum())
    found.difference = difference if difference != difference else max(found.difference, difference)


def _logits(model: Network, pixels: np.ndarray) -> torch.Tensor:
    return window_logits(model, torch.from_numpy(pixels), halo=model.window_sizes.margin)  # (N, K, h, w)


def _same_size(model: Network, pixels: np.ndarray) -> torch.Tensor:
    """Logits of whole pictures, (N, K, H, W), from windows that are mirrored at their borders as a prediction's are."""
    sizes, (_, height, width, _) = model.window_sizes, pixels.shape
    shape = [sizes.round_up(side + 2 * sizes.margin) for side in (height, width)]
    windows = [read_window(ArrayReader(picture), -sizes.margin, -sizes.margin, *shape) for picture in pixels]
    return _logits(model, np.stack(windows))[:, :, :height, :width]


def _windows(reader: ImageReader, sizes: WindowSizes, number: int, form: Form) -> Iterator[np.ndarray]:
    """Yield batches of windows, (N, H, W, C) uint8; where their sides are free, other ones for each number."""
    height, width, _ = reader.shape
    if form.sides is not None:  # the image's corner, mirrored where it is smaller
        yield read_window(reader, 0, 0, *form.sides)[None]
        return
    if form.is_padded:
        yield read_window(reader, 0, 0, *(min(side, DEFAULT_TILE_SIZE_PX - 7 * number) for side in (height, width)))[
            None
        ]
        return
    largest = sizes.round_down(DEFAULT_TILE_SIZE_PX) or sizes.minimum
    # Four shapes by turns, no side too small for the network and none larger than the image needs.
    shape = [
        min(sizes.round_up(side + 2 * sizes.margin), sizes.round_up(largest - steps * sizes.stride))
        for side, steps in ((height, number % 4), (width, (number + 1) % 4))
    ]
    row_step, col_step = (side - 2 * sizes.margin for side in shape)
    origins = itertools.product(range(0, height, row_step), range(0, width, col_step))
    count = max(1, min(1 + number % 3, _BATCH_PX // (shape[0] * shape[1])))
    while batch := list(itertools.islice(origins, count)):
        yield np.stack([read_window(reader, row - sizes.margin, col - sizes.margin, *shape) for row, col in batch])
