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

from unet_dist.data.labels import IGNORED, Label
from unet_dist.data.sampler import Draw, crop_generator, draw_batch, share_of_rank
from unet_dist.imaging.reader import ArrayReader, ImageReader, read_window, read_window_into
from unet_dist.tiling.crop_plan import CropPlanner, TileRef, batch_tiles, order_tiles, share_tiles
from unet_dist.tiling.geometry import Tile, TilePlan, crop_origin_range

if TYPE_CHECKING:
    from unet_dist.data.augment import Augmentation
    from unet_dist.data.borders import BorderWeights


class WindowedSamples(Protocol):
    """A split whose images are read by windows and whose labels by slices: files of any size need no decoded copy."""

    @property
    def ids(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray | ImageReader: ...  # (H, W, C) uint8

    def label(self, index: int) -> Label: ...  # (H, W) uint8


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
        border: what pixels weigh beyond their class (H, W), placed as the label; None where nothing was said.
    """

    reader: ImageReader
    label: Label
    window_origin: tuple[int, int]
    output_origin: tuple[int, int]
    output_shape: tuple[int, int]
    halo: int
    is_flipped: bool
    border: np.ndarray | None = None

    def read_into(
        self, window: np.ndarray, labels: np.ndarray, border: np.ndarray | None, plan: TilePlan, tile: Tile
    ) -> None:
        """Read a tile: its window, the labels of its output and, where there are any, their border weights.

        Labels outside the tile are IGNORED: another tile counts them, or none does.

        Args:
            window: (h, w, C) uint8, written to, as the others are.
            labels: (h - 2 halo, w - 2 halo) uint8.
            border: of the labels' shape, float32; 0 where a label is IGNORED for another tile.
        """
        width = window.shape[1]
        row, col = tile.row + self.window_origin[0], tile.col
        if self.is_flipped:
            col = self.output_shape[1] + 2 * self.halo - tile.col - width
        read_window_into(window, self.reader, row, col + self.window_origin[1], is_flipped=self.is_flipped)
        col = self.output_shape[1] - tile.col - tile.width if self.is_flipped else tile.col
        origin = self.output_origin[0] + tile.row, self.output_origin[1] + col

        def cut(target: np.ndarray, plane: Label, beyond: int) -> None:
            target[tile.height :] = beyond
            target[: tile.height, tile.width :] = beyond
            counted = target[: tile.height, : tile.width]
            _read_plane(counted[:, ::-1] if self.is_flipped else counted, plane, *origin, beyond=beyond)

        cut(labels, self.label, IGNORED)
        if border is not None and self.border is not None:
            cut(border, self.border, 0)


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
        borders: what pixels between objects weigh beyond their class.
    """

    samples: WindowedSamples
    seed: int
    window_side: int | None
    halo: int
    horizontal_flip: bool = True
    augmentation: Augmentation | None = None
    borders: BorderWeights | None = None

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
        border = None if self.borders is None else self.borders.of(draw.index, label)
        crop = Crop(reader, label, (row - halo, col - halo), (row, col), shape, halo, is_flipped, border)
        if self.augmentation is None:
            return crop
        height, width = (side + 2 * halo for side in shape)
        window = read_window(reader, row - halo, col - halo, height, width)
        # A geometric transform moves labels inwards, so those of the halo are read too.
        planes = [np.empty((height, width), dtype=np.uint8)]
        _read_plane(planes[0], label, row - halo, col - halo, beyond=IGNORED)
        if border is not None:
            planes.append(np.empty((height, width), dtype=np.float32))
            _read_plane(planes[1], border, row - halo, col - halo, beyond=0)
        window, labels, *moved = self.augmentation(window, *planes, seed=int(random.integers(2**32)))
        return replace(
            crop,
            reader=ArrayReader(window),
            label=labels,
            window_origin=(0, 0),
            output_origin=(halo, halo),
            border=moved[0] if moved else None,
        )

    def read(self, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        """Read a crop undivided: its window (h, w, C) uint8 and its labels (h - 2 halo, w - 2 halo) uint8."""
        crop = self.open(draw)
        shape = crop.output_shape
        window_shape = shape[0] + 2 * self.halo, shape[1] + 2 * self.halo
        plan = TilePlan(shape, window_shape, step=shape, grid=(1, 1), halo=self.halo)
        window = np.empty((*window_shape, crop.reader.shape[2]), dtype=np.uint8)
        labels = np.empty(shape, dtype=np.uint8)
        crop.read_into(window, labels, None, plan, Tile(0, 0, *shape))
        return window, labels


def _read_plane(values: np.ndarray, plane: Label, row: int, col: int, *, beyond: int) -> None:
    """Fill (height, width) values with what lies at (row, col) of a plane such as labels; what lies beyond it gets a value."""
    height, width = values.shape
    top, bottom = max(row, 0), min(row + height, plane.shape[0])
    left, right = max(col, 0), min(col + width, plane.shape[1])
    if (bottom - top, right - left) != (height, width):
        values[:] = beyond
    if top < bottom and left < right:
        values[top - row : bottom - row, left - col : right - col] = plane[top:bottom, left:right]


@dataclass(frozen=True)
class WindowBatch:
    """Windows of one shape that are computed at once: whole crops, or tiles of them.

    Attributes:
        windows: (n, h, w, C) uint8.
        labels: (n, h', w') uint8, IGNORED where a pixel counts nowhere or in another window.
        keys: (n, 3) int64: the sample's position in the run, and the window's row and column in it, in strides.
        ids: the samples' ids, one a window.
        borders: (n, h', w') float32, what a pixel weighs beyond its class; None where nothing was said.
    """

    windows: Tensor
    labels: Tensor
    keys: Tensor
    ids: list[str]
    borders: Tensor | None = None

    def pin_memory(self) -> WindowBatch:
        """The same in page-locked memory, from which a copy to a GPU does not wait; itself where it lies there."""
        if self.windows.is_pinned():
            return self
        borders = None if self.borders is None else self.borders.pin_memory()
        return WindowBatch(
            self.windows.pin_memory(), self.labels.pin_memory(), self.keys.pin_memory(), self.ids, borders
        )


class Divisible(Protocol):
    """A loss that is divided by something of the labels."""

    def divisor(self, labels: Tensor, borders: Tensor | None) -> Tensor: ...


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

    def divisor(self, loss: Divisible) -> Tensor:
        """What the share adds to the divisor of a loss: float64, one number a term."""
        return torch.stack([loss.divisor(batch.labels, batch.borders) for batch in self.batches]).sum(0)

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
        return self.read(step)

    def read(self, step: int, *, pin_memory: bool = False) -> StepShare:
        """Read the share of a step.

        Args:
            pin_memory: read straight into page-locked memory, from which a copy to a GPU does not wait.
        """
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
            self._read(batch, draws, plans, open_crop, pin_memory)
            for batch in batch_tiles(refs, plans, self._micro_batch_size)
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
        self,
        refs: list[TileRef],
        draws: Sequence[Draw],
        plans: Sequence[TilePlan],
        open_crop: Callable[[int], Crop],
        pin_memory: bool,
    ) -> WindowBatch:
        stride, ids = self.planner.sizes.stride, self.crops.samples.ids
        crops = [open_crop(ref.crop) for ref in refs]
        plan = plans[refs[0].crop]  # windows of a batch have one shape
        height, width = plan.window_shape
        new = functools.partial(torch.empty, pin_memory=pin_memory)
        windows = new(len(refs), height, width, crops[0].reader.shape[2], dtype=torch.uint8)
        outputs = len(refs), height - 2 * plan.halo, width - 2 * plan.halo
        labels = new(outputs, dtype=torch.uint8)
        borders = None if crops[0].border is None else new(outputs, dtype=torch.float32)
        keys = []
        for at, (ref, crop) in enumerate(zip(refs, crops, strict=True)):
            tile = plans[ref.crop][ref.tile]
            border = None if borders is None else borders[at].numpy()
            crop.read_into(windows[at].numpy(), labels[at].numpy(), border, plans[ref.crop], tile)
            keys.append((draws[ref.crop].position, tile.row // stride, tile.col // stride))
        return WindowBatch(
            windows=windows,
            labels=labels,
            keys=torch.tensor(keys, dtype=torch.int64, pin_memory=pin_memory),
            ids=[ids[draws[ref.crop].index] for ref in refs],
            borders=borders,
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

    read = functools.partial(shares.read, pin_memory=pin_memory)
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
