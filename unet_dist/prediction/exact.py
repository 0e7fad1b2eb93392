"""Exact tiles: the pixels read for them, and their values, whatever memory there is.

Owns the windows of a batch in every view, and their division into smaller ones when memory runs out. All of it keeps to the
grid of the network's stride, so that none of it changes a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from unet_dist.errors import ConfigError
from unet_dist.imaging.reader import ImageReader, read_window
from unet_dist.machine.memory import is_out_of_memory
from unet_dist.models.answers import answers_of
from unet_dist.models.contract import Network
from unet_dist.prediction.tiles import EXACT, Piece, Pixels, Values, View, views_of
from unet_dist.prediction.values import Recipe, sees_something, values_of
from unet_dist.tiling.geometry import Tile, TilePlan, plan_tiles, smallest_tile_size
from unet_dist.tiling.windows import require_locality, window_logits, windows_at_once


class ExactTiles:
    """Tiles of a network with a finite halo.

    Args:
        model: in evaluation mode, on its device.
        window_batch: windows computed at once.
        say: prints, once, that memory ran out and with which windows the work continues.

    Raises:
        LocalityError: the network has no finite halo.
    """

    name = EXACT

    def __init__(
        self,
        model: Network,
        recipe: Recipe = Recipe(),  # noqa: B008, it is frozen
        *,
        window_batch: int = 1,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.pieces_at_once = window_batch
        self._views = views_of(recipe)
        self._say = say
        self._locality = require_locality(model)
        self._side: int | None = None  # largest side of a window since memory ran out

    def plan(self, image_shape: tuple[int, int], tile_size: int) -> TilePlan:
        """Plan an image's tiles."""
        return plan_tiles(image_shape, tile_size, self.model.window_sizes, self._locality)

    def read(self, image: int, reader: ImageReader, plan: TilePlan, tile: Tile) -> Piece:
        """Read what a tile needs: a window for each view."""
        straight = read_window(reader, *plan.window_origin(tile), *plan.window_shape)
        seen = None
        if self.recipe.skip_background:
            seen = sees_something(straight, plan.halo, tile.height, tile.width)
            if not seen.any():
                return Piece(image, plan, tile, (), (), seen)
            seen = None if seen.all() else seen
        windows, offsets = [straight], [(0, 0)]
        for view in self._views[1:]:
            rows, cols = (self._span(plan, tile, axis, view) for axis in (0, 1))
            windows.append(view.flip(read_window(reader, rows[0], cols[0], rows[1], cols[1])))
            offsets.append((rows[2], cols[2]))
        return Piece(image, plan, tile, tuple(windows), tuple(offsets), seen)

    def compute(self, pieces: Sequence[Piece]) -> list[Values]:
        """Compute the values of pieces with windows of one shape, in smaller windows where memory runs out.

        Raises:
            ConfigError: memory does not suffice for the smallest window either.
        """
        while True:
            try:
                if self._side is None:
                    return self._in_turn(pieces)
                return [self._divided(piece, self._side) for piece in pieces]
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            # Here, and not in the handler: the error holds the frames that hold the tensors.
            self._shrink(max(pieces[0].windows[0].shape[:2]), len(pieces))

    def logits(self, pieces: Sequence[Piece], number: int = 0) -> Tensor:
        """Compute the logits of pieces of one shape in one of their views: (N, K, h, w), at least what their tiles need."""
        windows = [self._views[number].transpose(piece.windows[number]) for piece in pieces]
        is_cuda = next(self.model.parameters()).device.type == "cuda"
        # Straight into pinned memory, from which the upload waits for nothing.
        kind = getattr(torch, windows[0].dtype.name)
        pixels = torch.empty((len(windows), *windows[0].shape), dtype=kind, pin_memory=is_cuda)
        np.stack(windows, out=pixels.numpy())
        return window_logits(self.model, pixels, halo=pieces[0].plan.halo)

    def _span(self, plan: TilePlan, tile: Tile, axis: int, view: View) -> tuple[int, int, int]:
        """Origin and side of a tile's window along an axis, and the tile's offset in it."""
        origin, extent, side = tile[axis], tile[axis + 2], plan.window_shape[axis]
        if not view.flips[axis]:
            return origin - plan.halo, side, 0
        # In the coordinates of the mirror image, whose tiles lie on a grid that begins at the image's far border.
        size = plan.image_shape[axis]
        start = size - origin - extent
        offset = start % self._locality.stride
        wide = self._mirrored_side(side)
        return size - (start - offset - plan.halo) - wide, wide, offset

    def _mirrored_side(self, side: int) -> int:
        return int(self.model.window_sizes.round_up(side + self._locality.stride))

    def _in_turn(self, pieces: Sequence[Piece]) -> list[Values]:
        """Compute a batch in the parts that the device computes at once."""
        shape, device = pieces[0].windows[0].shape[:2], next(self.model.parameters()).device
        at_once = min(windows_at_once(shape, device.type), len(pieces))
        starts = range(0, len(pieces), at_once)
        return [values for start in starts for values in self._together(pieces[start : start + at_once])]

    def _together(self, pieces: Sequence[Piece]) -> list[Values]:
        """Compute pieces as one batch."""
        recipe, answers = self.recipe, answers_of(self.model)
        if len(self._views) == 1:
            logits = self.logits(pieces)
            probabilities = answers.probabilities(logits) if recipe.needs_probabilities else None
            batch = values_of(recipe, answers, logits=logits, probabilities=probabilities)
            return [
                {kind: value[number, ..., : piece.tile.height, : piece.tile.width] for kind, value in batch.items()}
                for number, piece in enumerate(pieces)
            ]
        totals = [self._view_of(piece, 0, part) for piece, part in zip(pieces, self._parts(pieces, 0), strict=True)]
        for number in range(1, len(self._views)):
            parts = self._parts(pieces, number)
            totals = [
                total + self._view_of(piece, number, part)
                for total, piece, part in zip(totals, pieces, parts, strict=True)
            ]
        means = [total / len(self._views) for total in totals]
        batches = [values_of(recipe, answers, logits=None, probabilities=mean[None]) for mean in means]
        return [{kind: value[0] for kind, value in batch.items()} for batch in batches]

    def _parts(self, pieces: Sequence[Piece], number: int) -> Tensor:
        """The probabilities of a view of pieces, as the view has them: (N, K, h, w)."""
        return answers_of(self.model).probabilities(self.logits(pieces, number))

    def _view_of(self, piece: Piece, number: int, part: Tensor) -> Tensor:
        """Cut a tile out of the result of a view, and undo the view: (K, height, width)."""
        row, col = piece.offsets[number]
        view, (_, _, height, width) = self._views[number], piece.tile
        if view.is_transposed:
            return view.undo(part[:, col : col + width, row : row + height])
        return view.undo(part[:, row : row + height, col : col + width])

    def _divided(self, piece: Piece, side: int) -> Values:
        """Compute a piece in windows of at most `side` px, cut out of the pixels that were read."""
        _, _, height, width = piece.tile
        whole: Values = {}
        plan = self.plan((height, width), side)
        for tile in plan:
            windows, offsets = [], []
            for view, pixels, offset in zip(self._views, piece.windows, piece.offsets, strict=True):
                rows, cols = (self._span_within(plan, tile, axis, view, offset[axis]) for axis in (0, 1))
                windows.append(_cut(pixels, rows[0], cols[0], rows[1], cols[1]))
                offsets.append((rows[2], cols[2]))
            (values,) = self._together([Piece(piece.image, plan, tile, tuple(windows), tuple(offsets))])
            for kind, part in values.items():
                if kind not in whole:
                    whole[kind] = torch.empty((*part.shape[:-2], height, width), dtype=part.dtype)
                whole[kind][..., tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] = part
        return whole

    def _span_within(self, plan: TilePlan, tile: Tile, axis: int, view: View, offset: int) -> tuple[int, int, int]:
        """As _span, of a part of a tile in the tile's own window of a view."""
        origin, extent, side = tile[axis], tile[axis + 2], plan.window_shape[axis]
        if not view.flips[axis]:
            return origin, side, 0
        at = offset + plan.image_shape[axis] - origin - extent
        rest = at % self._locality.stride
        return at - rest, self._mirrored_side(side), rest

    def _shrink(self, side: int, count: int) -> None:
        sizes = self.model.window_sizes
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
        if next(self.model.parameters()).device.type == "cuda":
            torch.cuda.empty_cache()
        self._say(
            f"Memory ran out with {count if self._side is None else 1} window(s) of {before} px at once: continuing with 1 "
            f"of at most {after} px; the result is the same."
        )
        self._side = after


def _cut(pixels: Pixels, row: int, col: int, height: int, width: int) -> Pixels:
    """Cut a window out of a larger one, zeros beyond it: kept pixels lie a halo inside and never see them."""
    part = pixels[row : row + height, col : col + width]
    missing = (height - part.shape[0], width - part.shape[1])
    return np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0))) if any(missing) else part
