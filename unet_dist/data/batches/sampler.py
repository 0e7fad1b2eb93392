"""Which samples and which random numbers make the batch of a step.

Owns the order of a run. Everything is a pure function of (seed, step): there is no state to save and none that depends on
the number of processes or workers.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_ORDER, _CROP, _CLASS, _COLOUR, _GEOMETRY, _TEXTURE, _MIXING, _OPERATION = range(8)  # independent streams of one seed


@dataclass(frozen=True)
class Draw:
    """One sample of a run.

    Attributes:
        position: its place in the endless order of samples, 0 at the first sample of step 1.
        index: its index in the training split.
        centre: the class of the pixel that its crop is centred on, None where the crop may lie anywhere.
    """

    position: int
    index: int
    centre: int | None = None


@dataclass(frozen=True)
class ClassBalance:
    """Crops that are centred on classes drawn evenly, so that rare ones are seen.

    Attributes:
        share: of the crops, 0 to below 1.
        holders: by class, the samples that have pixels of it, one at least.
    """

    share: float
    holders: Mapping[int, Sequence[int]]

    @classmethod
    def of(cls, share: float, class_counts: np.ndarray) -> ClassBalance:
        """Find who holds what.

        Args:
            class_counts: pixels (n, K) of each class in each sample, those that count nowhere left out.
        """
        found = {label: np.flatnonzero(column).tolist() for label, column in enumerate(class_counts.T)}
        return cls(share, {label: samples for label, samples in found.items() if samples})

    def draw(self, seed: int, position: int) -> tuple[int, int] | None:
        """Draw the class and a sample that has it; None where the crop is one of the others."""
        random = np.random.Generator(np.random.Philox(key=[seed, position], counter=[0, 0, 0, _CLASS]))
        if random.random() >= self.share or not self.holders:
            return None
        label = list(self.holders)[int(random.integers(len(self.holders)))]
        samples = self.holders[label]
        return label, samples[int(random.integers(len(samples)))]


def draw_batch(
    seed: int, step: int, batch_size: int, num_samples: int, balance: ClassBalance | None = None
) -> list[Draw]:
    """The global batch of a step (1 is the first): shuffled epochs laid end to end, cut every batch_size samples.

    With a balance some of them give way to samples of a class that was drawn.
    """

    def draw(position: int) -> Draw:
        chosen = None if balance is None else balance.draw(seed, position)
        if chosen is not None:
            return Draw(position, index=chosen[1], centre=chosen[0])
        return Draw(position, int(_epoch_order(seed, position // num_samples, num_samples)[position % num_samples]))

    first = (step - 1) * batch_size
    return [draw(position) for position in range(first, first + batch_size)]


def crop_generator(seed: int, position: int) -> np.random.Generator:
    """The random numbers of one sample: its crop, its flip and its augmentation."""
    return np.random.Generator(np.random.Philox(key=[seed, position], counter=[0, 0, 0, _CROP]))


def colour_generator(seed: int, position: int) -> np.random.Generator:
    """The random numbers of one sample's light and colour."""
    return np.random.Generator(np.random.Philox(key=[seed, position], counter=[0, 0, 0, _COLOUR]))


def geometry_generator(seed: int, position: int) -> np.random.Generator:
    """The random numbers of where one sample's crop lies, and how it is scaled, turned and bent."""
    return np.random.Generator(np.random.Philox(key=[seed, position], counter=[0, 0, 0, _GEOMETRY]))


def texture_generator(seed: int, position: int) -> np.random.Generator:
    """The random numbers of one sample's blur and noise."""
    return np.random.Generator(np.random.Philox(key=[seed, position], counter=[0, 0, 0, _TEXTURE]))


def mixing_generator(seed: int, position: int) -> np.random.Generator:
    """The random numbers of what covers one sample's crop."""
    return np.random.Generator(np.random.Philox(key=[seed, position], counter=[0, 0, 0, _MIXING]))


def operation_generator(seed: int, position: int) -> np.random.Generator:
    """The random numbers of the one operation that changes one sample's light or colour."""
    return np.random.Generator(np.random.Philox(key=[seed, position], counter=[0, 0, 0, _OPERATION]))


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
