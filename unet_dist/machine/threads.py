"""Threads that ask something of a GPU.

Owns on which one they do. To CUDA the device in use is each thread's own, and a new thread begins on the first: whatever it asks
there, be it for page-locked memory or whether an event is over, first takes that GPU some half a GiB for the process. Of eight
processes on a node seven would take it from the one that computes there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch


def stay_on_device() -> Callable[[], None] | None:
    """Return what a new thread is to do first, to work on the device of the thread that asks; None where no GPU is in use."""
    if not torch.cuda.is_initialized():
        return None
    return partial(torch.cuda.set_device, torch.cuda.current_device())
