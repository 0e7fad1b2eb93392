"""One image or two as a data set: each is cut into a block for training, one for validation and one for test.

Owns where the blocks lie. Between two of them lies a gap that belongs to none, as wide as the network sees beyond an output
pixel, and a block is an image of its own: no window of one split shows a pixel of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from unet_dist.data.sources.fingerprint import digest_text
from unet_dist.data.sources.pairs import RawPair, Source
from unet_dist.data.sources.splits import FRACTIONS, cut_sizes
from unet_dist.errors import DataError
from unet_dist.imaging.views import Part

_VERSION = "blocks 1"
_LEAST_PX = 10
"""The part of a side that is left for the blocks: one pixel for each tenth of 7:1:2."""


class Blocks:
    """The images of a source of one split, cut into blocks along their longer sides.

    Args:
        source: without splits of its own.
        sizes: (height, width) of each image, px.
        gap: between two blocks, px.

    Raises:
        DataError: an image is too short for its blocks and gaps.
    """

    fixed_shape: tuple[int, int, int] | None = None

    def __init__(self, source: Source, sizes: Sequence[tuple[int, int]], gap: int) -> None:
        self.name = source.name
        self.files_root: Path | None = source.files_root
        self._source, self._gap = source, gap
        self._parts = [_cut(size, gap, f"{source.name}: image {number + 1}") for number, size in enumerate(sizes)]
        self.about = [self._describe(size, parts) for size, parts in zip(sizes, self._parts, strict=True)]
        """A sentence for each image."""

    @property
    def splits(self) -> dict[str, int]:
        """The number of samples of each split."""
        return dict.fromkeys(FRACTIONS, len(self._parts))

    def read_id_names(self) -> dict[int, str] | None:
        """Class names by the ids of the masks, None where the source has none."""
        return self._source.read_id_names()

    def read_pair(self, split: str, index: int) -> RawPair:
        """Read one image and its mask."""
        pair = self._source.read_pair(next(iter(self._source.splits)), index)
        part = self._parts[index][split]
        pair = replace(pair, id=f"{pair.id}-{split}")
        rows, cols = slice(part[0], part[1]), slice(part[2], part[3])
        image, mask = pair.image, pair.mask
        if isinstance(image, np.ndarray):
            image = image[rows, cols]
        if isinstance(mask, np.ndarray):
            mask = mask[rows, cols]
        elif callable(mask):
            draw = mask

            def mask() -> np.ndarray:
                return draw()[rows, cols]

        return replace(pair, image=image, mask=mask, part=part)

    def signature(self, memo_path: Path) -> str:
        """A text that changes with the content; it names the decoded cache."""
        return digest_text(_VERSION, self._source.signature(memo_path), str(self._gap))

    def _describe(self, size: tuple[int, int], parts: Mapping[str, Part]) -> str:
        axis, first = ("rows", 0) if size[0] >= size[1] else ("columns", 2)
        listed = ", ".join(f"{split} {part[first]} to {part[first + 1] - 1}" for split, part in parts.items())
        return (
            f"{self.name}: too few images to share out, so the {size[0]} x {size[1]} px (height x width) are cut by {axis}: "
            f"{listed}, with gaps of {self._gap} px"
        )


def _cut(size: tuple[int, int], gap: int, name: str) -> dict[str, Part]:
    """Cut the longer side 7:1:2, with gaps between."""
    side = max(size)
    left = side - (len(FRACTIONS) - 1) * gap
    if left < _LEAST_PX:
        raise DataError(
            f"{name} has {size[0]} x {size[1]} px, too few for blocks of train, validation and test with gaps of {gap} px between "
            "(what the network sees beyond a pixel). Add images, or take a smaller depth."
        )
    parts: dict[str, Part] = {}
    start = 0
    for split, length in cut_sizes(left, FRACTIONS).items():
        stop = start + length
        parts[split] = (start, stop, 0, size[1]) if size[0] >= size[1] else (0, size[0], start, stop)
        start = stop + gap
    return parts
