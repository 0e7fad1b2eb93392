"""Values on their way from the device to the host, while the device computes the next batch.

Owns the copies, where they lie and the wait for them: one wait a batch, by whoever needs the values, never by whoever computes.
Must not know what the values are for.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unet_dist.prediction.tiles import Values


class Fetching:
    """The values of a batch; their copies are begun here, behind what the device has been given so far.

    Args:
        values: for each piece its rasters' values, on some device; None for a piece without.
    """

    def __init__(self, values: Sequence[Values | None]) -> None:
        self._values = [None if e is None else {kind: _begin(part) for kind, part in e.items()} for e in values]
        device = next((part.device for entry in values if entry for part in entry.values()), torch.device("cpu"))
        self._arrived: torch.Event | None = None
        if device.type == "cuda":
            self._arrived = torch.Event(device)
            self._arrived.record()

    def wait(self) -> list[dict[str, np.ndarray] | None]:
        """Return the values once they are there; for what the device was given after them nothing waits."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._values


def _begin(values: Tensor) -> np.ndarray:
    """Begin a copy into pinned memory, which is what lets it run beside the computing; elsewhere wait for it."""
    if values.device.type == "cuda":
        pinned: np.ndarray = values.to("cpu", non_blocking=True).numpy()
        return pinned
    return _apart(values.cpu().numpy())


def _apart(values: np.ndarray) -> np.ndarray:
    """Copy into a mapping of its own.

    In the heap, labels that wait to be written would lie between the activations that were freed, while the next batch is
    computed: the largest no longer find their place, and the heap grows by one more set of them for every batch that waits.
    """
    try:
        memory = mmap.mmap(-1, max(values.nbytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        # The system has no more; the heap may have kept freed memory. If it has not, numpy raises MemoryError.
        return values.copy()
    copy = np.frombuffer(memory, values.dtype, values.size).reshape(values.shape)
    copy[...] = values
    return copy
