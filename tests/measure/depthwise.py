"""Time the forward and the backward pass of depthwise convolutions on a CPU, in bf16 and in float32.

    OMP_NUM_THREADS=1 python -m tests.measure.depthwise

The shapes are those of EfficientNet-Lite0 on two crops of 320 px, channels last. Medians of seven.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch.nn import functional as F

# channels, side, kernel, stride
SHAPES = (
    (32, 160, 3, 1),
    (96, 160, 3, 2),
    (144, 80, 3, 1),
    (144, 80, 5, 2),
    (240, 40, 5, 1),
    (240, 40, 3, 2),
    (672, 20, 5, 1),
)
ROUNDS = 7


def main() -> None:
    """Print a line a shape."""
    for channels, side, kernel, stride in SHAPES:
        cells = []
        for dtype in (torch.bfloat16, torch.float32):
            forward, backward = times(channels, side, kernel, stride, dtype)
            cells.append(f"{str(dtype).removeprefix('torch.')} {1000 * forward:.1f} + {1000 * backward:.1f} ms")
        print(f"{channels} channels of {side}x{side} px, kernel {kernel}, stride {stride}: {', '.join(cells)}")


def times(channels: int, side: int, kernel: int, stride: int, dtype: torch.dtype) -> tuple[float, float]:
    """Median seconds of the forward and of the backward pass."""
    values = torch.randn(2, channels, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last)
    values.requires_grad_()
    weight = torch.randn(channels, 1, kernel, kernel, dtype=dtype, requires_grad=True)
    laps = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        result = F.conv2d(values, weight, None, stride, padding=kernel // 2, groups=channels)
        between = time.perf_counter()
        result.sum().backward()
        laps.append((between - began, time.perf_counter() - between))
    forward, backward = zip(*laps, strict=True)
    return statistics.median(forward), statistics.median(backward)


if __name__ == "__main__":
    main()
