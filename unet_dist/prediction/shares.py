"""Who computes which batch, and who finishes which image.

Owns the division of the work, which is balanced by pixels computed and not by files. Pure: rank and world size are
arguments, and every process comes to the same answer.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from unet_dist.tiling.batches import BatchPlan
from unet_dist.tiling.geometry import TilePlan


@dataclass(frozen=True)
class BatchShare:
    """One process's part.

    Attributes:
        batches: numbers of the batches to compute, in order.
        remaining: image -> how many of its batches are to be computed; the images that this process finishes alone.
        finish_now: images whose batches are all done, and whose outputs are not.
        shared: images that several processes compute, to be finished when all have ended; the same on every process.
    """

    batches: list[int]
    remaining: dict[int, int]
    finish_now: list[int]
    shared: list[int]


def divide(costs: Sequence[int], world_size: int) -> list[range]:
    """Cut items into consecutive ranges of costs as equal as whole items allow, one per process.

    An item belongs to the process in whose part of the total its middle lies.

    >>> divide([4, 2, 1, 1], 2)
    [range(0, 1), range(1, 4)]
    """
    total = sum(costs)
    middles = (end - cost / 2 for end, cost in zip(itertools.accumulate(costs), costs, strict=True))
    owners = [min(int(middle * world_size / total), world_size - 1) for middle in middles]
    counts = [owners.count(rank) for rank in range(world_size)]
    ends = [0, *itertools.accumulate(counts)]
    return [range(ends[rank], ends[rank + 1]) for rank in range(world_size)]


def share_out(
    plans: Sequence[TilePlan],
    batches: BatchPlan,
    *,
    done_batches: Collection[int],
    done_images: Collection[int],
    rank: int,
    world_size: int,
) -> BatchShare:
    """Give this process its part of the remaining work.

    A batch has one owner. An image whose remaining batches all have one owner is finished by it as soon as they are
    computed, so that the rasters of many images do not pile up; the others wait for the end (`share_finishing`).
    """
    to_do = [number for number in range(len(batches)) if number not in done_batches]
    parts = divide([cost(plans, batches, number) for number in to_do], world_size)
    owners: dict[int, set[int]] = {image: set() for image in range(len(plans))}
    remaining = dict.fromkeys(owners, 0)
    for owner, part in enumerate(parts):
        for position in part:
            for image in {ref.image for ref in batches[to_do[position]]}:
                owners[image].add(owner)
                remaining[image] += 1
    idle = [image for image in owners if not owners[image] and image not in done_images]
    mine = {image: remaining[image] for image in owners if owners[image] == {rank} and image not in done_images}
    shared = [image for image in owners if len(owners[image]) > 1 and image not in done_images]
    return BatchShare([to_do[position] for position in parts[rank]], mine, idle[rank::world_size], shared)


def share_finishing(images: Sequence[int], pixels: Sequence[int], rank: int, world_size: int) -> list[int]:
    """Give this process its part of the images that are left to be finished: the largest first, each to the least busy.

    Args:
        pixels: of each of `images`.
    """
    load = [(0, owner) for owner in range(world_size)]
    mine = []
    for size, image in sorted(zip(pixels, images, strict=True), key=lambda entry: (-entry[0], entry[1])):
        busy, owner = heapq.heappop(load)
        heapq.heappush(load, (busy + size, owner))
        if owner == rank:
            mine.append(image)
    return mine


def cost(plans: Sequence[TilePlan], batches: BatchPlan, number: int) -> int:
    """Window pixels that a batch computes."""
    refs = batches[number]
    height, width = plans[refs[0].image].window_shape
    return len(refs) * height * width
