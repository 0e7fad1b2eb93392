"""Proves the model of communication on cases that can be counted by hand."""

from __future__ import annotations

import pytest

from unet_dist.benchmark.communication import Link, Part, exposed_s, nodes_s, ring_s, speedup


def test_a_ring_sends_twice_what_all_others_lack() -> None:
    link = Link(latency_s=1.0, bytes_per_s=10.0)
    assert ring_s(100, 1, link) == 0
    assert ring_s(100, 2, link) == 2 * (1 + 5)
    assert ring_s(100, 5, link) == 8 * (1 + 2)
    assert nodes_s(100, 1, 5, link, Link(9.0, 1.0)) == ring_s(100, 5, link)
    assert nodes_s(100, 2, 5, link, Link(9.0, 1.0)) == ring_s(100, 5, link) + 2 * (9 + 50)


def test_only_what_comes_after_the_step_is_added() -> None:
    parts = [Part(90, 0.5), Part(10, 1.0)]
    assert exposed_s(parts, 10.0, [4.0, 0.5]) == 0.5
    assert exposed_s(parts, 10.0, [6.0, 0.5]) == 1.5, "the second waits for the first"
    assert exposed_s(parts, 10.0, [0.0, 0.0]) == 0
    assert speedup(8, 9.0, 1.0) == pytest.approx(7.2)
