"""Which samples and which random numbers make the batch of a step.

Owns the order of a run. Everything is a pure function of (seed, step): there is no state to save and none that depends on
the number of processes or workers.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

_ORDER, _CROP = 0, 1  # independent streams of one seed


@dataclass(frozen=True)
class Draw:
    """One sample of a run.

    Attributes:
        position: its place in the endless order of samples, 0 at the first sample of step 1.
        index: its index in the training split.
    """

    position: int
    index: int


def draw_batch(seed: int, step: int, batch_size: int, num_samples: int) -> list[Draw]:
    """The global batch of a step (1 is the first): shuffled epochs laid end to end, cut every batch_size samples."""
    first = (step - 1) * batch_size
    return [
        Draw(position, int(_epoch_order(seed, position // num_samples, num_samples)[position % num_samples]))
        for position in range(first, first + batch_size)
    ]


def crop_generator(seed: int, position: int) -> np.random.Generator:
    """The random numbers of one sample: its crop, its flip and its augmentation."""
    return np.random.Generator(np.random.Philox(key=[seed, position], counter=[0, 0, 0, _CROP]))


@functools.lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, _ORDER]))
    return generator.permutation(num_samples)


def share_of_rank(batch: list[Draw], rank: int, world_size: int, micro_batch_size: int) -> list[Draw]:
    """The samples of one rank, micro-batch after micro-batch: each micro-batch of all ranks is a run of the global batch."""
    stride = world_size * micro_batch_size
    return [
        draw
        for start in range(rank * micro_batch_size, len(batch), stride)
        for draw in batch[start : start + micro_batch_size]
    ]
