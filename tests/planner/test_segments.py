"""Proves that the plan knows what torch's allocator takes from a GPU beyond the tensors: by rules, and as it was seen to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.measure.plan_memory import SETTINGS
from unet_dist.assembly.network import simulated
from unet_dist.benchmark.gpu_check import FULL
from unet_dist.config.sections import Config
from unet_dist.planner.segments import Segments
from unet_dist.planner.simulation import training_peak

MIB = 2**20
EVIDENCE = Path(__file__).resolve().parents[2] / "docs/evidence/plan_memory.json"


def test_a_segment_grows_by_pages_and_reuses_what_is_freed() -> None:
    segments = Segments()
    first = segments.take(30 * MIB)
    assert segments.reserved == 40 * MIB
    segments.take(10 * MIB)
    assert segments.reserved == 40 * MIB, "the rest of the second page"
    segments.give_back(first)
    assert segments.take(29 * MIB).start == first.start
    assert segments.reserved == 40 * MIB
    assert segments.take(2 * MIB).start == 40 * MIB, "1 MiB is left before, in a gap"
    assert segments.reserved == 60 * MIB


def test_the_smallest_gap_that_holds_it_is_taken_and_the_end_last() -> None:
    segments = Segments()
    places = [segments.take(size * MIB) for size in (12, 2, 6, 2, 15)]
    assert segments.reserved == 40 * MIB, "3 MiB stay at the end"
    segments.give_back(places[0])
    segments.give_back(places[2])
    assert segments.take(5 * MIB).start == places[2].start
    assert segments.take(3 * MIB).start == places[0].start, "the end, though it fits exactly, can grow"


def test_neighbours_that_are_free_become_one() -> None:
    segments = Segments()
    places = [segments.take(5 * MIB) for _ in range(4)]
    for number in (0, 2, 1):
        segments.give_back(places[number])
    assert segments.take(15 * MIB).start == 0
    assert segments.reserved == 20 * MIB


def test_small_tensors_have_a_segment_of_their_own() -> None:
    segments = Segments()
    small, large = segments.take(MIB), segments.take(MIB + 1)
    assert (small.is_small, large.is_small) == (True, False)
    assert segments.reserved == 22 * MIB
    assert (segments.take(1).size, segments.take(513).size) == (512, 1024)


@pytest.mark.parametrize("name", ["batch 16", "norm weight", "norm group"])
def test_the_plan_is_what_torchs_allocator_reserved(name: str) -> None:
    """Recorded by tests.measure.plan_memory with the CUDA torch's own allocator."""
    recorded = json.loads(EVIDENCE.read_text(encoding="utf-8"))["settings"]
    config = Config.from_flat({**FULL.keys, "batch_size": 2, **SETTINGS[name]})
    run = simulated(config, channels=3, num_classes=35, device_type="cuda", precision="bf16")
    window = (config.schedule.input_size,) * 2
    plan = training_peak(replace(run, has_workspace=False), config.schedule.batch_size, window).total_bytes
    assert plan == pytest.approx(recorded[name]["reserved"], rel=0.05)
