"""Integers of tiles and windows: which sides a network takes, where its tiles lie, which rank computes them.

Owns every rule about sizes and positions in pixels. It must not know images, tensors, models or processes: a model
states its `WindowSizes` and `Locality`; rank and world size are arguments.

A *tile* is a rectangle of the output, a *window* the input read for it, a *crop* a training cut-out. Coordinates are
pixels of the image; a window may reach outside it, where the image is continued by its mirror (`mirror_indices`).

Why tiles are exact: a network that pools d times is shift-equivariant only by multiples of 2^d, so every window begins
at a multiple of the stride, less the halo. Sources: Rumberger et al. 2021 (shift equivariance of tile-and-stitch),
Majurski and Bajcsy 2021 (exact tile inference).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from unet_dist.errors import DataError, SizeError

# The window of Ronneberger et al. 2015. On 1080x1920 it was also faster than one covering window (6.6 s against 7.9 s,
# width 64, 2 CPU cores) with a fifth of the memory: the largest tile is not the fastest.
DEFAULT_TILE_SIZE_PX = 572


@dataclass(frozen=True)
class WindowSizes:
    """The sides in pixels that a network's forward accepts: `side % stride == remainder` and `side >= minimum`.

    `margin` pixels are lost on each side of the window by convolutions without padding (0 for "same" padding). The
    original U-Net is `WindowSizes(stride=16, remainder=12, minimum=188, margin=92)`.
    """

    stride: int
    remainder: int
    minimum: int
    margin: int

    def __post_init__(self) -> None:
        assert self.stride >= 1, self
        assert 0 <= self.remainder < self.stride, self
        assert self.margin >= 0, self
        assert self.minimum % self.stride == self.remainder, self
        assert self.minimum > 2 * self.margin, self

    def is_valid(self, side: int) -> bool:
        """Say whether a window of this side passes through the network."""
        return side >= self.minimum and side % self.stride == self.remainder

    def round_up(self, side: int) -> int:
        """Return the smallest valid side that is not smaller."""
        missing = max(side - self.minimum, 0)
        return self.minimum + _ceil_div(missing, self.stride) * self.stride

    def round_down(self, side: int) -> int | None:
        """Return the largest valid side that is not larger; None below the minimum."""
        if side < self.minimum:
            return None
        return side - (side - self.minimum) % self.stride

    def neighbours(self, side: int) -> tuple[int | None, int]:
        """Return the nearest valid sides below (None if there is none) and above, neither of them `side` itself."""
        return self.round_down(side - 1), self.round_up(side + 1)

    def require(self, side: int, name: str) -> int:
        """Return `side` if it is valid.

        Raises:
            SizeError: it is not; the message names the setting `name` and the valid neighbours.
        """
        if self.is_valid(side):
            return side
        below, above = self.neighbours(side)
        nearest = f"{above}" if below is None else f"{below} or {above}"
        raise SizeError(
            f"Got {name} = {side}. Expected a side in pixels of at least {self.minimum} that leaves the remainder "
            f"{self.remainder} when divided by {self.stride}. Set {name} to {nearest}."
        )

    def output(self, side: int) -> int:
        """Return the side of the network's output for a window.

        Raises:
            SizeError: the side is not valid.
        """
        return self.require(side, "window side") - 2 * self.margin


@dataclass(frozen=True)
class Locality:
    """What makes a network's tiles exact: a finite halo and a grid of shifts.

    The network is shift-equivariant by multiples of `stride` pixels, and a window of side n on that grid determines the pixels at
    least `halo` away from its border exactly: n - 2 * halo. (A single pixel may depend on others up to halo + stride - 1 away,
    as those of one stride share their poolings.)
    """

    halo: int
    stride: int

    def __post_init__(self) -> None:
        assert self.halo >= 0, self
        assert self.stride >= 1, self


class Tile(NamedTuple):
    """A rectangle of the output in image coordinates, wholly inside the image."""

    row: int
    col: int
    height: int
    width: int


@dataclass(frozen=True)
class TilePlan:
    """Tiles that cover an image once, in rows from the top left; all are computed from windows of one shape.

    Tiles are made on demand: a plan for an image of any size is a few integers. Every tile has the size of a step;
    those of the last row and column reach to the image's border.
    """

    image_shape: tuple[int, int]
    """Height and width of the image."""
    window_shape: tuple[int, int]
    """Height and width of every window."""
    step: tuple[int, int]
    """Distance between neighbouring tiles in rows and in columns, multiples of the stride."""
    grid: tuple[int, int]
    """Number of tiles along rows and along columns."""
    halo: int
    """Rows and columns a window has above and to the left of its tile, and at least as many below and to the right."""

    def __len__(self) -> int:
        return self.grid[0] * self.grid[1]

    def __getitem__(self, index: int) -> Tile:
        if not -len(self) <= index < len(self):
            raise IndexError(f"tile {index} of {len(self)}")
        at = divmod(index % len(self), self.grid[1])
        origin, size = zip(*(self._span(axis, at[axis]) for axis in (0, 1)), strict=True)
        return Tile(*origin, *size)

    def __iter__(self) -> Iterator[Tile]:
        return (self[index] for index in range(len(self)))

    def _span(self, axis: int, position: int) -> tuple[int, int]:
        """Return origin and size of the tiles at one position of an axis."""
        origin = position * self.step[axis]
        is_last = position == self.grid[axis] - 1
        return origin, self.image_shape[axis] - origin if is_last else self.step[axis]

    def window_origin(self, tile: Tile) -> tuple[int, int]:
        """Return the image coordinates (row, col) of a tile's window; negative at the upper and left border."""
        return tile.row - self.halo, tile.col - self.halo

    def band(self, rows: range) -> range:
        """Return the indices of all tiles in consecutive rows of the grid."""
        assert rows.step == 1, rows
        assert 0 <= rows.start <= rows.stop <= self.grid[0], (rows, self.grid)
        return range(rows.start * self.grid[1], rows.stop * self.grid[1])

    @property
    def recompute(self) -> float:
        """Window pixels computed for each pixel of the image (1.0 would be a network without a halo)."""
        computed = len(self) * self.window_shape[0] * self.window_shape[1]
        return computed / (self.image_shape[0] * self.image_shape[1])


