"""Blended tiles, for networks without a finite halo: overlapping windows whose probabilities are averaged.

Owns where the windows lie and how much each counts. The values depend on the tile size: this is never called exact. They
do not depend on the number of processes: every window and every sum is the same whoever computes it.

The outputs of windows lie half a side apart, so that four of them share a pixel, weighed by a Gaussian around the middle
of each (sigma an eighth of the side). Source: Isensee et al. 2021 (nnU-Net), sliding-window prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from unet_dist.errors import ConfigError, SizeError
from unet_dist.imaging.reader import ImageReader, read_window
from unet_dist.machine.memory import is_out_of_memory
from unet_dist.models.answers import answers_of
from unet_dist.models.contract import Network
from unet_dist.prediction.tiles import BLENDED, Piece, Pixels, Values, views_of
from unet_dist.prediction.values import Recipe, values_of
from unet_dist.tiling.geometry import Tile, TilePlan
from unet_dist.tiling.windows import window_logits

_CELLS = 4
"""Cells (half windows) along a side of a tile: 25 windows for 16 cells, where single cells would take 64."""


@dataclass(frozen=True)
class _Grid:
    """Window side, and distance of windows (the side of a cell), px."""

    window: int
    step: int

    @classmethod
    def of(cls, plan: TilePlan) -> _Grid:
        """The grid that a plan was made of."""
        return cls(plan.window_shape[0] // (_CELLS + 1), plan.step[0] // _CELLS)


class BlendedTiles:
    """Tiles of any network: of 4 x 4 cells, each a batch of windows by itself.

    Memory: the probabilities of one tile, 2 x 2 windows large, and a batch of windows.

    Args:
        model: in evaluation mode, on its device.
        window_batch: windows computed at once.
        say: prints that memory ran out and with which windows the work continues.

    Raises:
        ConfigError: the recipe leaves out background, which takes a finite halo to tell.
    """

    name = BLENDED
    pieces_at_once = 1

    def __init__(
        self,
        model: Network,
        recipe: Recipe = Recipe(),  # noqa: B008, it is frozen
        *,
        window_batch: int = 1,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        if recipe.skip_background:
            raise ConfigError(
                "skip_background: got true with blend, expected false, as without a halo every pixel sees all of its window. "
                "Remove one of them."
            )
        self.model = model
        self.recipe = recipe
        self._window_batch = window_batch
        self._say = say

    def plan(self, image_shape: tuple[int, int], tile_size: int) -> TilePlan:
        """Plan an image's tiles.

        Raises:
            SizeError: the network does not take the tile size, or its output is a single pixel.
        """
        sizes = self.model.window_sizes
        output = sizes.output(sizes.require(tile_size, "tile_size"))
        if output < 2:
            raise SizeError(
                f"tile_size: got {tile_size}, whose output is {output} px, expected 2 px. Use a larger one."
            )
        step = max(output // 2 // sizes.stride * sizes.stride, 1) if output >= 2 * sizes.stride else output // 2
        side = _CELLS * step
        grid = (-(-image_shape[0] // side), -(-image_shape[1] // side))
        windows = (_CELLS + 1) * tile_size
        return TilePlan(image_shape, (windows, windows), (side, side), grid, sizes.margin)

    def read(self, image: int, reader: ImageReader, plan: TilePlan, tile: Tile) -> Piece:
        """Read all windows of a tile in one piece: they overlap."""
        grid = _Grid.of(plan)
        height, width = (_num_cells(size, grid.step) * grid.step + grid.window for size in (tile.height, tile.width))
        row, col = (origin - grid.step - plan.halo for origin in (tile.row, tile.col))
        return Piece(image, plan, tile, (read_window(reader, row, col, height, width),))

    def compute(self, pieces: Sequence[Piece]) -> list[Values]:
        """Compute the values of tiles, one after the other."""
        computed = []
        for piece in pieces:
            probabilities = self._blend(piece)[None]
            values = values_of(self.recipe, answers_of(self.model), logits=None, probabilities=probabilities)
            computed.append({kind: value[0] for kind, value in values.items()})
        return computed

    def _blend(self, piece: Piece) -> Tensor:
        """Compute the averaged probabilities of every class over a tile: (K, height, width)."""
        grid = _Grid.of(piece.plan)
        step, side = grid.step, 2 * grid.step
        _, _, height, width = piece.tile
        rows, cols = (_num_cells(size, step) for size in (height, width))
        total: Tensor | None = None
        # In one order everywhere: the sum of a pixel is the same whichever tile holds it.
        places = [(row, col) for row in range(rows + 1) for col in range(cols + 1)]
        for start in range(0, len(places), self._window_batch):
            batch = places[start : start + self._window_batch]
            for (row, col), part in zip(batch, self._probabilities(piece.windows[0], batch, grid), strict=True):
                if total is None:
                    shape = (part.shape[0], (rows + 2) * step, (cols + 2) * step)
                    total = torch.zeros(shape, dtype=part.dtype, device=part.device)
                    weights, folded = _weights(step, part.dtype, part.device)
                total[:, row * step : row * step + side, col * step : col * step + side] += part * weights
        assert total is not None
        total = total[:, step : step + height, step : step + width]
        total /= folded.repeat(rows, cols)[:height, :width]
        return total

    def _probabilities(self, pixels: Pixels, places: Sequence[tuple[int, int]], grid: _Grid) -> Tensor:
        """Compute the probabilities of windows: (N, K, side, side), one window after the other where memory runs out."""
        try:
            return self._at_once(pixels, places, grid)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or len(places) == 1:
                raise
        if self._window_batch > 1:
            self._say(f"Memory ran out with {self._window_batch} windows at once: continuing with 1.")
            self._window_batch = 1
        return torch.cat([self._at_once(pixels, [place], grid) for place in places])

    def _at_once(self, pixels: Pixels, places: Sequence[tuple[int, int]], grid: _Grid) -> Tensor:
        side, step = grid.window, grid.step
        corners = [(row * step, col * step) for row, col in places]
        windows = np.stack([pixels[row : row + side, col : col + side] for row, col in corners])
        views = views_of(self.recipe)
        mean = self._forward(windows)
        for view in views[1:]:
            mean = mean + view.undo(self._forward(view.transpose(view.flip(windows)).copy()))
        mean = mean / len(views) if len(views) > 1 else mean
        return mean[:, :, : 2 * step, : 2 * step]

    def _forward(self, windows: Pixels) -> Tensor:
        logits = window_logits(self.model, torch.from_numpy(windows), halo=self.model.window_sizes.margin)
        return answers_of(self.model).probabilities(logits)


def _num_cells(size: int, step: int) -> int:
    return -(-size // step)


@lru_cache(maxsize=4)
def _weights(step: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """What each pixel of an output counts: (2 step, 2 step), and their sum at each place of a cell: (step, step).

    A pixel has the four weights that its place in its cell gives it. They go to the device once, not with every window.
    """
    weight = _gaussian(2 * step)
    folded = weight.unflatten(0, (2, step)).unflatten(2, (2, step)).sum((0, 2))
    return weight.to(device, dtype), folded.to(device, dtype)


def _gaussian(side: int) -> Tensor:
    """Weights of an output: (side, side) float64, the largest in the middle."""
    at = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    line = torch.exp(-0.5 * (at / (side / 8)) ** 2)
    assert math.isfinite(float(line.sum()))
    return line[:, None] * line[None, :]
