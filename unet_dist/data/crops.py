"""Training crops: from a draw to the window the network sees and the labels of its output.

Owns where a crop lies and how it is flipped and augmented. The window is read by the code that reads a prediction's window,
so that training and prediction see the same thing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unet_dist.data.labels import IGNORED
from unet_dist.data.sampler import Draw, crop_generator, draw_batch, share_of_rank
from unet_dist.imaging.reader import ArrayReader, read_window
from unet_dist.tiling.geometry import crop_origin_range

if TYPE_CHECKING:
    from unet_dist.data.augment import Augmentation


class Samples(Protocol):
    """A split that can be read by rows and columns, such as a cached one."""

    @property
    def ids(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray: ...  # (H, W, C) uint8

    def label(self, index: int) -> np.ndarray: ...  # (H, W) uint8


@dataclass(frozen=True)
class CropReader:
    """Reads the crop of a draw: a pure function of (seed, draw).

    Attributes:
        samples: the training split.
        seed: the run's seed.
        window_side: side of the input window, px.
        halo: pixels of the window on each side that the output leaves out.
        horizontal_flip: whether half of the crops are mirrored.
        augmentation: what else happens to a window and its labels.
    """

    samples: Samples
    seed: int
    window_side: int
    halo: int
    horizontal_flip: bool = True
    augmentation: Augmentation | None = None

    def read(self, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        """Read a window (h, w, C) uint8 and the labels of its output (h - 2 halo, w - 2 halo) uint8.

        The origin of the output crop is uniform over the image. Where the crop is larger than the image it covers it, and
        the labels beyond the image are IGNORED.
        """
        image, label = self.samples.image(draw.index), self.samples.label(draw.index)
        random = crop_generator(self.seed, draw.position)
        side = self.window_side - 2 * self.halo
        row, col = (int(random.integers(crop_origin_range(size, side))) for size in label.shape)
        is_flipped = bool(random.integers(2)) and self.horizontal_flip
        window = read_window(ArrayReader(image), row - self.halo, col - self.halo, self.window_side, self.window_side)
        if self.augmentation is None:
            labels = _read_labels(label, row, col, side)
        else:  # a geometric transform moves labels in from the halo
            labels = _read_labels(label, row - self.halo, col - self.halo, self.window_side)
            window, labels = self.augmentation(window, labels, seed=int(random.integers(2**32)))
            inner = slice(self.halo, self.halo + side)
            labels = labels[inner, inner]
        if is_flipped:
            window, labels = window[:, ::-1], labels[:, ::-1]
        return window, labels


def _read_labels(label: np.ndarray, row: int, col: int, side: int) -> np.ndarray:
    """Cut (side, side) labels at (row, col); what lies beyond the image is IGNORED."""
    height, width = label.shape
    labels = np.full((side, side), IGNORED, dtype=np.uint8)
    top, bottom = max(row, 0), min(row + side, height)
    left, right = max(col, 0), min(col + side, width)
    if top < bottom and left < right:
        labels[top - row : bottom - row, left - col : right - col] = label[top:bottom, left:right]
    return labels


@dataclass(frozen=True)
class StepShare:
    """One rank's crops of one step.

    Attributes:
        step: the step.
        windows: (n, h, w, C) uint8.
        labels: (n, h', w') uint8.
        keys: (n,) int64, the samples' positions in the run.
        ids: the samples' ids.
    """

    step: int
    windows: Tensor
    labels: Tensor
    keys: Tensor
    ids: list[str]

    def pin_memory(self) -> StepShare:
        """The same in page-locked memory, from which a copy to a GPU does not wait. Called by torch's DataLoader."""
        return StepShare(
            self.step, self.windows.pin_memory(), self.labels.pin_memory(), self.keys.pin_memory(), self.ids
        )


class RunShares(Dataset[StepShare]):
    """The whole run as one rank sees it: item t is its share of step t."""

    def __init__(
        self, crops: CropReader, *, batch_size: int, micro_batch_size: int, rank: int, world_size: int
    ) -> None:
        self.crops = crops
        self._batch_size = batch_size
        self._micro_batch_size = micro_batch_size
        self._rank = rank
        self._world_size = world_size

    def __getitem__(self, step: int) -> StepShare:
        samples = self.crops.samples
        batch = draw_batch(self.crops.seed, step, self._batch_size, len(samples))
        share = share_of_rank(batch, self._rank, self._world_size, self._micro_batch_size)
        pairs = [self.crops.read(draw) for draw in share]
        return StepShare(
            step=step,
            windows=torch.from_numpy(np.stack([window for window, _ in pairs])),
            labels=torch.from_numpy(np.stack([labels for _, labels in pairs])),
            keys=torch.tensor([draw.position for draw in share]),
            ids=[samples.ids[draw.index] for draw in share],
        )


def read_ahead(shares: RunShares, steps: range, *, num_workers: int, pin_memory: bool) -> Iterator[StepShare]:
    """Yield the shares of steps in order, read while the device computes: by worker processes, or by a thread for 0."""
    if num_workers:
        yield from DataLoader(
            shares,
            batch_size=None,
            sampler=steps,
            num_workers=num_workers,
            pin_memory=pin_memory,
            worker_init_fn=_ignore_signals,
        )
        return

    def read(step: int) -> StepShare:
        share = shares[step]
        return share.pin_memory() if pin_memory else share

    with ThreadPoolExecutor(1, thread_name_prefix="crops") as thread:
        ahead = None
        for step in steps:
            ready = ahead or thread.submit(read, step)
            ahead = thread.submit(read, step + 1) if step + 1 in steps else None
            yield ready.result()


def _ignore_signals(_worker: int) -> None:
    """Leave the wish to stop to the main process of a rank, which ends its workers in order."""
    import signal

    ignore: Callable[[int], object] = lambda number: signal.signal(number, signal.SIG_IGN)  # noqa: E731
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        ignore(number)
