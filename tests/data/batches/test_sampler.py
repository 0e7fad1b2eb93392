"""Proves that the batch of a step is a pure function of (seed, step), and that ranks cut it without loss or overlap."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_dist.data.batches.sampler import ClassBalance, Draw, crop_generator, draw_batch, share_of_rank

SEEDS = st.integers(0, 2**63 - 1)


@given(SEEDS, st.integers(1, 40), st.integers(1, 40), st.integers(1, 30))
def test_steps_are_epochs_laid_end_to_end(seed: int, batch_size: int, num_samples: int, num_steps: int) -> None:
    """Every epoch is a permutation, wherever the batches cut it, and positions count on from step 1."""
    draws = [draw for step in range(1, num_steps + 1) for draw in draw_batch(seed, step, batch_size, num_samples)]
    assert [draw.position for draw in draws] == list(range(num_steps * batch_size))
    indices = [draw.index for draw in draws]
    for start in range(0, len(indices) - num_samples + 1, num_samples):
        assert sorted(indices[start : start + num_samples]) == list(range(num_samples))


@given(SEEDS, st.integers(1, 30), st.integers(1, 12), st.integers(1, 12), st.integers(1, 20))
def test_order_does_not_depend_on_the_batch_size(seed: int, num_samples: int, one: int, other: int, count: int) -> None:
    def first(batch_size: int) -> list[int]:
        steps = range(1, -(-count // batch_size) + 1)
        return [draw.index for step in steps for draw in draw_batch(seed, step, batch_size, num_samples)][:count]

    assert first(one) == first(other)


def test_nothing_is_remembered_between_calls() -> None:
    """Asked backwards, and for more epochs than are kept, as a resumed run or a worker does: the same batches."""
    forwards = [draw_batch(3, step, 4, 5) for step in range(1, 30)]
    backwards = [draw_batch(3, step, 4, 5) for step in range(29, 0, -1)]
    assert forwards == backwards[::-1]


def test_another_process_draws_the_same() -> None:
    code = "from unet_dist.data.batches.sampler import *; print(draw_batch(7, 5, 6, 11), crop_generator(7, 9).integers(2**40))"
    theirs = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert theirs == f"{draw_batch(7, 5, 6, 11)} {crop_generator(7, 9).integers(2**40)}\n"


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(d.index for d in draw_batch(seed, step, 50, 50)) for seed in range(5) for step in range(1, 6)}
    assert len(orders) == 25


def test_random_numbers_of_samples_are_their_own() -> None:
    """Neither another position nor another seed shares them, and an epoch's order is another stream than a crop."""
    drawn = {
        tuple(crop_generator(seed, position).integers(2**40, size=2)) for seed in range(9) for position in range(9)
    }
    assert len(drawn) == 81
    order = np.random.Generator(np.random.Philox(key=[4, 2])).integers(2**40, size=2)
    assert tuple(order) != tuple(crop_generator(4, 2).integers(2**40, size=2))


@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 5), st.integers(0, 100))
def test_ranks_partition_the_batch(world_size: int, micro: int, accum: int, first: int) -> None:
    batch = [Draw(first + i, i) for i in range(world_size * micro * accum)]
    shares = [share_of_rank(batch, rank, world_size, micro) for rank in range(world_size)]
    assert {len(share) for share in shares} == {micro * accum}
    assert sorted((d for share in shares for d in share), key=lambda d: d.position) == batch
    # Micro-batch m of all ranks together is one run of the global batch.
    for number in range(accum):
        part = [d for share in shares for d in share[number * micro : (number + 1) * micro]]
        start = number * micro * world_size
        assert part == batch[start : start + micro * world_size]


def test_share_of_one_rank_by_hand() -> None:
    batch = [Draw(position, 0) for position in range(12)]
    positions = [[draw.position for draw in share_of_rank(batch, rank, 2, 2)] for rank in range(2)]
    assert positions == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]]


@pytest.mark.parametrize("position", [0, 1, 10**9, 6000 * 4096])
def test_positions_of_long_runs_are_taken(position: int) -> None:
    crop_generator(2**63 - 1, position).integers(10)


COUNTS = np.array([[900, 0, 0], [900, 3, 0], [900, 0, 0], [0, 0, 0]])  # class 1 in one sample, class 2 in none


def test_a_share_of_the_draws_has_its_class_drawn_evenly() -> None:
    balance = ClassBalance.of(0.5, COUNTS)
    plain = [draw for step in range(1, 501) for draw in draw_batch(7, step, 4, 4)]
    draws = [draw for step in range(1, 501) for draw in draw_batch(7, step, 4, 4, balance)]
    chosen = [draw for draw in draws if draw.centre is not None]
    assert 850 < len(chosen) < 1150  # 1000 expected; a deviation is 22
    assert {draw.centre for draw in chosen} == {0, 1}
    assert 400 < sum(draw.centre == 1 for draw in chosen) < 600  # 3 pixels of 2703, and half of the draws
    assert {draw.index for draw in chosen if draw.centre == 1} == {1}
    assert {draw.index for draw in chosen if draw.centre == 0} == {0, 1, 2}
    assert [draw for draw in draws if draw.centre is None] == [
        one for one, other in zip(plain, draws, strict=True) if other.centre is None
    ]


def test_a_balanced_draw_does_not_depend_on_the_cut() -> None:
    balance = ClassBalance.of(0.3, COUNTS)
    at_once = draw_batch(3, 1, 24, 4, balance)
    assert [draw for step in range(1, 9) for draw in draw_batch(3, step, 3, 4, balance)] == at_once
    assert draw_batch(3, 1, 24, 4, ClassBalance.of(0.0, COUNTS)) == draw_batch(3, 1, 24, 4)
