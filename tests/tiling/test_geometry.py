"""Proves the integers under exact tiles: tiles cover every image once, windows are valid, aligned and wide enough.

The sizes are derived here from the layers of a U-Net (two 3x3 convolutions a level), independently of the model's code.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from unet_dist.data.batches.crops import crop_origin_range
from unet_dist.errors import DataError, SizeError
from unet_dist.imaging.reader import mirror_indices
from unet_dist.tiling.geometry import (
    Locality,
    TilePlan,
    WindowSizes,
    aligned_halo,
    assign,
    covering_tile_size,
    default_tile_size,
    plan_abutting,
    plan_tiles,
    smallest_tile_size,
)


def output_of_valid_unet(side: int, depth: int) -> int | None:
    """Walk through a valid-convolution U-Net; None where pooling meets an odd side or nothing is left."""
    for _ in range(depth):
        side -= 4
        if side <= 0 or side % 2:
            return None
        side //= 2
    side -= 4
    if side <= 0:
        return None
    for _ in range(depth):
        side = side * 2 - 4
        if side <= 0:
            return None
    return side


def valid_unet(depth: int) -> tuple[WindowSizes, Locality]:
    """Find the sizes of the valid U-Net by trying every side."""
    sides = [side for side in range(1, 5000 if depth > 4 else 1000) if output_of_valid_unet(side, depth)]
    margin = (sides[0] - (output_of_valid_unet(sides[0], depth) or 0)) // 2
    stride = sides[1] - sides[0]
    return WindowSizes(stride, sides[0] % stride, sides[0], margin), Locality(margin, stride)


NETWORKS = {f"valid-{depth}": valid_unet(depth) for depth in range(1, 7)}
NETWORKS |= {
    f"same-{depth}": (WindowSizes(2**depth, 0, 2**depth, 0), Locality(6 * 2**depth, 2**depth)) for depth in range(1, 7)
}
# A halo that is no multiple of the stride, one beyond the margin (bilinear up-sampling), any side accepted, no halo.
NETWORKS |= {
    "odd-halo": (WindowSizes(16, 0, 16, 0), Locality(93, 16)),
    "bilinear": (WindowSizes(16, 12, 188, 92), Locality(103, 16)),
    "any-side": (WindowSizes(1, 0, 1, 0), Locality(30, 8)),
    "coarse-sides": (WindowSizes(32, 0, 32, 0), Locality(20, 8)),
    "pointwise": (WindowSizes(1, 0, 1, 0), Locality(0, 1)),
}
networks = st.sampled_from(sorted(NETWORKS)).map(NETWORKS.__getitem__)
UNET = NETWORKS["valid-4"]


@st.composite
def plans(draw: st.DrawFn) -> tuple[TilePlan, int, WindowSizes, Locality]:
    sizes, locality = draw(networks)
    tile_size = sizes.round_up(smallest_tile_size(sizes, locality) + draw(st.integers(0, 80)))
    side = st.integers(1, 6 * (tile_size - 2 * aligned_halo(sizes, locality)))
    shape = draw(st.tuples(side, side))
    return plan_tiles(shape, tile_size, sizes, locality), tile_size, sizes, locality


# --------------------------------------------------------------------------------------------------------- window sizes


def test_unet_of_the_paper() -> None:
    sizes, locality = UNET
    assert sizes == WindowSizes(stride=16, remainder=12, minimum=188, margin=92)
    assert locality == Locality(halo=92, stride=16)
    assert sizes.output(572) == 388
    assert sizes.output(668) == 484
    assert not sizes.is_valid(724)
    assert sizes.round_up(724) == 732
    assert sizes.output(732) == 548
    assert sizes.neighbours(572) == (556, 588)
    assert sizes.neighbours(100) == (None, 188)
    assert sizes.neighbours(188) == (None, 204)


@pytest.mark.parametrize("depth", range(1, 7))
def test_sizes_agree_with_the_layers(depth: int) -> None:
    sizes, _ = NETWORKS[f"valid-{depth}"]
    for side in range(1, 1500):
        output = output_of_valid_unet(side, depth)
        assert sizes.is_valid(side) == (output is not None), side
        if output is not None:
            assert sizes.output(side) == output


@given(networks, st.integers(-10, 3000))
def test_rounding_and_neighbours(network: tuple[WindowSizes, Locality], side: int) -> None:
    sizes, _ = network
    valid = [n for n in range(3000 + 2 * sizes.stride + sizes.minimum) if sizes.is_valid(n)]
    assert sizes.round_up(side) == min(n for n in valid if n >= side)
    assert sizes.round_down(side) == max((n for n in valid if n <= side), default=None)
    assert sizes.neighbours(side) == (
        max((n for n in valid if n < side), default=None),
        min(n for n in valid if n > side),
    )


def test_wrong_side_is_named_with_its_neighbours() -> None:
    sizes, _ = UNET
    assert sizes.require(572, "tile_size") == 572
    with pytest.raises(SizeError) as error:
        sizes.require(724, "tile_size")
    assert str(error.value) == (
        "Got tile_size = 724. Expected a side in pixels of at least 188 that leaves the remainder 12 when divided "
        "by 16. Set tile_size to 716 or 732."
    )
    with pytest.raises(SizeError, match=r"Got input_size = 5\. .* Set input_size to 188\.$"):
        sizes.require(5, "input_size")
    with pytest.raises(SizeError, match=r"Got window side = 573\. .* Set window side to 572 or 588\.$"):
        sizes.output(573)


# ---------------------------------------------------------------------------------------------------------------- tiles


@given(plans())
def test_tiles_cover_the_image_once(case: tuple[TilePlan, int, WindowSizes, Locality]) -> None:
    plan, _, _, _ = case
    seen = np.zeros(plan.image_shape, dtype=np.int64)
    for tile in plan:
        assert min(tile.row, tile.col) >= 0
        assert min(tile.height, tile.width) >= 1
        assert tile.row + tile.height <= plan.image_shape[0]
        assert tile.col + tile.width <= plan.image_shape[1]
        seen[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] += 1
    assert (seen == 1).all()


@given(plans())
def test_windows_are_valid_aligned_and_hold_the_halo_of_their_tile(
    case: tuple[TilePlan, int, WindowSizes, Locality],
) -> None:
    plan, tile_size, sizes, locality = case
    for side in plan.window_shape:
        assert sizes.is_valid(side)
        assert side <= tile_size
    for tile in plan:
        row, col = plan.window_origin(tile)
        assert (row + sizes.margin) % locality.stride == 0
        assert (col + sizes.margin) % locality.stride == 0
        assert row <= tile.row - locality.halo
        assert row + plan.window_shape[0] >= tile.row + tile.height + locality.halo
        assert col <= tile.col - locality.halo
        assert col + plan.window_shape[1] >= tile.col + tile.width + locality.halo


@given(networks, st.integers(1, 500), st.integers(0, 200))
def test_no_aligned_plan_has_fewer_tiles_or_a_smaller_window(
    network: tuple[WindowSizes, Locality], size: int, more: int
) -> None:
    sizes, locality = network
    tile_size = sizes.round_up(smallest_tile_size(sizes, locality) + more)
    plan = plan_tiles((size, size), tile_size, sizes, locality)

    def tiles_needed(window: int) -> int | None:
        interior = window - 2 * aligned_halo(sizes, locality)
        step = interior // locality.stride * locality.stride
        if interior >= size:
            return 1
        if step <= 0:
            return None
        return next(count for count in range(2, size + 2) if (count - 1) * step + interior >= size)

    windows = [n for n in range(sizes.minimum, tile_size + 1) if sizes.is_valid(n)]
    needed = {window: tiles_needed(window) for window in windows}
    fewest = needed[tile_size]
    assert plan.grid == (fewest, fewest)
    smallest = next(window for window in windows if needed[window] == fewest)
    assert plan.window_shape == (smallest, smallest)


@given(plans(), st.data())
def test_indexing_and_bands_agree_with_iteration(
    case: tuple[TilePlan, int, WindowSizes, Locality], data: st.DataObject
) -> None:
    plan, _, _, _ = case
    tiles = list(plan)
    assert len(tiles) == len(plan) == plan.grid[0] * plan.grid[1]
    assert [plan[index] for index in range(len(plan))] == tiles
    assert plan[-1] == tiles[-1]
    for index in (len(plan), -len(plan) - 1):
        with pytest.raises(IndexError, match=f"tile {index} of {len(plan)}"):
            plan[index]
    cut = data.draw(st.integers(0, plan.grid[0]))
    assert [*plan.band(range(cut)), *plan.band(range(cut, plan.grid[0]))] == list(range(len(plan)))
    assert all(tiles[i].row < cut * plan.step[0] for i in plan.band(range(cut)))


@given(networks)
def test_halo_is_the_smallest_that_keeps_the_output_on_the_grid(network: tuple[WindowSizes, Locality]) -> None:
    sizes, locality = network
    candidates = range(locality.halo, locality.halo + locality.stride)
    assert [aligned_halo(sizes, locality)] == [n for n in candidates if (n - sizes.margin) % locality.stride == 0]


def test_reference_image() -> None:
    plan = plan_tiles((1080, 1920), 572, *UNET)
    assert plan.grid == (3, 5)
    assert plan.step == (368, 384)
    assert plan.window_shape == (556, 572)
    assert plan[0] == (0, 0, 368, 384)
    assert plan[14] == (736, 1536, 344, 384)
    assert plan.window_origin(plan[0]) == (-92, -92)
    assert plan.recompute == pytest.approx(15 * 556 * 572 / (1080 * 1920))


def test_the_last_tile_uses_its_whole_interior() -> None:
    assert plan_tiles((388, 384 + 388), 572, *UNET).grid == (1, 2)
    assert plan_tiles((389, 384 + 389), 572, *UNET).grid == (2, 3)


def test_small_image_gets_one_small_window() -> None:
    plan = plan_tiles((1, 5), 572, *UNET)
    assert plan.grid == (1, 1)
    assert plan.window_shape == (188, 204)
    assert list(plan) == [(0, 0, 1, 5)]


def test_huge_image_is_planned_lazily() -> None:
    plan = plan_tiles((10**9, 10**9), 572, *UNET)
    assert len(plan) == plan.grid[0] ** 2 > 10**12
    assert plan[-1].row + plan[-1].height == 10**9


def test_tile_size_is_strict() -> None:
    with pytest.raises(SizeError, match=r"^Got tile_size = 724\. .* Set tile_size to 716 or 732\.$"):
        plan_tiles((100, 100), 724, *UNET)
    with pytest.raises(SizeError) as error:
        plan_tiles((100, 100), 188, *UNET)
    assert str(error.value) == (
        "Got tile_size = 188, whose window leaves 4 exact pixels per side inside a halo of 92. "
        "Expected at least one stride of 16. Set tile_size to 204 or more."
    )
    assert plan_tiles((100, 100), 204, *UNET).grid == (6, 6)
    same, locality = NETWORKS["same-4"]
    with pytest.raises(SizeError, match=r"leaves 0 exact pixels .* Set tile_size to 208 or more\.$"):
        plan_tiles((100, 100), 16, same, locality)


def test_empty_image_is_refused() -> None:
    with pytest.raises(DataError, match=r"^Got an image of 0 x 7 pixels\. Expected at least 1 x 1\. Remove it"):
        plan_tiles((0, 7), 572, *UNET)


@given(networks, st.tuples(st.integers(1, 2000), st.integers(1, 2000)))
def test_covering_tile_size_is_the_smallest_that_makes_one_tile(
    network: tuple[WindowSizes, Locality], shape: tuple[int, int]
) -> None:
    sizes, locality = network
    tile_size = covering_tile_size(shape, sizes, locality)
    assert len(plan_tiles(shape, tile_size, sizes, locality)) == 1
    below, _ = sizes.neighbours(tile_size)
    assume(below is not None and below >= smallest_tile_size(sizes, locality))
    assert below is not None
    assert len(plan_tiles(shape, below, sizes, locality)) > 1


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_default_tile_size_is_valid_and_bounds_recomputation(name: str) -> None:
    sizes, locality = NETWORKS[name]
    tile_size = default_tile_size(sizes, locality)
    assert tile_size >= smallest_tile_size(sizes, locality)
    plan = plan_tiles((20_000, 20_000), tile_size, sizes, locality)
    assert plan.recompute < 2.6


def test_default_tile_size_of_the_paper() -> None:
    assert default_tile_size(*UNET) == 572


# ----------------------------------------------------------------------------------------------- the literature's plans


@pytest.mark.parametrize(
    ("input_size", "output", "grid", "padded"),
    [(572, 388, (3, 5), (1348, 2124)), (668, 484, (3, 4), (1636, 2120)), (724, 540, (2, 4), (1264, 2344))],
)
def test_abutting_plans_as_published(
    input_size: int, output: int, grid: tuple[int, int], padded: tuple[int, int]
) -> None:
    plan = plan_abutting((1080, 1920), input_size)
    assert (plan.rows, plan.cols) == grid
    assert plan.output == output
    assert plan.padded_shape == padded


def test_abutting_plan_with_the_output_the_network_really_gives() -> None:
    plan = plan_abutting((1080, 1920), 724, output=532)
    assert (plan.rows, plan.cols) == (3, 4)
    rounded = plan_abutting((1080, 1920), UNET[0].round_up(724))
    assert (rounded.rows, rounded.cols, rounded.output) == (2, 4, 548)


def test_abutting_step_is_not_aligned() -> None:
    """The reason for exact plans: the published outputs shift the pooling grid from tile to tile."""
    assert plan_abutting((1080, 1920), 572).output % UNET[1].stride == 4
    with pytest.raises(
        SizeError, match=r"^Got input_size = 184 with a margin of 92, an output of 0 .* more than 184\.$"
    ):
        plan_abutting((10, 10), 184)


# ---------------------------------------------------------------------------------------------------------------- ranks


@given(st.integers(0, 300), st.integers(1, 20))
def test_ranks_share_the_items(num_items: int, world_size: int) -> None:
    shares = [assign(num_items, rank, world_size) for rank in range(world_size)]
    assert [item for share in shares for item in share] == list(range(num_items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


# -------------------------------------------------------------------------------------------------------------- mirrors


@given(st.integers(1, 30), st.integers(0, 100), st.integers(0, 100))
def test_mirror_equals_numpy_reflection(size: int, before: int, after: int) -> None:
    # numpy refuses to reflect an image one pixel wide for some pads in some versions; it is constant by definition.
    row = np.arange(size)
    expected = (
        np.pad(row, (before, after), mode="reflect") if size > 1 else np.zeros(before + 1 + after, dtype=np.int64)
    )
    indices = mirror_indices(-before, size + after, size)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices, expected)


@given(st.integers(1, 30), st.integers(-200, 200), st.integers(0, 50), st.integers(0, 50))
def test_mirror_of_a_part_is_the_part_of_the_mirror(size: int, start: int, length: int, skip: int) -> None:
    assume(skip <= length)
    whole = mirror_indices(start, start + length, size)
    np.testing.assert_array_equal(mirror_indices(start + skip, start + length, size), whole[skip:])


# ---------------------------------------------------------------------------------------------------------------- crops


def test_crop_inside_and_beyond_the_image() -> None:
    assert crop_origin_range(1080, 388) == 693
    assert crop_origin_range(388, 388) == 1
    assert crop_origin_range(360, 388) == 1  # CamVid's 360 rows under the output of 572
    assert crop_origin_range(480, 388) == 93


@given(st.integers(1, 300), st.integers(1, 300))
def test_crop_lies_inside_or_covers_the_image(image_side: int, output_side: int) -> None:
    origins = range(crop_origin_range(image_side, output_side))
    assert origins.start == 0 < len(origins)
    if output_side <= image_side:
        assert origins[-1] + output_side == image_side
    else:
        assert len(origins) == 1
