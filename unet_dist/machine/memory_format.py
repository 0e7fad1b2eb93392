"""The order in which training keeps a batch in memory: channel by channel, or the channels of a pixel side by side.

Owns which of them a device is fastest with. Both give the same but for rounding.
"""

from __future__ import annotations

from typing import Any

import torch


def choose_memory_format(wish: str, device_type: str, *, is_convolutional: bool = True) -> torch.memory_format:
    """Settle the memory format of training.

    Tensor cores, and oneDNN's kernels for AVX-512, take channels last as they are. A CPU without AVX-512 is slower with it forward
    and backward, though faster forward alone; with it a transformer is slower than without (docs/evidence/experiments.md).

    Args:
        wish: auto, channels_last or contiguous.
        device_type: cpu or cuda.
        is_convolutional: whether convolutions are most of the network's work.
    """
    if wish == "auto":
        has_kernels = is_convolutional and "AVX512" in torch.backends.cpu.get_cpu_capability()
        is_fast = device_type != "cpu" or has_kernels
        wish = "channels_last" if is_fast else "contiguous"
    return torch.channels_last if wish == "channels_last" else torch.contiguous_format


def memory_format_of(model: Any) -> torch.memory_format:
    """Say in which format a network's weights are, and so what it is to be fed in."""
    weights = (parameter for parameter in model.parameters() if parameter.dim() == 4)
    is_last = any(w.is_contiguous(memory_format=torch.channels_last) and not w.is_contiguous() for w in weights)
    return torch.channels_last if is_last else torch.contiguous_format
