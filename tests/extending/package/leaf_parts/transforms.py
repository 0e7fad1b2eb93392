"""A sample transform: a crop and its labels, changed alike, as a function of the seed alone."""

from __future__ import annotations

import numpy as np


class NoisyFlip:
    """Noise on every crop, and half of the crops upside down."""

    def __init__(self, strength: float = 10.0) -> None:
        self.strength = strength

    def __call__(
        self, image: np.ndarray, labels: np.ndarray, border: np.ndarray | None = None, *, seed: int
    ) -> tuple[np.ndarray, ...]:
        """(H, W, C) uint8, (H, W) uint8 and, where borders weigh, (H, W) float32 -> the same shapes and types."""
        random = np.random.default_rng(seed)
        noisy = np.clip(image + random.normal(0, self.strength, image.shape), 0, 255).astype(np.uint8)
        planes = [plane for plane in (noisy, labels, border) if plane is not None]
        return tuple(plane[::-1] for plane in planes) if random.integers(2) else tuple(planes)
