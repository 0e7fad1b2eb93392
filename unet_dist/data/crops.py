"""Training crops: from a draw to the windows the network sees and the labels of their outputs.

Owns where a crop lies, how it is flipped and augmented, and which of its windows a rank reads. A window is read by the
code that reads a prediction's window, so that training and prediction see the same thing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unet_dist.data.labels import IGNORED
from unet_dist.data.sampler import Draw, crop_generator, draw_batch, share_of_rank
from unet_dist.imaging.reader import ArrayReader, ImageReader, read_window
from unet_dist.tiling.crop_plan import CropPlanner, TileRef, batch_tiles, order_tiles, share_tiles
from unet_dist.tiling.geometry import Tile, TilePlan, crop_origin_range

if TYPE_CHECKING:
    from unet_dist.data.augment import Augmentation


class WindowedSamples(Protocol):
    """A split whose images are read by windows and whose labels by slices: files of any size need no decoded copy.

    A label may be anything with a shape (H, W) whose slices are uint8 arrays, such as a memory map.
    """

    @property
    def ids(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray | ImageReader: ...  # (H, W, C) uint8

    def label(self, index: int) -> np.ndarray: ...  # (H, W) uint8


class Samples(WindowedSamples, Protocol):
    """A split in memory or mapped memory, such as a cached one."""

    def image(self, index: int) -> np.ndarray: ...  # (H, W, C) uint8


@dataclass(frozen=True)
class Crop:
    """A crop that is yet to be read, whole or by windows.

    Positions are the crop's own: its output begins at (0, 0), and so does its window, `halo` pixels further out.

    Attributes:
        reader: the pixels, and label: the class ids, each with where the crop lies in them:
        window_origin: of the crop's window in the reader.
        output_origin: of the crop's output in the label.
        output_shape: (height, width) of the output.
        halo: pixels of the window on each side of the output.
        is_flipped: whether left is right.
    """

    reader: ImageReader
    label: np.ndarray
    window_origin: tuple[int, int]
    output_origin: tuple[int, int]
    output_shape: tuple[int, int]
    halo: int
    is_flipped: bool

    def read(self, plan: TilePlan, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
        """Read a tile's window (h, w, C) uint8, and the labels of its output (h - 2 halo, w - 2 halo) uint8.

        Labels outside the tile are IGNORED: another tile counts them, or none does.
        """
        height, width = plan.window_shape
        row, col = tile.row + self.window_origin[0], tile.col
        if self.is_flipped:
            col = self.output_shape[1] + 2 * self.halo - tile.col - width
        window = read_window(self.reader, row, col + self.window_origin[1], height, width)
        labels = np.full((height - 2 * self.halo, width - 2 * self.halo), IGNORED, dtype=np.uint8)
        col = self.output_shape[1] - tile.col - tile.width if self.is_flipped else tile.col
        counted = _read_labels(
            self.label, self.output_origin[0] + tile.row, self.output_origin[1] + col, tile.height, tile.width
        )
        labels[: tile.height, : tile.width] = counted[:, ::-1] if self.is_flipped else counted
        return window[:, ::-1] if self.is_flipped else window, labels


@dataclass(frozen=True)
class CropReader:
    """Reads the crop of a draw: a pure function of (seed, draw).

    Attributes:
        samples: the training split.
        seed: the run's seed.
        window_side: side of the input window, px; None for whole images, each with its own shape.
        halo: pixels of the window on each side that the output leaves out.
        horizontal_flip: whether half of the crops are mirrored.
        augmentation: what else happens to a window and its labels.
    """

    samples: WindowedSamples
    seed: int
    window_side: int | None
    halo: int
    horizontal_flip: bool = True
    augmentation: Augmentation | None = None

    def output_shape(self, index: int) -> tuple[int, int]:
        """(height, width) of the output of a sample's crops."""
        if self.window_side is None:
            height, width = self.samples.label(index).shape
            return height, width
        side = self.window_side - 2 * self.halo
        return side, side

    def open(self, draw: Draw) -> Crop:
        """Place a crop; an augmented one is read here, as a transform may move pixels across the whole of it.

        The origin of the output is uniform over the image. Where the crop is larger than the image it covers it, and the
        labels beyond the image are IGNORED.
        """
        image, label = self.samples.image(draw.index), self.samples.label(draw.index)
        reader = ArrayReader(image) if isinstance(image, np.ndarray) else image
        random = crop_generator(self.seed, draw.position)
        shape, halo = self.output_shape(draw.index), self.halo
        row, col = (
            int(random.integers(crop_origin_range(size, side))) for size, side in zip(label.shape, shape, strict=True)
        )
        is_flipped = bool(random.integers(2)) and self.horizontal_flip
        crop = Crop(reader, label, (row - halo, col - halo), (row, col), shape, halo, is_flipped)
        if self.augmentation is None:
            return crop
        height, width = (side + 2 * halo for side in shape)
        window = read_window(reader, row - halo, col - halo, height, width)
        labels = _read_labels(label, row - halo, col - halo, height, width)  # a geometric transform moves them inwards
        window, labels = self.augmentation(window, labels, seed=int(random.integers(2**32)))
        return replace(crop, reader=ArrayReader(window), label=labels, window_origin=(0, 0), output_origin=(halo, halo))

    def read(self, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        """Read a crop undivided: its window (h, w, C) uint8 and its labels (h - 2 halo, w - 2 halo) uint8."""
        crop = self.open(draw)
        shape = crop.output_shape
        window_shape = shape[0] + 2 * self.halo, shape[1] + 2 * self.halo
        return crop.read(TilePlan(shape, window_shape, step=shape, grid=(1, 1), halo=self.halo), Tile(0, 0, *shape))


def _read_labels(label: np.ndarray, row: int, col: int, height: int, width: int) -> np.ndarray:
    """Cut (height, width) labels at (row, col); what lies beyond the image is IGNORED."""
    labels = np.full((height, width), IGNORED, dtype=np.uint8)
    top, bottom = max(row, 0), min(row + height, label.shape[0])
    left, right = max(col, 0), min(col + width, label.shape[1])
    if top < bottom and left < right:
        labels[top - row : bottom - row, left - col : right - col] = label[top:bottom, left:right]
    return labels


@dataclass(frozen=True)
class WindowBatch:
    """Windows of one shape that are computed at once: whole crops, or tiles of them.

    Attributes:
        windows: (n, h, w, C) uint8.
        labels: (n, h', w') uint8, IGNORED where a pixel counts nowhere or in another window.
        keys: (n, 3) int64: the sample's position in the run, and the window's row and column in it, in strides.
        ids: the samples' ids, one a window.
    """

    windows: Tensor
    labels: Tensor
    keys: Tensor
    ids: list[str]

    def pin_memory(self) -> WindowBatch:
        """The same in page-locked memory, from which a copy to a GPU does not wait."""
        return WindowBatch(self.windows.pin_memory(), self.labels.pin_memory(), self.keys.pin_memory(), self.ids)


@dataclass(frozen=True)
class StepShare:
    """One rank's part of one step, in micro-batches: one at least.

    Attributes:
        step: the step.
        batches: what is computed, one after the other.
    """

    step: int
    batches: list[WindowBatch]

    @property
    def ids(self) -> list[str]:
        """The sample of each window."""
        return [name for batch in self.batches for name in batch.ids]

    def pin_memory(self) -> StepShare:
        """The same in page-locked memory. Called by torch's DataLoader."""
        return StepShare(self.step, [batch.pin_memory() for batch in self.batches])


class RunShares(Dataset[StepShare]):
    """The whole run as one rank sees it: item t is its share of step t.

    Args:
        planner: cuts each crop into tiles.
        micro_batch_size: windows of one shape that are computed at once, at most.
        splits_samples: share out the tiles of the batch over the ranks, balanced on their pixels, instead of whole crops.
    """

    def __init__(
        self,
        crops: CropReader,
        *,
        planner: CropPlanner,
        batch_size: int,
        micro_batch_size: int,
        rank: int,
        world_size: int,
        splits_samples: bool = False,
    ) -> None:
        self.crops = crops
        self.planner = planner
        self._batch_size = batch_size
        self._micro_batch_size = micro_batch_size
        self._rank = rank
        self._world_size = world_size
        self._splits_samples = splits_samples

    def __getitem__(self, step: int) -> StepShare:
        draws = draw_batch(self.crops.seed, step, self._batch_size, len(self.crops.samples))
        if not self._splits_samples:
            draws = share_of_rank(draws, self._rank, self._world_size, self._micro_batch_size)
        plans = [self.planner.plan(self.crops.output_shape(draw.index)) for draw in draws]
        # Split samples keep their tiles together, so that a rank reads one region of an image.
        refs: Sequence[TileRef] = order_tiles(plans, 1 if self._splits_samples else self._micro_batch_size)
        if self._splits_samples:
            refs = share_tiles(refs, plans, self._rank, self._world_size)
        open_crop = functools.cache(lambda crop: self.crops.open(draws[crop]))
        batches = [
            self._read(batch, draws, plans, open_crop) for batch in batch_tiles(refs, plans, self._micro_batch_size)
        ]
        return StepShare(step, batches or [self.blank()])

    def blank(self) -> WindowBatch:
        """A window that counts nowhere: its gradient is zero. A rank without tiles takes part in the sum with it."""
        side = self.planner.smallest_side
        output = side - 2 * self.planner.halo
        channels = self.crops.samples.image(0).shape[2]
        return WindowBatch(
            torch.zeros(1, side, side, channels, dtype=torch.uint8),
            torch.full((1, output, output), IGNORED, dtype=torch.uint8),
            torch.zeros(1, 3, dtype=torch.int64),
            ["no sample"],
        )

    def _read(
        self, refs: list[TileRef], draws: Sequence[Draw], plans: Sequence[TilePlan], open_crop: Callable[[int], Crop]
    ) -> WindowBatch:
        stride = self.planner.sizes.stride
        pairs, keys = [], []
        for ref in refs:
            tile = plans[ref.crop][ref.tile]
            pairs.append(open_crop(ref.crop).read(plans[ref.crop], tile))
            keys.append((draws[ref.crop].position, tile.row // stride, tile.col // stride))
        return WindowBatch(
            windows=torch.from_numpy(np.stack([window for window, _ in pairs])),
            labels=torch.from_numpy(np.stack([labels for _, labels in pairs])),
            keys=torch.tensor(keys, dtype=torch.int64),
            ids=[self.crops.samples.ids[draws[ref.crop].index] for ref in refs],
        )


def read_ahead(
    shares: RunShares, steps: range, *, num_workers: int, pin_memory: bool
) -> Generator[StepShare, None, None]:
    """Yield the shares of steps in order, read while the device computes: by worker processes, or by a thread for 0.

    To be closed by whoever does not read to the end.
    """
    if num_workers:
        loader = DataLoader(
            shares,
            batch_size=None,
            sampler=steps,
            num_workers=num_workers,
            pin_memory=pin_memory,
            worker_init_fn=_ignore_signals,
        )
        batches = iter(loader)
        try:
            yield from batches
        finally:
            # An error holds the iterator in its traceback, and at exit Python ends its children by the signal that these
            # ignore, and waits: the process would hang. torch has no public name for this.
            batches._shutdown_workers()  # type: ignore[attr-defined]
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
