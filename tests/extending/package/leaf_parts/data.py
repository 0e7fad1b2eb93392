"""A source: pairs of an image and a mask by number, read by several threads at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unet_dist.data.sources.pairs import RawPair


class Leaves:
    """Ellipses on a noisy ground, a function of their number alone."""

    fixed_shape = None
    files_root = None

    def __init__(self, count: int = 12, side: int = 64) -> None:
        self.name = "leaves"
        self.splits = {"train": count, "validation": 2, "test": 2}
        self._side = side

    def read_id_names(self) -> dict[int, str]:
        """Class names by the ids of the masks."""
        return {0: "ground", 1: "leaf"}

    def read_pair(self, split: str, index: int) -> RawPair:
        """Draw one pair."""
        offset = list(self.splits).index(split) * 1000
        random = np.random.default_rng(offset + index)
        rows, cols = np.mgrid[: self._side, : self._side] / self._side
        centre, radii = random.uniform(0.3, 0.7, 2), random.uniform(0.1, 0.3, 2)
        mask = ((((rows - centre[0]) / radii[0]) ** 2 + ((cols - centre[1]) / radii[1]) ** 2) < 1).astype(np.uint8)
        colour = np.where(mask[..., None], (60, 140, 50), (120, 100, 80))
        image = np.clip(colour + random.normal(0, 20, colour.shape), 0, 255).astype(np.uint8)
        name = f"{split}-{index:03d}"
        return RawPair(id=name, image=image, mask=mask, image_name=name, mask_name=name)

    def signature(self, memo_path: Path) -> str:
        """Another one for any other content: it names the decoded cache."""
        return f"leaves-1-{self.splits['train']}-{self._side}"
