"""One image at a time, to arrays in memory or tile by tile.

Owns the walk over an image's tiles for whoever writes no files. Must not know processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from unet_dist.imaging.reader import ImageLike, ImageReader, as_reader, open_image
from unet_dist.imaging.views import with_channels
from unet_dist.models.contract import Network, pixels_of
from unet_dist.prediction.exact import ExactTiles
from unet_dist.prediction.fetching import Fetching
from unet_dist.prediction.reading import read_ahead
from unet_dist.prediction.tiles import Piece, Tiles, compute_pieces, fill, rasters_of, read_piece
from unet_dist.tiling.batches import WindowRef, plan_batches
from unet_dist.tiling.geometry import Tile, TilePlan, covering_tile_size, default_tile_size
from unet_dist.tiling.windows import Labels, as_seen, require_locality

Rasters = dict[str, np.ndarray]
"""By name (labels, probabilities, confidence): (H, W) or (K, H, W)."""

Around = Callable[[], AbstractContextManager[object]]
"""Makes the context of a forward pass, such as autocast."""


def predict_tiles(
    tiles: Tiles, reader: ImageReader, plan: TilePlan, around_forward: Around = nullcontext, name: str = "the image"
) -> Iterator[tuple[Tile, Rasters]]:
    """Predict the tiles of an image: yields each and its values, in the order of the plan.

    The next batches are read, and a batch's values are used by the caller, while the device computes.

    Raises:
        DataError: the image has other channels than the network takes, or the network gives no finite logits for it.
    """
    reader = as_seen(tiles.model, reader)

    def read(refs: list[WindowRef]) -> list[Piece]:
        return [read_piece(tiles, 0, reader, plan, plan[ref.tile]) for ref in refs]

    with read_ahead(plan_batches([plan], tiles.pieces_at_once), read) as batches:
        computing: list[tuple[list[Piece], Fetching]] = []
        for _, pieces in batches:
            with around_forward():
                computing.append((pieces, Fetching(compute_pieces(tiles, pieces))))
            if len(computing) > 1:
                yield from _fetched(tiles, name, *computing.pop(0))
        for batch in computing:
            yield from _fetched(tiles, name, *batch)


def _fetched(tiles: Tiles, name: str, pieces: list[Piece], values: Fetching) -> Iterator[tuple[Tile, Rasters]]:
    rasters = rasters_of(tiles)
    for piece, entry in zip(pieces, values.wait(), strict=True):
        yield piece.tile, fill(rasters, piece, entry, name)


def predict_rasters(tiles: Tiles, image: ImageLike, tile_size: int, around_forward: Around = nullcontext) -> Rasters:
    """Predict an image into memory: what the recipe of the tiles asks for.

    Raises:
        DataError: the image cannot be read, or has other channels than the network takes.
    """
    name = os.fspath(image) if isinstance(image, str | os.PathLike) else "the image"
    with _opened(image, tiles.model) as reader:
        plan = tiles.plan(reader.shape[:2], tile_size)
        kinds = rasters_of(tiles)
        rasters = {kind: np.empty((*planes, *plan.image_shape), dtype) for kind, (planes, dtype) in kinds.items()}
        for tile, values in predict_tiles(tiles, reader, plan, around_forward, name):
            for kind, part in values.items():
                rasters[kind][..., tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] = part
    return rasters


def predict_image(
    model: Network,
    image: ImageLike,
    tile_size: int | None = None,
    *,
    window_batch: int = 1,
    device: str | torch.device | None = None,
) -> Labels:
    """Predict an image: (H, W) class ids, or (K, H, W) of 0 and 1 for overlapping classes; `tile_size` does not change them.

    Computes in the model's own type. The model's training flags are left as they were.

    Args:
        image: (H, W, C) or (H, W) uint8 array, Pillow image, path or reader.
        tile_size: largest side of a window in pixels; None chooses one.
        window_batch: windows computed at once.
        device: moves the model there first; None computes where it is.

    Returns:
        uint8; uint16 where there are more than 255 classes.

    Raises:
        LocalityError: the network has no finite halo, so exact tiles do not exist.
        SizeError: the network does not take `tile_size`; names the nearest that it does.
        DataError: the image cannot be read, or has other channels than the network takes.
    """
    tiles = ExactTiles(model, window_batch=window_batch)
    if device is not None:
        model.to(torch.device(device))
    side = default_tile_size(model.window_sizes, require_locality(model)) if tile_size is None else tile_size
    return predict_rasters(tiles, image, side)["labels"]


def predict_logits(model: Network, image: ImageLike, tile_size: int | None = None) -> Tensor:
    """Compute the logits of a whole image, (K, H, W) on the CPU; for calibration and proofs, as all of it is in memory.

    Args:
        tile_size: largest side of a window in pixels; None takes one window that covers the image.

    Raises:
        LocalityError, SizeError, DataError: as `predict_image`.
    """
    tiles, locality = ExactTiles(model), require_locality(model)
    rows: list[Tensor] = []
    with _opened(image, model) as reader:
        reader = as_seen(model, reader)
        side = tile_size or covering_tile_size(reader.shape[:2], model.window_sizes, locality)
        plan = tiles.plan(reader.shape[:2], side)
        for row in range(plan.grid[0]):
            parts = []
            for index in plan.band(range(row, row + 1)):
                tile = plan[index]
                logits = tiles.logits([tiles.read(0, reader, plan, tile)])
                parts.append(logits[0, :, : tile.height, : tile.width].cpu())  # (K, height, width)
            rows.append(torch.cat(parts, dim=2))
    return torch.cat(rows, dim=1)


def _opened(image: ImageLike, model: Network) -> AbstractContextManager[ImageReader]:
    """Open an image for a while, grey as colour for a network of colour; a reader that the caller opened stays open."""
    if isinstance(image, str | os.PathLike):
        pixels = pixels_of(model)
        return open_image(image, nodata=pixels.nodata, bands=pixels.bands, channels=model.in_channels)
    reader = with_channels(as_reader(image), model.in_channels)
    return nullcontext(reader) if isinstance(image, ImageReader) else reader
