"""Proves that the tiles of crops cover every output pixel once, lie on the network's grid and are shared out evenly."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unet_dist.models.receptive_field import unet_locality, unet_window_sizes
from unet_dist.tiling.crop_plan import CropPlanner, batch_tiles, order_tiles, share_tiles
from unet_dist.tiling.geometry import aligned_halo


def planner(depth: int, padding: str = "valid", extra: int | None = None) -> CropPlanner:
    """A planner for tiles `extra` strides above the smallest; None leaves crops undivided."""
    sizes, locality = (
        unet_window_sizes(depth, padding=padding),
        unet_locality(depth, padding=padding, upsampling="transposed"),
    )
    undivided = CropPlanner(sizes, locality, aligned_halo(sizes, locality))
    tile_size = None if extra is None else undivided.smallest_side + extra * sizes.stride
    return CropPlanner(sizes, locality, undivided.halo, tile_size)


shapes = st.tuples(st.integers(1, 150), st.integers(1, 150))


@given(shapes, st.integers(1, 3), st.sampled_from(["valid", "same"]), st.integers(0, 6))
def test_every_output_pixel_lies_in_one_tile_on_the_grid(
    shape: tuple[int, int], depth: int, padding: str, extra: int
) -> None:
    crops = planner(depth, padding, extra)
    plan = crops.plan(shape)
    counted = np.zeros(shape, dtype=int)
    for tile in plan:
        counted[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] += 1
        assert tile.row % crops.sizes.stride == tile.col % crops.sizes.stride == 0
        for side, window in zip((tile.height, tile.width), plan.window_shape, strict=True):
            assert side + 2 * crops.halo <= window <= crops.tile_size
            assert crops.sizes.is_valid(window)
    assert (counted == 1).all()


def test_the_published_case() -> None:
    crops = planner(4, extra=23)
    assert crops.tile_size == 572
    plan = crops.plan((916, 916))
    assert (plan.grid, plan.window_shape, plan.step) == ((3, 3), (492, 492), (304, 304))
    assert round(crops.recompute((916, 916)), 2) == 1.80
    assert len(crops.plan((388, 388))) == 1  # the tile itself
    assert crops.plan((388, 388)).window_shape == (572, 572)


def test_a_crop_is_undivided_unless_told() -> None:
    plan = planner(4).plan((916, 388))
    assert (len(plan), plan.window_shape) == (1, (1100, 572))


@given(st.lists(shapes, min_size=1, max_size=4), st.integers(1, 5), st.integers(1, 4))
def test_ranks_share_all_tiles_evenly(outputs: list[tuple[int, int]], world_size: int, micro_batch_size: int) -> None:
    crops = planner(2, extra=4)
    plans = [crops.plan(shape) for shape in outputs]
    refs = order_tiles(plans, micro_batch_size)
    assert sorted(refs) == [(crop, tile) for crop, plan in enumerate(plans) for tile in range(len(plan))]
    parts = [share_tiles(refs, plans, rank, world_size) for rank in range(world_size)]
    assert [ref for part in parts for ref in part] == refs  # each once, in order
    work = [sum(np.prod(plans[ref.crop].window_shape) for ref in part) for part in parts]
    largest = max(np.prod(plan.window_shape) for plan in plans)
    assert max(work) <= sum(work) / world_size + largest
    if len({plan.window_shape for plan in plans}) == 1:
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for part in parts:
        batches = batch_tiles(part, plans, micro_batch_size)
        assert [ref for batch in batches for ref in batch] == list(part)
        assert all(len(batch) <= micro_batch_size for batch in batches)
        assert all(len({plans[ref.crop].window_shape for ref in batch}) == 1 for batch in batches)


def test_crops_of_one_size_keep_their_micro_batches() -> None:
    plans = [planner(2, extra=4).plan((52, 52))] * 4
    batches = batch_tiles(order_tiles(plans, 2), plans, 2)
    assert len(batches) == 4 * len(plans[0]) // 2
    for batch in batches:
        assert len({ref.tile for ref in batch}) == 1  # the same tile
        assert len({ref.crop for ref in batch}) == 2  # of two crops
