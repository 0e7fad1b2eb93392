"""How a network predicts images, whichever way: the one contract of exact tiles, blended tiles and whole images.

Owns what a tile is read and computed as, and the ways to look at it. Must not know files, processes or journals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from unet_dist.data.decoded.labels import ignored_in
from unet_dist.imaging.image import ImageReader
from unet_dist.imaging.pixels import filled
from unet_dist.models.answers import answers_of
from unet_dist.models.contract import Network, zero_of
from unet_dist.prediction.values import Recipe, blank, not_finite
from unet_dist.tiling.geometry import Tile, TilePlan

Pixels = npt.NDArray[np.generic]
"""Of any of the types that pixels have."""
Values = dict[str, Tensor]
"""The values of a tile by raster: (height, width) or (K, height, width)."""

EXACT, BLENDED, WHOLE = "exact tiles", "blended tiles", "whole image"


class View(NamedTuple):
    """One way to look at a picture: rows and columns turned over first, then swapped. All eight are the turns of a square."""

    flips_rows: bool = False
    flips_cols: bool = False
    is_transposed: bool = False

    @property
    def flips(self) -> tuple[bool, bool]:
        """Whether rows and columns are turned over."""
        return self.flips_rows, self.flips_cols

    def flip(self, pixels: Pixels) -> Pixels:
        """Turn over the rows and columns of (..., H, W, C), without a copy."""
        return pixels[..., :: -1 if self.flips_rows else 1, :: -1 if self.flips_cols else 1, :]

    def transpose(self, pixels: Pixels) -> Pixels:
        """Swap the rows and columns of (..., H, W, C), without a copy."""
        return pixels.swapaxes(-3, -2) if self.is_transposed else pixels

    def undo(self, values: Tensor) -> Tensor:
        """Put values (..., h, w) of the view back in the order of the picture."""
        values = values.transpose(-2, -1) if self.is_transposed else values
        dims = [axis - 2 for axis in (0, 1) if self.flips[axis]]
        return values.flip(dims) if dims else values


def views_of(recipe: Recipe) -> tuple[View, ...]:
    """The ways to look at a picture whose probabilities are averaged; the picture as it is comes first."""
    if recipe.rotations:
        return tuple(
            View(rows, cols, turned) for turned in (False, True) for rows in (False, True) for cols in (False, True)
        )
    return (View(), View(flips_cols=True)) if recipe.flip else (View(),)


@dataclass(frozen=True)
class Piece:
    """A tile and the window read for it.

    Attributes:
        image: its number.
        plan: of its image's tiles.
        tile: in image coordinates.
        windows: (H, W, C) for each view, turned over but not yet transposed; none where the tile is all background.
        offsets: for each view how far down and right the tile begins inside the halo of its window. A picture turned over has a
            grid of its own, on which the tile need not begin.
        seen: (height, width) of the tile's pixels that are neither background nor without data; None means all.
    """

    image: int
    plan: TilePlan
    tile: Tile
    windows: tuple[Pixels, ...]
    offsets: tuple[tuple[int, int], ...] = ((0, 0),)
    seen: npt.NDArray[np.bool_] | None = None


class Tiles(Protocol):
    """How images are planned, read and computed."""

    @property
    def name(self) -> str:
        """EXACT, BLENDED or WHOLE."""

    @property
    def model(self) -> Network:
        """The network."""

    @property
    def recipe(self) -> Recipe:
        """The outputs that are computed for each pixel."""

    @property
    def pieces_at_once(self) -> int:
        """Pieces of a batch: on their number the last bits depend."""

    def plan(self, image_shape: tuple[int, int], tile_size: int) -> TilePlan:
        """Plan the tiles of an image (height, width), from windows of at most `tile_size` px.

        Raises:
            SizeError: the network does not take the tile size.
        """

    def read(self, image: int, reader: ImageReader, plan: TilePlan, tile: Tile) -> Piece:
        """Read what a tile of a plan needs."""

    def compute(self, pieces: Sequence[Piece]) -> list[Values]:
        """Compute the values of pieces with windows, all of one shape; nothing waits for the device."""


def rasters_of(tiles: Tiles) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Of each raster that is predicted, the shape in front of (H, W) and the type."""
    return tiles.recipe.rasters(tiles.model.num_classes, overlap=answers_of(tiles.model).overlap)


def compute_pieces(tiles: Tiles, pieces: Sequence[Piece]) -> list[Values | None]:
    """Compute the pieces of a batch; None for those that are all background."""
    asked = [piece for piece in pieces if piece.windows]
    values = iter(tiles.compute(asked) if asked else [])
    return [next(values) if piece.windows else None for piece in pieces]


def read_piece(tiles: Tiles, image: int, reader: ImageReader, plan: TilePlan, tile: Tile) -> Piece:
    """Read what a tile needs, and mark its pixels where the file has no data: they are no class, whatever is computed."""
    piece = tiles.read(image, filled(reader, zero_of(tiles.model)), plan, tile)
    known = reader.known(tile.row, tile.row + tile.height, tile.col, tile.col + tile.width)
    if known is None:
        return piece
    return replace(piece, seen=known if piece.seen is None else known & piece.seen)


def fill(
    rasters: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    piece: Piece,
    entry: Mapping[str, np.ndarray] | None,
    name: str = "the image",
) -> dict[str, np.ndarray]:
    """Complete the values of a piece: no class, or a probability of zero, where nothing is seen.

    Args:
        rasters: as Recipe.rasters has them.
        entry: the result of the piece, None where it is all background.
        name: of the image.

    Raises:
        DataError: a pixel that is seen has no class, as its logits are not finite.
    """
    _, _, height, width = piece.tile
    if entry is not None:
        labels = entry["labels"]
        nothing = ignored_in(labels.dtype)
        if (
            labels.max() == nothing
            and (labels[..., slice(None) if piece.seen is None else piece.seen] == nothing).any()
        ):
            raise not_finite(name)
    return {
        kind: blank(kind, np.zeros((*planes, height, width), dtype) if entry is None else entry[kind], piece.seen)
        for kind, (planes, dtype) in rasters.items()
    }
