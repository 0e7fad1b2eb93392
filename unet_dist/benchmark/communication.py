"""How several devices should scale, by a model of their communication.

Owns the formula; docs/explanation/scaling.md explains it. Must not know a network or a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """What joins processes in a ring.

    Attributes:
        latency_s: of one message to the next process.
        bytes_per_s: of one direction.
    """

    latency_s: float
    bytes_per_s: float


def ring_s(num_bytes: float, count: int, link: Link) -> float:
    """Seconds in which a ring of processes sums a tensor: each sends 2 (n - 1) messages of a part of 1 / n.

    Source: Patarasu and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations", section 3.
    """
    return 2 * (count - 1) * (link.latency_s + num_bytes / count / link.bytes_per_s)


def nodes_s(num_bytes: float, nodes: int, per_node: int, inside: Link, between: Link) -> float:
    """Seconds of a sum over nodes: within each node, then over the nodes, each device its part, and within again."""
    if nodes == 1:
        return ring_s(num_bytes, per_node, inside)
    return ring_s(num_bytes, per_node, inside) + ring_s(num_bytes, nodes, between)


@dataclass(frozen=True)
class Part:
    """Gradients that are whole together.

    Attributes:
        num_bytes: of all of them.
        ready: when they are whole, as a share of the step.
    """

    num_bytes: float
    ready: float


def exposed_s(parts: Sequence[Part], step_s: float, sums_s: Sequence[float]) -> float:
    """Seconds that a step is longer by its sums: one after the other, each not before its part is whole.

    Args:
        sums_s: of each part, alone.
    """
    end = 0.0
    for part, sum_s in zip(parts, sums_s, strict=True):
        end = max(end, part.ready * step_s) + sum_s
    return max(0.0, end - step_s)


def speedup(count: int, step_s: float, added_s: float) -> float:
    """How many times as fast several devices are as one, each with the work of one."""
    return count * step_s / (step_s + added_s)
