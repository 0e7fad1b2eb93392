"""What every source of data gives: pairs of an image and a mask, still encoded.

Owns the two types that sources, checks and the cache share. Knows nothing of folders, hubs or caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from unet_dist.imaging.views import Part

Content = bytes | Path | np.ndarray  # an encoded picture, the file of one, or (H, W[, C]) pixels

Mask = Content | Callable[[], np.ndarray] | tuple[Path, ...]
"""Or what draws the ids, (H, W), when they are needed; or a file for each of several overlapping classes."""


@dataclass(frozen=True)
class RawPair:
    """One image and its mask, before anything is decoded."""

    id: str
    """Short name of the sample, fit for a file name; made unique by the cache."""
    image: Content
    mask: Mask
    image_name: str
    """What a message calls the image: its file, or its row."""
    mask_name: str
    part: Part | None = None
    """The rectangle of both that the sample is; None for all."""
    channels: int | None = None
    """Channels that the image is to have: 3 reads grey as colour, its channel repeated. None leaves it."""


class Source(Protocol):
    """Where pairs come from. Opening one is cheap; the first look at `splits` may read or download."""

    name: str
    fixed_shape: tuple[int, int, int] | None
    """(H, W, C) of every image where it is known before reading, so that the sizes need no pass of their own."""
    files_root: Path | None
    """Folder of the files, where there is one that lasts: images too large for the cache are read in it."""

    @property
    def splits(self) -> dict[str, int]:
        """Number of pairs by split, as the source gives them, under the names train, validation and test."""

    def read_id_names(self) -> dict[int, str] | None:
        """Read the class name of each id of the masks, None where the source names none."""

    def read_pair(self, split: str, index: int) -> RawPair:
        """Read one pair; called from several threads at once."""

    def signature(self, memo_path: Path) -> str:
        """Identify the content: equal for equal bytes and another one for any change.

        Args:
            memo_path: a folder for digests already computed, so that the next start is quick.
        """
