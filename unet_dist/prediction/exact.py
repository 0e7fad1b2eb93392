"""Exact tiles: the pixels read for them, and their values, whatever memory there is.

Owns the windows of a batch and of its mirror image, and their division into smaller ones when memory runs out. All of it
keeps to the grid of the network's stride, so that none of it changes a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unet_dist.errors import ConfigError
from unet_dist.imaging.reader import ImageReader, read_window
from unet_dist.machine.memory import is_out_of_memory
from unet_dist.models.contract import Network
from unet_dist.prediction.values import Recipe, probabilities_of, sees_something, values_of
from unet_dist.tiling.geometry import Tile, TilePlan, plan_tiles, smallest_tile_size
from unet_dist.tiling.windows import require_locality, window_logits, windows_at_once

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Piece:
    """A tile and what is read for it.

    Attributes:
        image: its number.
        tile: in image coordinates.
        straight: (H, W, C) window; its pixel (halo, halo) is the tile's first. None where the tile is all background.
        mirrored: the window of the mirror image, one stride wider: the mirrored tile begins `offset` pixels off the
            mirror image's own grid.
        seen: (height, width) of the tile's pixels that are not background; None means all.
    """

    image: int
    tile: Tile
    straight: Pixels | None
    mirrored: Pixels | None = None
    offset: int = 0
    seen: npt.NDArray[np.bool_] | None = None


class ExactTiles:
    """Reads and computes tiles of a network with a finite halo.

    Args:
        model: in evaluation mode, on its device.
        say: told, once, that memory ran out and how it goes on.

    Raises:
        LocalityError: the network has no finite halo.
    """

    def __init__(self, model: Network, recipe: Recipe, say: Callable[[str], None]) -> None:
        self._model = model
        self._recipe = recipe
        self._say = say
        self._locality = require_locality(model)
        self._side: int | None = None  # largest side of a window since memory ran out

    def plan(self, image_shape: tuple[int, int], tile_size: int) -> TilePlan:
        """Plan an image's tiles."""
        return plan_tiles(image_shape, tile_size, self._model.window_sizes, self._locality)

    def read(self, image: int, reader: ImageReader, plan: TilePlan, tile: Tile) -> Piece:
        """Read what a tile needs."""
        height, width = plan.window_shape
        row, col = plan.window_origin(tile)
        straight = read_window(reader, row, col, height, width)
        seen = None
        if self._recipe.skip_background:
            seen = sees_something(straight, plan.halo, tile.height, tile.width)
            if not seen.any():
                return Piece(image, tile, None, seen=seen)
            seen = None if seen.all() else seen
        if not self._recipe.flip:
            return Piece(image, tile, straight, seen=seen)
        # In the coordinates of the mirror image, whose tiles lie on a grid that begins at the image's right border.
        image_width = plan.image_shape[1]
        start = image_width - tile.col - tile.width
        offset = start % self._locality.stride
        wide = self._mirrored_width(width)
        col = image_width - (start - offset - plan.halo) - wide
        return Piece(image, tile, straight, read_window(reader, row, col, height, wide)[:, ::-1], offset, seen)

    def compute(self, pieces: Sequence[Piece], halo: int) -> list[dict[str, Tensor]]:
        """Compute the values of tiles with windows of one shape, in smaller windows where memory runs out.

        Args:
            pieces: with pixels.
            halo: of their plan.

        Returns:
            For each piece and raster (height, width) or (K, height, width), on some device; nothing waits for it.

        Raises:
            ConfigError: memory does not suffice for the smallest window either.
        """
        while True:
            try:
                if self._side is None:
                    return self._in_turn(pieces, halo)
                return [self._divided(piece, self._side) for piece in pieces]
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            # Here, and not in the handler: the error holds the frames that hold the tensors.
            assert pieces[0].straight is not None
            self._shrink(max(pieces[0].straight.shape[:2]), len(pieces))

    def _mirrored_width(self, width: int) -> int:
        return int(self._model.window_sizes.round_up(width + self._locality.stride))

    def _in_turn(self, pieces: Sequence[Piece], halo: int) -> list[dict[str, Tensor]]:
        """Compute a batch in the parts that the device computes at once."""
        assert pieces[0].straight is not None
        at_once = windows_at_once(pieces[0].straight.shape[:2], next(self._model.parameters()).device.type)
        starts = range(0, len(pieces), at_once)
        return [values for start in starts for values in self._together(pieces[start : start + at_once], halo)]

    def _together(self, pieces: Sequence[Piece], halo: int) -> list[dict[str, Tensor]]:
        """Compute pieces as one batch."""
        recipe, ignored = self._recipe, self._model.ignore_index
        logits = self._logits([piece.straight for piece in pieces], halo)  # (N, K, h, w)
        probabilities = probabilities_of(logits, ignored) if recipe.needs_probabilities else None
        if recipe.flip:
            assert probabilities is not None
            del logits
            mirrored = probabilities_of(self._logits([piece.mirrored for piece in pieces], halo), ignored)
            values = []
            for number, piece in enumerate(pieces):
                _, _, height, width = piece.tile
                turned = mirrored[number, :, :height, piece.offset : piece.offset + width].flip(-1)
                mean = (probabilities[number, :, :height, :width] + turned) / 2
                values.append(values_of(recipe, ignored, logits=None, probabilities=mean[None]))
            return [{kind: value[0] for kind, value in entry.items()} for entry in values]
        batch = values_of(recipe, ignored, logits=logits, probabilities=probabilities)
        return [
            {kind: value[number, ..., : piece.tile.height, : piece.tile.width] for kind, value in batch.items()}
            for number, piece in enumerate(pieces)
        ]

    def _logits(self, windows: Sequence[Pixels | None], halo: int) -> Tensor:
        present = [window for window in windows if window is not None]
        assert len(present) == len(windows), (len(present), len(windows))
        is_cuda = next(self._model.parameters()).device.type == "cuda"
        # Straight into pinned memory, from which the upload waits for nothing.
        pixels = torch.empty((len(present), *present[0].shape), dtype=torch.uint8, pin_memory=is_cuda)
        np.stack(present, out=pixels.numpy())
        return window_logits(self._model, pixels, halo=halo)

    def _divided(self, piece: Piece, side: int) -> dict[str, Tensor]:
        """Compute a piece in windows of at most `side` px, cut out of the pixels that were read."""
        assert piece.straight is not None
        _, _, height, width = piece.tile
        whole: dict[str, Tensor] = {}
        plan = self.plan((height, width), side)
        for tile in plan:
            straight = _cut(piece.straight, tile.row, tile.col, *plan.window_shape)
            mirrored, offset = None, 0
            if piece.mirrored is not None:
                start, offset = divmod(piece.offset + width - tile.col - tile.width, self._locality.stride)
                wide = self._mirrored_width(plan.window_shape[1])
                mirrored = _cut(piece.mirrored, tile.row, start * self._locality.stride, plan.window_shape[0], wide)
            (values,) = self._together([Piece(piece.image, tile, straight, mirrored, offset)], plan.halo)
            for kind, part in values.items():
                if kind not in whole:
                    whole[kind] = torch.empty((*part.shape[:-2], height, width), dtype=part.dtype)
                whole[kind][..., tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] = part
        return whole

    def _shrink(self, side: int, count: int) -> None:
        sizes = self._model.window_sizes
        before = side if self._side is None else self._side
        if self._side is None and count > 1:
            after = sizes.round_up(side)
        else:
            after = sizes.round_down(before * 3 // 4) or 0
            if after < smallest_tile_size(sizes, self._locality):
                raise ConfigError(
                    f"tile_size: memory ran out, and did so with windows of {before} px, near the smallest of this "
                    "network. Free memory, or use a smaller network."
                )
        if next(self._model.parameters()).device.type == "cuda":
            torch.cuda.empty_cache()
        self._say(
            f"Memory ran out with {count if self._side is None else 1} window(s) of {before} px at once: going on with 1 "
            f"of at most {after} px; the result is the same."
        )
        self._side = after


def _cut(pixels: Pixels, row: int, col: int, height: int, width: int) -> Pixels:
    """Cut a window out of a larger one, zeros beyond it: kept pixels lie a halo inside and never see them."""
    part = pixels[row : row + height, col : col + width]
    missing = (height - part.shape[0], width - part.shape[1])
    return np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0))) if any(missing) else part
