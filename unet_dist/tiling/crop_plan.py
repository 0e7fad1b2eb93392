"""The tiles of training crops: which windows make up the loss of a batch, and which process computes them.

Integers only, as in geometry.py. A plan lies over a crop's *output*: (0, 0) is the output's upper left corner, where the
grid of the undivided pass begins. So a tile's window begins at the tile's own (row, col) in the crop's window, and the
loss of the crop is the sum over its tiles, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from unet_dist.errors import LocalityError, SizeError
from unet_dist.tiling.geometry import (
    Locality,
    TilePlan,
    WindowSizes,
    aligned_halo,
    plan_tiles,
)


class Separable(Protocol):
    """What a network states that decides whether its samples can be taken apart."""

    @property
    def window_sizes(self) -> WindowSizes:
        """The input sides that the network takes."""

    @property
    def locality(self) -> Locality | None:
        """How far a pixel sees and where the grid repeats; None without a finite halo."""

    @property
    def locality_obstacle(self) -> str | None:
        """The layer that prevents exact tiles, if one does."""

    @property
    def couples_batch(self) -> str | None:
        """The layer that couples the samples of a batch, if one does."""


def require_separable(network: Separable, setting: str, *, by_pixels: bool) -> None:
    """Refuse to cut a sample or a batch where that would change the gradient.

    Args:
        network: the network.
        setting: what the user set, such as "tile_size 572 below input_size 1100".
        by_pixels: whether a sample is cut into tiles, not only a batch into samples.

    Raises:
        LocalityError: a layer couples what would be cut; names it.
    """
    obstacle = network.couples_batch or (network.locality_obstacle if by_pixels else None)
    if obstacle is not None:
        raise LocalityError(
            f"Got {setting}, with a network that couples what this takes apart: {obstacle}. Expected a network whose gradient "
            "is a sum over windows. Set --norm weight or none, or take the setting back."
        )


class TileRef(NamedTuple):
    """One tile of a batch: the crop by its index in the batch, the tile by its index in the crop's plan."""

    crop: int
    tile: int


