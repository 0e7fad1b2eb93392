"""Copies from the host to a GPU, beside its computing.

Owns the stream that they take, one per device. Must not know the tensors' meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor


@contextmanager
def uploading(device: torch.device) -> Iterator[Callable[[Tensor], Tensor]]:
    """Within it, copy tensors to a device by the function that is given; after it, compute with them.

    A GPU copies from page-locked memory while it computes what it was given before: a copy in the stream of the computing would
    wait for all of that, and all that follows for the copy. The host waits for neither.
    """
    if device.type != "cuda":
        yield lambda tensor: tensor.to(device)
        return
    stream, copies = _stream(device), list[Tensor]()

    def upload(tensor: Tensor) -> Tensor:
        if tensor.device.type == "cuda":
            return tensor
        copies.append(tensor.to(device, non_blocking=True))
        return copies[-1]

    with torch.cuda.stream(stream):
        yield upload
    if copies:
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(stream)
        for copy in copies:
            copy.record_stream(computing)  # its memory is the copying stream's, which else takes it back too early


@lru_cache(maxsize=8)
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
