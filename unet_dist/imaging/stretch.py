"""Images of any type as pictures for the eye.

Owns how many bands and wide values are shown: the first three bands, or the first, each from its 0.5 to its 99.5 percentile.
Nothing that a network sees comes this way.
"""

from __future__ import annotations

import numpy as np

_LOOKED_AT_PX = 2**20
"""Pixels that the percentiles are taken from, evenly spread: their error is below 0.02 % of the pixels."""


def as_picture(image: np.ndarray) -> np.ndarray:
    """Show an image (H, W, C): of 8 bits the first three bands or the first as they are, of other types stretched.

    NaN is black.

    Returns:
        (H, W, 3) or (H, W, 1) uint8.
    """
    shown = image[:, :, :3] if image.shape[2] >= 3 else image[:, :, :1]
    if shown.dtype == np.uint8:
        return shown
    step = max(1, int((shown.shape[0] * shown.shape[1] / _LOOKED_AT_PX) ** 0.5))
    picture = np.zeros(shown.shape, dtype=np.uint8)
    for channel in range(shown.shape[2]):
        plane = shown[:, :, channel].astype(np.float32)
        sample = plane[::step, ::step]
        sample = sample[np.isfinite(sample)]
        if sample.size:
            low, high = np.percentile(sample, (0.5, 99.5))
            scaled = (np.clip(plane, low, high) - low) * (255 / ((high - low) or 1.0))
            picture[:, :, channel] = np.rint(np.nan_to_num(scaled)).astype(np.uint8)
    return picture
