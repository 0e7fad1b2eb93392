"""How the windows of a run's input size lie over its images, as the published table counts them.

Owns the counting: outputs laid side by side as in the literature, and the tiles on the network's grid that this toolkit
predicts by. Reads no data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from unet_dist.errors import UnetDistError
from unet_dist.models.registry import find_model
from unet_dist.report.contents import RunContents
from unet_dist.tiling.geometry import Locality, WindowSizes, aligned_halo, covering_tile_size, plan_abutting, plan_tiles


@dataclass(frozen=True)
class Patches:
    """Of one input size over one image, in rows and columns.

    Attributes:
        output: side of what a window gives, px; None where the window is the image.
        abutting: outputs laid side by side from the top left.
        aligned: tiles at multiples of the stride; None where the network has no exact ones.
    """

    output: int | None
    abutting: tuple[int, int]
    aligned: tuple[int, int] | None


def count_patches(
    sizes: WindowSizes,
    locality: Locality | None,
    side: int | None,
    image_shape: tuple[int, int],
    *,
    quoted_output: int | None = None,
) -> Patches:
    """Count the patches of an image.

    Args:
        side: of the window, px, a valid one; None for the whole image.
        image_shape: height and width.
        quoted_output: that abutting patches are counted with, where a publication says another than the network gives.
    """
    halo = sizes.margin if locality is None else aligned_halo(sizes, locality)
    aligned = None
    if locality is not None:
        aligned = plan_tiles(
            image_shape, side or covering_tile_size(image_shape, sizes, locality), sizes, locality
        ).grid
    if side is None:
        return Patches(None, (1, 1), aligned)
    abutting = plan_abutting(image_shape, side, margin=halo, output=quoted_output)
    return Patches(side - 2 * halo, (abutting.rows, abutting.cols), aligned)


def patches_of(run: RunContents) -> Patches | None:
    """Count a run's patches over the largest of its images; None where its folder does not say enough."""
    sizes_of_images = (size for part in run.data.get("splits", []) for size in part.get("sizes", {}))
    shapes = [_shape(size) for size in sizes_of_images if re.fullmatch(r"[1-9]\d{0,8}x[1-9]\d{0,8}", size)]
    side = run.config.get("input_size")
    if not shapes or not (isinstance(side, int) or side == "full"):
        return None
    try:
        sizes, locality = find_model(str(run.config.get("model", "unet")))[0].sizes_of(run.config)
        window = sizes.round_up(side) if isinstance(side, int) else None
        return count_patches(sizes, locality, window, max(shapes))
    except UnetDistError:  # keys of another release
        return None


def _shape(size: str) -> tuple[int, int]:
    height, width = size.split("x")
    return int(height), int(width)
