"""Proves that work is divided once and whole, in consecutive parts balanced by pixels."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unet_dist.prediction.shares import divide, share_finishing, share_out
from unet_dist.tiling.batches import plan_batches
from unet_dist.tiling.geometry import Locality, WindowSizes, plan_tiles

SIZES, LOCALITY = WindowSizes(stride=4, remainder=0, minimum=44, margin=20), Locality(halo=20, stride=4)
SHAPES = st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=6)


@given(st.lists(st.integers(1, 1000)), st.integers(1, 9))
def test_ranges_are_consecutive_and_balanced(costs: list[int], world_size: int) -> None:
    parts = divide(costs, world_size)
    assert [number for part in parts for number in part] == list(range(len(costs)))
    for part in parts:
        assert sum(costs[number] for number in part) <= sum(costs) / world_size + max(costs, default=0)


@given(SHAPES, st.integers(1, 4), st.integers(1, 5), st.data())
def test_every_batch_and_image_has_one_owner(
    shapes: list[tuple[int, int]], window_batch: int, world_size: int, data: st.DataObject
) -> None:
    plans = [plan_tiles(shape, 64, SIZES, LOCALITY) for shape in shapes]
    batches = plan_batches(plans, window_batch)
    done = data.draw(st.sets(st.integers(0, len(batches) - 1)))
    shares = [
        share_out(plans, batches, done_batches=done, done_images=(), rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    computed = [number for share in shares for number in share.batches]
    assert sorted(computed) == [number for number in range(len(batches)) if number not in done]
    assert all(share.shared == shares[0].shared for share in shares)
    finished = [image for share in shares for image in [*share.remaining, *share.finish_now]] + shares[0].shared
    assert sorted(finished) == list(range(len(shapes)))
    for share in shares:
        for image, count in share.remaining.items():
            mine = [number for number in share.batches if image in {ref.image for ref in batches[number]}]
            assert len(mine) == count


@given(st.lists(st.integers(1, 100)), st.integers(1, 4))
def test_finishing_is_shared_by_size(pixels: list[int], world_size: int) -> None:
    images = list(range(len(pixels)))
    parts = [share_finishing(images, pixels, rank, world_size) for rank in range(world_size)]
    assert sorted(image for part in parts for image in part) == images
    loads = [sum(pixels[image] for image in part) for part in parts]
    assert max(loads) - min(loads) <= max(pixels, default=0)
