"""Proves that a work list holds every window once, in batches of one shape that no number of processes changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_dist.errors import SizeError
from unet_dist.tiling.batches import plan_batches
from unet_dist.tiling.geometry import Locality, WindowSizes, assign, plan_tiles

SIZES, LOCALITY = WindowSizes(stride=2, remainder=0, minimum=18, margin=8), Locality(halo=8, stride=2)
shapes = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=8)


@given(shapes, st.integers(1, 9))
def test_every_window_once_in_full_batches_of_one_shape(images: list[tuple[int, int]], window_batch: int) -> None:
    plans = [plan_tiles(shape, 26, SIZES, LOCALITY) for shape in images]
    batches = list(plan_batches(plans, window_batch))
    refs = [ref for batch in batches for ref in batch]
    assert len(refs) == len(set(refs)) == sum(map(len, plans))
    assert set(refs) == {(image, tile) for image, plan in enumerate(plans) for tile in range(len(plan))}
    batch_shapes = []
    for batch in batches:
        assert 1 <= len(batch) <= window_batch
        (shape,) = {plans[ref.image].window_shape for ref in batch}
        batch_shapes.append((shape, len(batch)))
    short = [shape for shape, length in batch_shapes if length < window_batch]
    assert len(short) == len(set(short)), "only the last batch of a shape may be short"


@given(shapes, st.integers(1, 5))
def test_indexing_agrees_with_iteration(images: list[tuple[int, int]], window_batch: int) -> None:
    batches = plan_batches([plan_tiles(shape, 26, SIZES, LOCALITY) for shape in images], window_batch)
    assert [batches[index] for index in range(len(batches))] == list(batches)
    for index in (-1, len(batches)):
        with pytest.raises(IndexError, match=f"batch {index} of {len(batches)}"):
            batches[index]


@given(shapes, st.integers(1, 5), st.integers(1, 7))
def test_ranks_compute_the_batches_of_one_process(
    images: list[tuple[int, int]], window_batch: int, world_size: int
) -> None:
    batches = plan_batches([plan_tiles(shape, 26, SIZES, LOCALITY) for shape in images], window_batch)
    shared = [batches[i] for rank in range(world_size) for i in assign(len(batches), rank, world_size)]
    assert shared == list(batches)


def test_one_image_keeps_the_order_of_its_tiles() -> None:
    plan = plan_tiles((40, 40), 26, SIZES, LOCALITY)
    assert [ref.tile for batch in plan_batches([plan], 3) for ref in batch] == list(range(len(plan)))


def test_huge_image_is_cut_lazily() -> None:
    plan = plan_tiles((10**6, 10**6), 26, SIZES, LOCALITY)
    batches = plan_batches([plan], 4)
    assert len(batches) == -(-len(plan) // 4)
    assert batches[len(batches) - 1][-1].tile == len(plan) - 1


def test_window_batch_is_positive() -> None:
    message = r"^Got window_batch = 0\. Expected 1 or more\. Set window_batch to 1 or more\.$"
    with pytest.raises(SizeError, match=message):
        plan_batches([], 0)
