"""A rank's share of a step: which windows it computes, micro-batch by micro-batch, and what their labels count.

Owns the cut of the global batch into this rank's windows, and when their pixels are in memory: all at once where they are few,
else one micro-batch after the other. So memory grows neither with the crop nor with the image.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from unet_dist.data.batches.colour import Colours
from unet_dist.data.batches.crops import Crop, CropReader
from unet_dist.data.batches.geometry import Sources, read_sources
from unet_dist.data.batches.label_counts import LabelCounts, count_labels, no_labels
from unet_dist.data.batches.mixing import Mixing
from unet_dist.data.batches.sampler import Draw, draw_batch, share_of_rank
from unet_dist.data.batches.texture import Textures
from unet_dist.data.batches.windows import Pasted, WindowBatch
from unet_dist.data.decoded.labels import ignored_in
from unet_dist.tiling.crop_plan import CropPlanner, TileRef, batch_tiles, order_tiles, share_tiles
from unet_dist.tiling.geometry import Tile, TilePlan

KEPT_PX = 2**23
"""Pixels of windows that a share of several micro-batches holds at once; 32 MiB of RGB and labels. 25 crops of 572 px are fewer."""


def is_held_at_once(num_batches: int, pixels: int, *, is_augmented: bool, kept_px: int = KEPT_PX) -> bool:
    """Whether all windows of a share are in memory together; else its micro-batches are read one after the other.

    Args:
        num_batches: micro-batches of the share.
        pixels: of all its windows.
        is_augmented: an augmentation needs the whole crop, and is made once.
    """
    return num_batches < 2 or pixels <= kept_px or is_augmented


class WindowPlace(NamedTuple):
    """One window of a step: a tile, by its index in the plan of the crop of a draw."""

    draw: Draw
    plan: TilePlan
    number: int

    @property
    def tile(self) -> Tile:
        """The piece of the output that the window computes."""
        return self.plan[self.number]


class Divisible(Protocol):
    """A loss that is divided by something of the labels."""

    def divisor(self, counts: LabelCounts) -> Tensor:
        """The number to divide a sum of losses by."""


@dataclass(frozen=True)
class SharePlan:
    """Which windows a share is made of; no pixel of them.

    Attributes:
        step: the step.
        batches: the windows of each micro-batch; none where the rank has no tile to compute.
        is_kept: whether its pixels are held all at once.
    """

    step: int
    batches: list[list[WindowPlace]]
    is_kept: bool


@dataclass(frozen=True)
class StepShare:
    """One rank's part of one step, in micro-batches: one at least.

    Attributes:
        step: the step.
        batches: the windows to compute, one after the other. Of a share that is not kept each is read when it is asked for.
        counts: of all labels.
    """

    step: int
    batches: Sequence[WindowBatch]
    counts: LabelCounts

    @property
    def ids(self) -> list[str]:
        """The sample of each window."""
        return [name for batch in self.batches for name in batch.ids]

    def divisor(self, loss: Divisible) -> Tensor:
        """What the share adds to the divisor of a loss: float64, one number per term."""
        return loss.divisor(self.counts)

    def pin_memory(self) -> StepShare:
        """The same in page-locked memory. Called by torch's DataLoader, on shares that are kept."""
        return StepShare(self.step, [batch.pin_memory() for batch in self.batches], self.counts)


class UnreadBatches(Sequence[WindowBatch]):
    """The micro-batches of a share, each read when it is asked for, and held by nobody."""

    def __init__(self, shares: RunShares, places: Sequence[Sequence[WindowPlace]]) -> None:
        self._shares, self._places = shares, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return UnreadBatches(self._shares, self._places[index])
        return self._shares.read_batch(self._places[index])


