"""Proves the arithmetic of the figures on numbers whose answer is known: spreads, ratios, budgets, roofs, speed-ups."""

from __future__ import annotations

import pytest
import torch

from unet_dist.benchmark.ceilings import Ceilings, compute_dtype, copy_rate, matmul_rate
from unet_dist.benchmark.results import Amounts, figures_of, speedups
from unet_dist.benchmark.subject import BYTES, FLOPS, LOOP, PREDICT, PREDICT_BARE, READ, STEP, WAIT
from unet_dist.benchmark.timing import Spread, affordable, ratios, seconds

CPU = torch.device("cpu")


def test_spread_of_measurements() -> None:
    spread = Spread.of([3.0, 1.0, 2.0, 10.0])
    assert spread == Spread(2.5, 1.0, 10.0)


def test_a_slow_moment_of_both_cancels_in_their_ratio() -> None:
    assert ratios([2.0, 20.0, 2.2], [1.0, 10.0, 1.0]) == Spread(2.0, 2.0, 2.2)


@pytest.mark.parametrize(
    ("count", "each_s", "budget_s", "expected"),
    [(20, 1.0, 5.0, 5), (20, 0.1, 60.0, 20), (20, 9.0, 5.0, 1), (3, 0, 1, 3)],
)
def test_affordable(count: int, each_s: float, budget_s: float, expected: int) -> None:
    assert affordable(count, each_s, budget_s) == expected


def test_the_limit_is_the_higher_roof() -> None:
    ceilings = Ceilings(flops_per_s=100.0, bytes_per_s=10.0)
    assert ceilings.limit_s(1000, 10) == 10.0  # products: 10 s, memory: 1 s
    assert ceilings.limit_s(100, 40) == 4.0


def test_ceilings_are_rates_of_the_work_they_time() -> None:
    before = torch.get_float32_matmul_precision()
    side, num_bytes = 512, 2**24
    product = torch.ones(side, side)
    assert seconds(lambda: torch.mm(product, product), CPU) > 0
    # A rate times what one repetition may take at least and at most on any machine: off by units, it falls outside.
    assert 1e-7 < 2 * side**3 / matmul_rate(CPU, torch.float32, 0.01, side=side) < 10
    assert 1e-7 < 2 * num_bytes / copy_rate(CPU, 0.01, num_bytes=num_bytes) < 10
    assert torch.get_float32_matmul_precision() == before


def test_products_are_computed_in_the_mixed_precision_if_there_is_one() -> None:
    assert compute_dtype("bf16", torch.float32) == torch.bfloat16
    assert compute_dtype("no", torch.float64) == torch.float64


ROUNDS = [
    {FLOPS: 1e9, BYTES: 1e9, STEP: 1.0, LOOP: 1.1, WAIT: 0.0, READ: 0.5, PREDICT: 3.0, PREDICT_BARE: 2.0},
    {FLOPS: 2e9, BYTES: 1e9, STEP: 0.5, LOOP: 0.5, WAIT: 0.1, READ: 0.25},
    {FLOPS: 1e9, BYTES: 1e9, STEP: 1.0, LOOP: 1.2, WAIT: 0.2, READ: 0.5},
]


def test_figures_of_a_setting() -> None:
    amounts = Amounts(crops=4, window_pixels=2_000_000, flops=500_000_000, share_crops=2, image_pixels=6_000_000)
    figures = figures_of(ROUNDS, amounts)
    expected = {
        "images_per_s": (4 / 1.1, 4 / 1.2, 8.0),
        "megapixels_per_s": (2 / 1.1, 2 / 1.2, 4.0),
        "bare_images_per_s": (4.0, 4.0, 8.0),
        "model_flops_per_s": (5e8, 5e8, 1e9),
        "share_of_matmul": (0.5, 0.5, 0.5),
        "loop_overhead": (0.1, 0.0, 0.2),
        "crops_read_per_s": (4.0, 4.0, 8.0),
        "prediction_over_bare": (1.5, 1.5, 1.5),
        "predicted_megapixels_per_s": (2.0, 2.0, 2.0),
    }
    for name, values in expected.items():
        spread = figures[name]
        assert (spread.median, spread.low, spread.high) == pytest.approx(values), name
    assert figures[LOOP] == Spread(1.1, 0.5, 1.2)


def test_what_was_not_measured_has_no_figure() -> None:
    figures = figures_of([{LOOP: 1.0, READ: 0.5}], Amounts(crops=4, window_pixels=1, flops=1, share_crops=4))
    assert set(figures) == {LOOP, READ, "images_per_s", "megapixels_per_s", "crops_read_per_s"}


def test_speedup_counts_the_work_done() -> None:
    alone, together = [{STEP: 1.0}, {STEP: 2.0}], [{STEP: 1.0}, {STEP: 2.5}]
    assert speedups(together, alone, STEP, factor=2) == Spread(1.8, 1.6, 2.0)
    assert speedups(together, alone, PREDICT) is None
