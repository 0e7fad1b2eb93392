"""How the tensors of a checkpoint come to the host while training continues.

Owns the copy alone. On a GPU it goes into one page-locked buffer, on a stream beside the training's: the host waits for nothing.
Must not know the files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

ALIGNMENT = 64
"""Bytes; a tensor of any type may begin there."""


class Landing:
    """Where tensors are copied to; one for a run, as page-locked memory takes longer to get than the copy."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self._stream: torch.cuda.Stream | None = None

    def take(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Callable[[], object]]:
        """Start to copy tensors to the host.

        Returns:
            The copies, contiguous, which the next call overwrites where they are of a GPU; and what waits until they are there.
        """
        device = next((t.device for t in tensors.values() if t.device.type == "cuda"), None)
        if device is None:
            return {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}, lambda: None
        needed = packed_bytes(tensors)
        if self._buffer is None or len(self._buffer) < needed:
            self._buffer = torch.empty(needed, dtype=torch.uint8, pin_memory=True)
        self._stream = self._stream or torch.cuda.Stream(device)
        training = torch.cuda.current_stream(device)
        self._stream.wait_stream(training)
        with torch.cuda.stream(self._stream):
            copies = pack(tensors, self._buffer)
        arrived = self._stream.record_event()
        training.wait_stream(self._stream)  # the next update must not overtake the copy; the host does not wait
        return copies, arrived.synchronize


def packed_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that pack needs."""
    return sum(_room(tensor) for tensor in tensors.values())


def pack(tensors: Mapping[str, Tensor], buffer: Tensor) -> dict[str, Tensor]:
    """Copy tensors side by side into a buffer, (n,) uint8; gives views of it, contiguous whatever order their values had."""
    views, at = {}, 0
    for name, tensor in tensors.items():
        bytes_ = buffer[at : at + tensor.numel() * tensor.element_size()]
        views[name] = bytes_.view(tensor.dtype).view(tensor.shape)
        views[name].copy_(tensor.detach().contiguous(), non_blocking=True)  # reordered where it lies, not on the host
        at += _room(tensor)
    return views


def _room(tensor: Tensor) -> int:
    return -(-tensor.numel() * tensor.element_size() // ALIGNMENT) * ALIGNMENT