class RunShares:
    """The whole run as one rank sees it: item t is its share of step t.

    Args:
        planner: cuts each crop into tiles.
        micro_batch_size: windows of one shape that are computed at once, at most.
        splits_samples: share out the tiles of the batch over the ranks, balanced on their pixels, instead of whole crops.
        kept_px: pixels of windows up to which a share of several micro-batches is held at once. A share of augmented crops
            always is: an augmentation needs the whole crop, and is made once.
        mixing: how many crops show parts of another sample; None: none does.
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
        kept_px: int = KEPT_PX,
        mixing: Mixing | None = None,
    ) -> None:
        self.crops = crops
        self.mixing = mixing
        self.planner = planner
        self._batch_size = batch_size
        self._micro_batch_size = micro_batch_size
        self._rank = rank
        self._world_size = world_size
        self._splits_samples = splits_samples
        self._kept_px = kept_px

    def __getitem__(self, step: int) -> StepShare:
        return self.read(self.plan(step))

    def plan(self, step: int) -> SharePlan:
        """Plan the share of a step: integers only."""
        draws = draw_batch(self.crops.seed, step, self._batch_size, len(self.crops.samples), self.crops.balance)
        if not self._splits_samples:
            draws = share_of_rank(draws, self._rank, self._world_size, self._micro_batch_size)
        plans = [self.planner.plan(self.crops.output_shape(draw.index)) for draw in draws]
        # Split samples keep their tiles together, so that a rank reads one region of an image.
        refs: Sequence[TileRef] = order_tiles(plans, 1 if self._splits_samples else self._micro_batch_size)
        if self._splits_samples:
            refs = share_tiles(refs, plans, self._rank, self._world_size)
        batches = [
            [WindowPlace(draws[ref.crop], plans[ref.crop], ref.tile) for ref in batch]
            for batch in batch_tiles(refs, plans, self._micro_batch_size)
        ]
        pixels = sum(len(batch) * math.prod(batch[0].plan.window_shape) for batch in batches)
        is_augmented = self.crops.augmentation is not None
        pixels *= 1 if self.mixing is None else 2
        is_kept = is_held_at_once(len(batches), pixels, is_augmented=is_augmented, kept_px=self._kept_px)
        return SharePlan(step, batches, is_kept)

    def read(self, plan: SharePlan, *, pin_memory: bool = False) -> StepShare:
        """Read a share; of one that is not kept the labels are counted, and nothing is held.

        Args:
            pin_memory: read straight into page-locked memory, from which a copy to a GPU does not wait.
        """
        if not plan.is_kept:
            return StepShare(
                plan.step, UnreadBatches(self, plan.batches), sum(map(self.count, plan.batches), no_labels())
            )
        open_crop = functools.cache(self.crops.open)
        batches = [self.read_batch(places, open_crop, pin_memory=pin_memory) for places in plan.batches]
        batches = batches or [self.blank()]
        return StepShare(plan.step, batches, sum((count_labels(b.labels, b.borders) for b in batches), no_labels()))

    def count(self, places: Sequence[WindowPlace]) -> LabelCounts:
        """Count the labels of a micro-batch; no image is read."""
        at, others, crops, masks = self._covers(places, self.crops.open)
        labels, borders = self._read_labels(places, [self.crops.open(place.draw) for place in places])
        if at:
            self._paste_labels(labels, borders, at, masks, *self._read_labels(others, crops))
        return count_labels(labels, borders)

    def read_batch(
        self,
        places: Sequence[WindowPlace],
        open_crop: Callable[[Draw], Crop] | None = None,
        *,
        pin_memory: bool = False,
    ) -> WindowBatch:
        """Read a micro-batch.

        Args:
            places: windows of one shape.
            open_crop: the crops' open, or one that remembers.
            pin_memory: as in read.
        """
        open_crop = open_crop or self.crops.open
        batch = self._read_alone(places, [open_crop(place.draw) for place in places], pin_memory=pin_memory)
        at, others, crops, masks = self._covers(places, open_crop)
        if at:
            pasted = Pasted(
                self._read_alone(others, crops, pin_memory=pin_memory), torch.tensor(at), torch.from_numpy(masks)
            )
            self._paste_labels(batch.labels, batch.borders, at, masks, pasted.batch.labels, pasted.batch.borders)
            batch = replace(batch, pasted=pasted)
        return batch.pin_memory() if pin_memory else batch

    def _covers(
        self, places: Sequence[WindowPlace], open_crop: Callable[[Draw], Crop]
    ) -> tuple[list[int], list[WindowPlace], list[Crop], np.ndarray]:
        """Which windows other crops cover, with which of their windows, and where: (m, h, w) bool."""
        mixing, shape = self.mixing, places[0].plan.window_shape
        at, others, crops, masks = [], [], [], []
        for number, place in enumerate(places if mixing is not None else ()):
            assert mixing is not None
            cover = mixing.draw(self.crops.seed, place.draw.position, len(self.crops.samples))
            if cover is not None:
                at.append(number)
                others.append(place._replace(draw=cover.draw))
                crops.append(open_crop(cover.draw))
                masks.append(cover.mask(crops[-1], place.tile, shape))
        return at, others, crops, np.stack(masks) if masks else np.zeros((0, *shape), dtype=bool)

    def _paste_labels(
        self,
        labels: Tensor,
        borders: Tensor | None,
        at: list[int],
        masks: np.ndarray,
        other_labels: Tensor,
        other_borders: Tensor | None,
    ) -> None:
        """Let other crops' labels, and border weights, cover those of windows, where masks are True."""
        trim = (masks.shape[1] - labels.shape[1]) // 2
        inner = masks[:, trim : trim + labels.shape[1], trim : trim + labels.shape[2]]
        for plane, other in ((labels, other_labels), (borders, other_borders)):
            if plane is not None and other is not None:
                for number, mask, cover in zip(at, inner, other.numpy(), strict=True):
                    np.copyto(plane[number].numpy(), cover, where=mask)

    def _read_alone(self, places: Sequence[WindowPlace], crops: Sequence[Crop], *, pin_memory: bool) -> WindowBatch:
        """Read windows that no other crop covers."""
        stride, ids = self.planner.sizes.stride, self.crops.samples.ids
        windows, sources, colours, textures = self._read_windows(places, crops, pin_memory=pin_memory)
        labels, borders = self._read_labels(places, crops, pin_memory=pin_memory)
        keys = [(place.draw.position, place.tile.row // stride, place.tile.col // stride) for place in places]
        return WindowBatch(
            windows=windows,
            labels=labels,
            keys=torch.tensor(keys, dtype=torch.int64),
            ids=[ids[place.draw.index] for place in places],
            borders=borders,
            colours=colours,
            sources=sources,
            textures=textures,
        )

    def _read_windows(
        self, places: Sequence[WindowPlace], crops: Sequence[Crop], *, pin_memory: bool
    ) -> tuple[Tensor, Sources | None, Colours | None, Textures | None]:
        """Windows, or what the device looks them up in, and what it then does to them."""
        shape, recipe = places[0].plan.window_shape, self.crops.recipe
        colours = textures = None
        if recipe is not None:
            keys = [(place.draw.position, place.tile.row, place.tile.col) for place in places]
            colours, textures = recipe.draw(self.crops.seed, keys, [crop.reader for crop in crops])
        if recipe is None or recipe.geometry is None:
            reader = crops[0].reader
            kind = getattr(torch, reader.dtype.name)
            windows = torch.empty(len(places), *shape, reader.shape[2], dtype=kind, pin_memory=pin_memory)
            for window, place, crop in zip(windows, places, crops, strict=True):
                crop.read_window(window.numpy(), place.tile)
            return windows, None, colours, None
        margin = 0 if textures is None else textures.margin
        pixels, sources = read_sources(
            [crop.reader for crop in crops],
            [crop.places(place.tile, *shape, margin=margin) for place, crop in zip(places, crops, strict=True)],
        )
        return pixels, sources, colours, textures

    def _read_labels(
        self, places: Sequence[WindowPlace], crops: Sequence[Crop], *, pin_memory: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        plan = places[0].plan
        shape = len(places), *(side - 2 * plan.halo for side in plan.window_shape)
        labels = torch.empty(shape, dtype=getattr(torch, crops[0].label.dtype.name), pin_memory=pin_memory)
        borders = None
        if crops[0].border is not None:
            borders = torch.empty(shape, dtype=torch.float32, pin_memory=pin_memory)
        for at, (place, crop) in enumerate(zip(places, crops, strict=True)):
            crop.read_labels(labels[at].numpy(), None if borders is None else borders[at].numpy(), place.tile)
        return labels, borders

    def blank(self) -> WindowBatch:
        """A window that counts nowhere: its gradient is zero. A rank without tiles takes part in the sum with it."""
        side = self.planner.smallest_side
        output = side - 2 * self.planner.halo
        image, labels = self.crops.samples.image(0), self.crops.samples.label(0).dtype
        channels, kind = image.shape[2], getattr(torch, image.dtype.name)
        return WindowBatch(
            torch.zeros(1, side, side, channels, dtype=kind),
            torch.full((1, output, output), ignored_in(labels), dtype=getattr(torch, labels.name)),
            torch.zeros(1, 3, dtype=torch.int64),
            ["no sample"],
        )
