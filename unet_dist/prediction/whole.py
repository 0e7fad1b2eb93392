"""Whole images in one window, for networks without a finite halo, scaled first where they were trained so.

Owns the scaling of an image and of the logits back. What a published network answers is this: no tiles, the processor's
size. Memory grows with the image where nothing is scaled; then blended tiles are the bounded way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unet_dist.errors import ConfigError
from unet_dist.imaging.reader import ArrayReader, ImageReader, read_window
from unet_dist.models.answers import answers_of
from unet_dist.models.arguments import scale_logits
from unet_dist.models.contract import Network
from unet_dist.prediction.tiles import WHOLE, Piece, Pixels, Values, views_of
from unet_dist.prediction.values import Recipe, values_of
from unet_dist.tiling.geometry import Tile, TilePlan
from unet_dist.tiling.windows import window_logits


class WholeImages:
    """Every image in one window.

    Args:
        model: in evaluation mode, on its device; its `resize_to` is kept to.

    Raises:
        ConfigError: the recipe leaves out background, which takes a finite halo to tell.
    """

    name = WHOLE
    pieces_at_once = 1

    def __init__(self, model: Network, recipe: Recipe = Recipe()) -> None:  # noqa: B008, it is frozen
        if recipe.skip_background:
            raise ConfigError(
                "skip_background: got true with whole, expected false, as without a halo every pixel sees the whole image. "
                "Remove one of them."
            )
        self.model = model
        self.recipe = recipe

    def plan(self, image_shape: tuple[int, int], tile_size: int) -> TilePlan:
        """Plan one tile, the image, whatever the tile size."""
        return TilePlan(image_shape, image_shape, step=image_shape, grid=(1, 1), halo=0)

    def read(self, image: int, reader: ImageReader, plan: TilePlan, tile: Tile) -> Piece:
        """Read the image."""
        return Piece(image, plan, tile, (np.asarray(reader.read(0, tile.height, 0, tile.width)),))

    def compute(self, pieces: Sequence[Piece]) -> list[Values]:
        """Compute the values of images."""
        computed = []
        for piece in pieces:
            probabilities = self._probabilities(piece)[None]
            values = values_of(self.recipe, answers_of(self.model), logits=None, probabilities=probabilities)
            computed.append({kind: value[0] for kind, value in values.items()})
        return computed

    def _probabilities(self, piece: Piece) -> Tensor:
        """Compute the probabilities of every class: (K, height, width)."""
        (pixels,) = piece.windows
        views = views_of(self.recipe)
        parts = (view.undo(self._forward(np.ascontiguousarray(view.transpose(view.flip(pixels))))) for view in views)
        total = next(parts)
        for part in parts:
            total = total + part
        return total / len(views) if len(views) > 1 else total

    def _forward(self, pixels: Pixels) -> Tensor:
        shape, sizes = pixels.shape[:2], self.model.window_sizes
        if self.model.resize_to is not None:
            pixels = _scale(pixels, *self.model.resize_to)
        height, width = pixels.shape[:2]
        sides = [sizes.round_up(side + 2 * sizes.margin) for side in (height, width)]
        window = read_window(ArrayReader(pixels), -sizes.margin, -sizes.margin, *sides)
        windows = torch.from_numpy(np.array(window)[None])
        if shape != (height, width) and sides == [height, width]:
            logits = window_logits(self.model, windows, halo=0, scaled_to=(shape[0], shape[1]))
        else:
            logits = window_logits(self.model, windows, halo=sizes.margin)[:, :, :height, :width]
            if logits.shape[2:] != shape:
                logits = scale_logits(logits, (shape[0], shape[1]))
        return answers_of(self.model).probabilities(logits)[0]


def _scale(pixels: Pixels, height: int, width: int) -> Pixels:
    """Scale (H, W, C) as the processors of transformers do: Pillow's bilinear filter, which averages when it shrinks."""
    kind = pixels.dtype if pixels.dtype == np.uint8 else np.dtype(np.float32)  # of 16 bits Pillow scales floats only
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(pixels[:, :, channel], dtype=kind)).resize(
                (width, height), Image.Resampling.BILINEAR
            )
        )
        for channel in range(pixels.shape[2])
    ]
    scaled = np.stack(planes, axis=2)
    return scaled.astype(pixels.dtype) if pixels.dtype.kind == "f" else np.rint(scaled).astype(pixels.dtype)