def plan_tiles(image_shape: tuple[int, int], tile_size: int, sizes: WindowSizes, locality: Locality) -> TilePlan:
    """Plan the exact tiles of an image for windows of at most `tile_size` pixels per side.

    The window is as small as the number of tiles allows: an image smaller than a tile gets one small window.

    >>> unet = WindowSizes(stride=16, remainder=12, minimum=188, margin=92)
    >>> plan = plan_tiles((1080, 1920), 572, unet, Locality(halo=92, stride=16))
    >>> plan.grid, plan.window_shape, plan.step
    ((3, 5), (556, 572), (368, 384))

    Raises:
        SizeError: `tile_size` is not valid, or its window leaves less than one stride of exact pixels.
        DataError: the image is empty.
    """
    height, width = image_shape
    if height < 1 or width < 1:
        raise DataError(
            f"Got an image of {height} x {width} pixels. Expected at least 1 x 1. Remove it from the input."
        )
    sizes.require(tile_size, "tile_size")
    halo = aligned_halo(sizes, locality)
    smallest = smallest_tile_size(sizes, locality)
    if tile_size < smallest:
        exact = max(tile_size - 2 * halo, 0)
        raise SizeError(
            f"Got tile_size = {tile_size}, whose window leaves {exact} exact pixels per side inside a halo of "
            f"{halo}. Expected at least one stride of {locality.stride}. "
            f"Set tile_size to {smallest} or more."
        )
    axes = [_plan_axis(size, tile_size, sizes, halo, locality.stride) for size in image_shape]
    counts, steps, windows = zip(*axes, strict=True)
    return TilePlan(image_shape=(height, width), window_shape=windows, step=steps, grid=counts, halo=halo)


def aligned_halo(sizes: WindowSizes, locality: Locality) -> int:
    """Return the halo of a plan: the network's own, and so much more that the trimmed output stays on the grid.

    The part trimmed off forward's output (halo - margin a side) is a multiple of the stride. So a tile equals not only
    other tiles but any pass whose output begins at a multiple of the stride: the whole image, or a training crop that
    holds it.
    """
    assert locality.halo >= sizes.margin, (locality, sizes)
    return sizes.margin + _ceil_div(locality.halo - sizes.margin, locality.stride) * locality.stride


def smallest_tile_size(sizes: WindowSizes, locality: Locality) -> int:
    """Return the smallest valid `tile_size`: its window determines at least one stride of pixels."""
    return sizes.round_up(2 * aligned_halo(sizes, locality) + locality.stride)


def covering_tile_size(image_shape: tuple[int, int], sizes: WindowSizes, locality: Locality) -> int:
    """Return the smallest `tile_size` for which the whole image is one tile."""
    interior = max(*image_shape, locality.stride)
    return sizes.round_up(interior + 2 * aligned_halo(sizes, locality))


def default_tile_size(sizes: WindowSizes, locality: Locality) -> int:
    """Return the `tile_size` to use when nobody named one: 572 pixels or six halos, whichever is more, rounded down.

    Six halos keep the recomputation below about (6 / 4)^2 for deep networks, whose halo alone may exceed 572 pixels.
    """
    side = sizes.round_down(max(DEFAULT_TILE_SIZE_PX, 6 * locality.halo)) or sizes.minimum
    return max(side, smallest_tile_size(sizes, locality))


