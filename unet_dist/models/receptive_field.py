"""Which input pixels an output pixel of a U-Net sees: the sides it takes, what it loses, what an exact tile must trim.

Integers only, one axis at a time (rows and columns behave alike). A *level* is a resolution: level 0 the first block's,
level `depth` the bottleneck's, each half as fine as the one above. Level 0 is the input's own, or that of its cells: with
a stem stride s, s x s pixels of the image are one cell, and a result for cells holds for pixels times s. Must not
know torch: the results of walking the architecture are confirmed in the tests by perturbing pixels of the real
network.
"""

from __future__ import annotations

from functools import partial
from itertools import count

from unet_dist.tiling.geometry import Locality, WindowSizes

PADDINGS = ("valid", "same")
UPSAMPLINGS = ("transposed", "bilinear")
HEADS = ("shuffle", "bilinear")

# Two 3x3 convolutions see this many pixels further on each side; without padding they lose them.
_BLOCK_REACH_PX = 2


def unet_margin(depth: int, *, padding: str, level: int = 0, centre_px: int = 0) -> int:
    """Count the pixels lost a side between the map that enters `level` and the map that leaves it; 92 at depth 4.

    Args:
        centre_px: how far the bottleneck sees beyond its block, in its own pixels.
    """
    lost = _BLOCK_REACH_PX if padding == "valid" else 0
    if level == depth:
        return lost + (centre_px if padding == "valid" else 0)
    return lost + 2 * unet_margin(depth, padding=padding, level=level + 1, centre_px=centre_px) + lost


def unet_window_sizes(
    depth: int, *, padding: str, stem_stride: int = 1, centre_px: int = 0, head_px: int = 0
) -> WindowSizes:
    """Compute the sides that a U-Net of `depth` poolings accepts: those that every pooling halves without a remainder.

    Args:
        stem_stride: side in pixels of the cells that the first level works on.
        centre_px: as in unet_margin.
        head_px: distance from the edge of a cell within which a pixel of the output reads the next cell, too.

    >>> unet_window_sizes(4, padding="valid").output(572)
    388
    """
    lost = 2 * _BLOCK_REACH_PX if padding == "valid" else 0
    margin = unet_margin(depth, padding=padding, centre_px=centre_px)
    lost_by_head = head_px if padding == "valid" else 0

    def input_side(bottleneck_side: int) -> int:
        side = bottleneck_side
        for _ in range(depth):
            side = 2 * side + lost
        return side

    minimum = next(side for side in map(input_side, count(1)) if stem_stride * (side - 2 * margin) > 2 * lost_by_head)
    stride = 2**depth
    return WindowSizes(
        stride=stem_stride * stride,
        remainder=stem_stride * (minimum % stride),
        minimum=stem_stride * minimum,
        margin=stem_stride * margin + lost_by_head,
    )


def unet_locality(
    depth: int, *, padding: str, upsampling: str, stem_stride: int = 1, centre_px: int = 0, head_px: int = 0
) -> Locality:
    """Derive how far inside a window the output is that of the unbounded image.

    The pooling grids of all windows coincide when their origins differ by multiples of the stride. In such a window an
    output pixel is exact when all that it depends on lies inside, so the halo is the first distance from the window's
    edge from which on no dependence crosses it. What a padded border, or an up-sampling at the edge of a map (bilinear
    repeats the edge), makes up is a dependence that crosses. Poolings and up-samplings of an accepted side are
    symmetric, so both edges have the same halo.

    The halo is not the largest distance between an output pixel and an input pixel it depends on: that is up to
    stride - 1 more (107 at depth 4), for output pixels deep inside a cell of the grid, whose windows begin further out.

    A cell of `stem_stride` pixels per side is exact or not as a whole, so the halo is that of the cells times their side.
    A bilinear head reads the next cell from the middle of a cell on: `head_px` more.
    """
    sizes = unet_window_sizes(depth, padding=padding, stem_stride=stem_stride, centre_px=centre_px, head_px=head_px)
    seen = partial(_first_seen, depth=depth, padding=padding, upsampling=upsampling, centre_px=centre_px)
    # The first dependence never decreases with the index, so the first index that passes settles all later ones.
    trim = next(index for index in count() if seen(index) >= 0)
    by_head = 0 if padding == "valid" else head_px  # a valid head has lost them, so its margin holds them
    return Locality(halo=sizes.margin + stem_stride * trim + by_head, stride=sizes.stride)


def _first_seen(index: int, depth: int, *, padding: str, upsampling: str, level: int = 0, centre_px: int = 0) -> int:
    """Find the first pixel of the map entering `level` that pixel `index` of the map leaving it depends on.

    Maps are unbounded here and indices may be negative. Index 0 is where the window's map starts, entering and leaving.
    """
    # A valid convolution at i reads i, i+1, i+2; a padded one i-1, i, i+1. Two of them:
    before = 0 if padding == "valid" else _BLOCK_REACH_PX
    if level == depth:
        return index - before - (0 if padding == "valid" else centre_px)
    joined = index - before  # the first pixel read of the concatenation
    # Transposed 2x2: j reads j // 2. Bilinear at twice the side (half-pixel centres): an even j = 2k reads k-1 and k,
    # an odd j = 2k+1 reads k and k+1.
    below = joined // 2 if upsampling == "transposed" else (joined - 1) // 2
    through_below = 2 * _first_seen(
        below, depth, padding=padding, upsampling=upsampling, level=level + 1, centre_px=centre_px
    )
    crop = 2 * unet_margin(depth, padding=padding, level=level + 1, centre_px=centre_px)
    through_skip = joined + crop
    return min(through_below, through_skip) - before