@dataclass(frozen=True)
class CropPlanner:
    """Cuts the output of a crop into tiles; into one where it fits or no tile size is set.

    Attributes:
        sizes: the sides that the network takes.
        locality: its halo and stride, None where it has no finite halo.
        halo: pixels of a window on each side that the training output leaves out.
        tile_size: largest side of a window, px; None leaves every crop undivided.
    """

    sizes: WindowSizes
    locality: Locality | None
    halo: int
    tile_size: int | None = None

    @classmethod
    def of(
        cls,
        network: Separable,
        *,
        side: int | None,
        tile_size: int | None = None,
        splits_samples: bool = False,
        context_px: int | None = None,
    ) -> CropPlanner:
        """Ask a network how its training crops are cut into tiles; the only place that refuses what cannot be cut.

        Args:
            side: of the crop's window, px; None for whole images.
            tile_size: largest side of a window, px, as the user said it.
            splits_samples: whether the tiles of one sample are shared out over processes.
            context_px: pixels of a window on each side of its output, as the user said it; None means the halo.

        Raises:
            SizeError: the network does not take windows of tile_size, or needs more context, for its margin or for tiles.
            LocalityError: tiles or split samples would change the gradient of this network; names the layer.
        """
        sizes, locality = network.window_sizes, network.locality
        if tile_size is not None:
            sizes.require(tile_size, "tile_size")
        halo = sizes.margin if locality is None else aligned_halo(sizes, locality)
        if context_px is not None and context_px < sizes.margin:
            raise SizeError(
                f"context_px: got {context_px}, expected {sizes.margin} or more: convolutions without padding take that many "
                "pixels off each side. Set --padding same, or remove context_px."
            )
        planner = cls(sizes, locality, halo if context_px is None else context_px, tile_size)
        if planner.cuts(side) and planner.halo != halo:
            raise SizeError(
                f"context_px: got {context_px} together with tiles, whose gradients add up to that of the crop where each has its "
                f"halo of {halo} px only. Remove context_px, or tile_size."
            )
        if planner.cuts(side):
            require_separable(network, f"tile_size {tile_size} below input_size {side or 'full'}", by_pixels=True)
            smallest = planner.smallest_side
            if tile_size is not None and tile_size < smallest:
                raise SizeError(
                    f"tile_size: got {tile_size}, expected {smallest} or more for this network. Set --tile_size {smallest}."
                )
        if splits_samples:
            require_separable(network, "split_sample true", by_pixels=False)
        if side is None:
            require_separable(network, "input_size full", by_pixels=False)
        return planner

    def cuts(self, side: int | None) -> bool:
        """Whether a crop of a side, None for whole images, may become several tiles."""
        return self.tile_size is not None and (side is None or self.tile_size < side)

    def plan(self, output_shape: tuple[int, int]) -> TilePlan:
        """Plan the tiles of an output (height, width).

        Raises:
            SizeError: the network does not take windows of tile_size.
        """
        height, width = (self.sizes.round_up(side + 2 * self.halo) for side in output_shape)
        if self.tile_size is None or max(height, width) <= self.tile_size:
            return TilePlan(output_shape, window_shape=(height, width), step=output_shape, grid=(1, 1), halo=self.halo)
        assert self.locality is not None, "tiles of a network without a finite halo"
        return plan_tiles(output_shape, self.tile_size, self.sizes, self.locality)

    def recompute(self, output_shape: tuple[int, int]) -> float:
        """Window pixels that the tiles compute for each one of the undivided pass."""
        plan, undivided = self.plan(output_shape), CropPlanner(self.sizes, self.locality, self.halo).plan(output_shape)
        return len(plan) * _work(plan) / _work(undivided)

    @property
    def smallest_side(self) -> int:
        """The smallest window with an output."""
        stride = 1 if self.locality is None else self.locality.stride
        return self.sizes.round_up(2 * self.halo + stride)


def order_tiles(plans: Sequence[TilePlan], crops_at_once: int) -> list[TileRef]:
    """List all tiles of crops, so that those next to each other can be computed at once.

    Of every `crops_at_once` crops first the first tile of each, then the second of each: crops of one size thus keep
    their micro-batches.
    """
    refs = []
    for start in range(0, len(plans), crops_at_once):
        crops = range(start, min(start + crops_at_once, len(plans)))
        most = max(len(plans[crop]) for crop in crops)
        refs += [TileRef(crop, tile) for tile in range(most) for crop in crops if tile < len(plans[crop])]
    return refs


def share_tiles(refs: Sequence[TileRef], plans: Sequence[TilePlan], rank: int, world_size: int) -> Sequence[TileRef]:
    """Give a rank its consecutive part of the tiles, balanced on the pixels of their windows.

    A tile belongs to the rank in whose share of the work its middle lies. For windows of one shape the ranks' numbers of
    tiles differ by at most one.
    """
    assert 0 <= rank < world_size, (rank, world_size)
    total = sum(_work(plans[ref.crop]) for ref in refs)
    mine, done = [], 0
    for ref in refs:
        work = _work(plans[ref.crop])
        if (2 * done + work) * world_size // (2 * total) == rank:  # 0 <= middle / total < 1, in integers
            mine.append(ref)
        done += work
    return mine


def batch_tiles(refs: Sequence[TileRef], plans: Sequence[TilePlan], micro_batch_size: int) -> list[list[TileRef]]:
    """Cut tiles, in their order, into micro-batches of windows of one shape."""
    batches: list[list[TileRef]] = []
    for ref in refs:
        last = batches[-1] if batches else []
        fits = 0 < len(last) < micro_batch_size
        if fits and plans[last[0].crop].window_shape == plans[ref.crop].window_shape:
            last.append(ref)
        else:
            batches.append([ref])
    return batches


def _work(plan: TilePlan) -> int:
    return plan.window_shape[0] * plan.window_shape[1]
