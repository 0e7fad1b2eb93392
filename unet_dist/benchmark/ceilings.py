"""What a device can do at most: a large matrix product and a copy, measured where and when the rest is.

Owns the two roofs that everything else is held against (Williams, Waterman and Patterson 2009, "Roofline").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from unet_dist.benchmark.timing import affordable, seconds

# A product of this side fills the device: on 2 CPU cores 2048 takes 0.13 s in float32, and 4096 is no faster.
SIDE = {"cpu": 2048}
SIDE_OF_DEVICES = 8192
# Far beyond any cache, so that a copy is one through memory.
COPY_BYTES = {"cpu": 2**28}
COPY_BYTES_OF_DEVICES = 2**30
REPEATS = 10
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Ceilings:
    """The roofs of a device.

    Attributes:
        flops_per_s: floating-point operations of a large matrix product, a product and a sum being two.
        bytes_per_s: bytes of a large copy, read and written both counted.
    """

    flops_per_s: float
    bytes_per_s: float

    def limit_s(self, flops: float, num_bytes: float) -> float:
        """The least time that so much work takes under the higher of the two roofs."""
        return max(flops / self.flops_per_s, num_bytes / self.bytes_per_s)


def compute_dtype(precision: str, dtype: torch.dtype) -> torch.dtype:
    """The type in which products are computed: of the mixed precision, else of the weights."""
    return _AUTOCAST.get(precision, dtype)


def measure_ceilings(device: torch.device, dtype: torch.dtype, budget_s: float) -> Ceilings:
    """Measure both roofs.

    Args:
        dtype: in which the run computes its products.
        budget_s: for each of the two, roughly; one repetition is made at least.
    """
    return Ceilings(matmul_rate(device, dtype, budget_s), copy_rate(device, budget_s))


def matmul_rate(device: torch.device, dtype: torch.dtype, budget_s: float, side: int | None = None) -> float:
    """Floating-point operations per second of a square matrix product, the median of some."""
    side = side or SIDE.get(device.type, SIDE_OF_DEVICES)
    # Not all alike: a GPU draws less power over such numbers, and is faster with them than with any real ones.
    left, right, out = (torch.randn(side, side, device=device).to(dtype) for _ in range(3))
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda" and dtype == torch.float32 and torch.backends.cudnn.allow_tf32:
        torch.set_float32_matmul_precision("high")  # as cuDNN's convolutions do by default
    try:
        return 2 * side**3 / _median_s(lambda: torch.mm(left, right, out=out), device, budget_s)
    finally:
        torch.set_float32_matmul_precision(before)


def copy_rate(device: torch.device, budget_s: float, num_bytes: int | None = None) -> float:
    """Bytes read and written per second by a copy, the median of some."""
    num_bytes = num_bytes or COPY_BYTES.get(device.type, COPY_BYTES_OF_DEVICES)
    source = torch.ones(num_bytes // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _median_s(lambda: target.copy_(source), device, budget_s)


def _median_s(work: Callable[[], object], device: torch.device, budget_s: float) -> float:
    work()  # touches the pages, and lets a library choose its kernel
    first = seconds(work, device)
    times = [first, *(seconds(work, device) for _ in range(affordable(REPEATS, first, budget_s) - 1))]
    return sorted(times)[len(times) // 2]
