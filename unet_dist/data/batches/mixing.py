"""Crops that show parts of two samples, with the labels of both: CutMix and ClassMix.

Owns whose parts cover a crop, and where. Both are a function of (seed, position) and of the other crop's labels at each pixel: so
tiles of one crop see one mixture, however a run is cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unet_dist.data.batches.crops import Crop
from unet_dist.data.batches.sampler import Draw, mixing_generator
from unet_dist.data.decoded.labels import IGNORED, ignored_in
from unet_dist.tiling.geometry import Tile

_APART = 2**62  # what the position of a covering sample lies above that of the covered one: random numbers of its own


@dataclass(frozen=True)
class Mixing:
    """How many crops are covered in part by another sample.

    Attributes:
        cutmix: share of those with a rectangle of the other. Source: Yun et al. 2019, "CutMix", arXiv 1905.04899, section 3.1, with
            labels pasted alike.
        classmix: share of those with the pixels of half of the classes of the other. Source: Olsson et al. 2021, "ClassMix", arXiv
            2007.07936, section 3.1; here each class is taken with probability 1/2, present or not, so that no label map is
            searched.
    """

    cutmix: float
    classmix: float

    def draw(self, seed: int, position: int, num_samples: int) -> Cover | None:
        """Draw what covers the crop of a sample; None where nothing does."""
        random = mixing_generator(seed, position)
        chance = random.random()
        if chance >= self.cutmix + self.classmix:
            return None
        draw = Draw(position + _APART, int(random.integers(num_samples)))
        if chance < self.cutmix:
            side = float(np.sqrt(random.random()))
            middle = random.random(2)
            low, high = np.clip(middle - side / 2, 0, 1), np.clip(middle + side / 2, 0, 1)
            return Cover(draw, box=(float(low[0]), float(low[1]), float(high[0]), float(high[1])))
        classes = random.integers(0, 2, 256).astype(bool)
        classes[IGNORED] = False
        return Cover(draw, classes=classes, seed=int(random.integers(2**63)))


@dataclass(frozen=True)
class Cover:
    """What lies over a crop.

    Attributes:
        draw: of the sample that is seen.
        box: (top, left, bottom, right) of a rectangle, in heights and widths of the crop's output; None: its classes.
        classes: (256,) bool, by id of 8 bits whether its pixels are seen.
        seed: of the same for ids of 16 bits.
    """

    draw: Draw
    box: tuple[float, float, float, float] | None = None
    classes: np.ndarray | None = None
    seed: int = 0

    def mask(self, crop: Crop, tile: Tile, shape: tuple[int, int]) -> np.ndarray:
        """Where the other crop is seen in the window of a tile: bool of its shape.

        Args:
            crop: the one that is seen.
        """
        if self.classes is not None:
            labels, classes = crop.read_window_labels(tile, shape), self.classes
            if labels.dtype != np.uint8:
                ignored = ignored_in(labels.dtype)
                classes = np.random.default_rng(self.seed).integers(0, 2, ignored + 1).astype(bool)
                classes[ignored] = False
            seen: np.ndarray = classes[labels]
            return seen
        assert self.box is not None
        height, width = crop.output_shape
        top, left, bottom, right = (
            round(part * side) for part, side in zip(self.box, (height, width) * 2, strict=True)
        )
        rows = np.arange(shape[0]) + tile.row - crop.halo
        cols = np.arange(shape[1]) + tile.col - crop.halo
        return ((rows >= top) & (rows < bottom))[:, None] & ((cols >= left) & (cols < right))[None]


def paste(windows: Tensor, others: Tensor, at: Tensor, masks: Tensor) -> Tensor:
    """Show the others (m, h, w, C) in windows (n, h, w, C), in those at (m,), where masks (m, h, w) are True."""
    is_uint16 = windows.dtype == torch.uint16  # which torch copies by no index: its bits are int16
    below, above = (values.view(torch.int16) if is_uint16 else values for values in (windows, others))
    mixed = below.index_copy(0, at, torch.where(masks[..., None], above, below.index_select(0, at)))
    return mixed.view(torch.uint16) if is_uint16 else mixed