def _plan_axis(size: int, tile_size: int, sizes: WindowSizes, halo: int, stride: int) -> tuple[int, int, int]:
    """Return number of tiles, step and window side along one axis.

    Tiles begin at multiples of the step and the last one may use its whole exact interior, so `count` tiles of interior
    e = step + rest (step a multiple of the stride, rest < stride) cover count * step + rest pixels.
    """
    rest = (tile_size - 2 * halo) % stride
    step = tile_size - 2 * halo - rest
    count = max(_ceil_div(size - rest, step), 1)

    # The smallest interior that covers the axis with as many tiles: either the rest of the last tile covers what whole
    # strides leave, or every tile grows by one stride.
    strides, missing = divmod(size, count * stride)
    interior = strides * stride + missing if missing < stride else (strides + 1) * stride
    window = sizes.round_up(interior + 2 * halo)
    assert window <= tile_size, (size, tile_size, window, sizes, halo, stride)
    return count, max(interior - interior % stride, stride), window


def _ceil_div(value: int, divisor: int) -> int:
    return -(-value // divisor)


@dataclass(frozen=True)
class AbuttingPlan:
    """The literature's plan: whole outputs laid side by side over an image padded at the border.

    It is quoted for comparison only. Its step is no multiple of the network's stride, so the tiles do not compute the
    function that the whole image would.
    """

    rows: int
    cols: int
    output: int
    """Side of the output that a publication states for one window."""
    padded_shape: tuple[int, int]
    """Height and width of the padded image that all windows together read."""


def plan_abutting(
    image_shape: tuple[int, int], input_size: int, *, margin: int = 92, output: int | None = None
) -> AbuttingPlan:
    """Plan abutting tiles as published: as many outputs of `input_size - 2 * margin` as cover the image.

    No check is made that a network accepts `input_size`: 724 is quoted with its published output of 540.

    >>> plan_abutting((1080, 1920), 572)
    AbuttingPlan(rows=3, cols=5, output=388, padded_shape=(1348, 2124))

    Raises:
        SizeError: the window is no larger than its margins.
    """
    if output is None:
        output = input_size - 2 * margin
    if output < 1:
        raise SizeError(
            f"Got input_size = {input_size} with a margin of {margin}, an output of {output} pixels. "
            f"Expected at least 1. Set input_size to more than {2 * margin}."
        )
    rows, cols = (_ceil_div(size, output) for size in image_shape)
    return AbuttingPlan(rows, cols, output, (rows * output + 2 * margin, cols * output + 2 * margin))


def assign(num_items: int, rank: int, world_size: int) -> range:
    """Return the items of one rank: consecutive, every item exactly once, numbers that differ by at most one.

    >>> [assign(8, rank, 3) for rank in range(3)]
    [range(0, 3), range(3, 6), range(6, 8)]
    """
    assert num_items >= 0, num_items
    assert 0 <= rank < world_size, (rank, world_size)
    each, more = divmod(num_items, world_size)
    start = rank * each + min(rank, more)
    return range(start, start + each + (rank < more))


class CoarsePlaces(NamedTuple):
    """Along one axis: the pixels of a coarse map that count, and the labels at their middles."""

    pixels: slice
    labels: slice


@dataclass(frozen=True)
class CoarseGrid:
    """Where the pixels of a coarse map of a network lie: on the grid of the crop, whatever window it is computed in.

    Each of them is judged by the label at its middle, so the one tile whose labels hold it counts it.

    Attributes:
        stride: side of one of them, px.
        start: where the first one begins, px from the first pixel of the network's output; negative further out.
    """

    stride: int
    start: int = 0

    def places(self, side: int, trim: int) -> CoarsePlaces:
        """Which of its pixels have their middle in labels.

        Args:
            side: of the labels.
            trim: pixels of the network's output before the first label.

        >>> CoarseGrid(4, start=-6).places(12, trim=0)  # middles at -4, 0, 4, 8, 12
        CoarsePlaces(pixels=slice(1, 4, None), labels=slice(0, 12, 4))
        """
        middle = self.start + self.stride // 2 - trim  # of the first pixel, counted from the first label
        first = max(0, -(middle // self.stride))
        label = middle + first * self.stride
        count = max(0, -((label - side) // self.stride))
        return CoarsePlaces(slice(first, first + count), slice(label, side, self.stride))


def level_weights(levels: int) -> list[float]:
    """What the finest logits and those of each coarser level weigh: each half of the one before, 1 in all.

    Source: Isensee et al. 2021, "nnU-Net", Nature Methods 18, supplementary note 2 (its loss of deep supervision).
    """
    weights = [0.5**level for level in range(levels + 1)]
    return [weight / sum(weights) for weight in weights]
