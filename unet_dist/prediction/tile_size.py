"""The tile size of least predicted time that memory allows.

Owns the choice for `--tile_size auto`: how much memory there is, what a batch of windows needs and how long it takes. The
result of a prediction does not depend on it.
"""

from __future__ import annotations

import copy
import os
import resource
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from unet_dist.errors import ConfigError
from unet_dist.prediction.exact import is_out_of_memory
from unet_dist.prediction.values import Recipe, probabilities_of, values_of
from unet_dist.tiling.geometry import TilePlan, WindowSizes

# A window's time beside its pixels (Python, reading, transfers). Assumption: as 20,000 px, about 10 ms at width 64 on 2
# cores.
_WINDOW_OVERHEAD_PX = 20_000
# On a CPU a pixel of a larger window takes longer: 4.4 us at 572 px, 2.9 us * 2.1 at 1276 x 2108 px (FACTS: 6.6 s for 15
# windows against 7.9 s for one), which is the power 0.36 of its pixels.
_CPU_GROWTH, _CPU_FLAT_PX = 0.36, 572 * 572
# Share of the memory that activations may take; the rest is for the workspace of convolutions and for gaps between
# tensors. Measured on a CPU (4 windows of 572 and 828 px, width 4; anonymous memory at its peak): float32 86 of 140 MiB
# and 213 of 399 MiB are activations, float64, whose convolutions unfold their input, 172 of 1050 and 427 of 3296 MiB.
_USABLE_CPU = {torch.float64: 0.12}
_USABLE_OTHER_CPU = 0.5
_USABLE_DEVICE = 0.7  # assumption
_LARGEST = 4096


def choose_tile_size(
    model: Any,
    image_shapes: Sequence[tuple[int, int]],
    *,
    plan: Callable[[tuple[int, int], int], TilePlan],
    smallest: int,
    window_batch: int,
    recipe: Recipe,
    memory_bytes: int,
) -> int:
    """Choose the side of a window.

    Args:
        plan: (image shape, tile size) -> tiles.
        smallest: tile size that the network takes.
        memory_bytes: for activations.

    Raises:
        ConfigError: memory does not suffice for the smallest window.
    """
    sizes: WindowSizes = model.window_sizes
    shadow = copy.deepcopy(model).to("meta")
    parameter = next(model.parameters())
    is_cpu = parameter.device.type == "cpu"
    usable = _USABLE_CPU.get(parameter.dtype, _USABLE_OTHER_CPU) if is_cpu else _USABLE_DEVICE
    best: tuple[float, int] | None = None
    for side in _candidates(sizes, smallest):
        need = predict_bytes(shadow, side, window_batch, recipe)
        if need > usable * memory_bytes:
            if best is not None:
                break  # larger ones do not fit either
            raise ConfigError(
                f"memory: got {memory_bytes / 2**30:.2f} GiB, expected {need / usable / 2**30:.2f} GiB for {window_batch} "
                f"of the smallest windows ({side} px). Raise --memory or lower --window_batch."
            )
        seconds = sum(_cost(plan(shape, side), is_cpu) for shape in image_shapes)
        if best is None or seconds < best[0]:
            best = (seconds, side)
    assert best is not None
    return _probe(model, best[1], smallest, window_batch)


def predict_bytes(model: Any, side: int, window_batch: int, recipe: Recipe) -> int:
    """Count the bytes that live at once while a batch of windows is computed, on torch's meta device.

    Args:
        model: on the meta device.
    """
    parameter = next(model.parameters())
    with torch.inference_mode(), _LiveBytes() as live:
        images = torch.empty(window_batch, model.in_channels, side, side, dtype=parameter.dtype, device="meta")
        logits = model(images)
        del images
        probabilities = probabilities_of(logits, model.ignore_index) if recipe.needs_probabilities else None
        values_of(recipe, model.ignore_index, logits=logits, probabilities=probabilities)
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Follows the storages that operations make, and notes the most bytes that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage not in self._known:
                    self._known.add(storage)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _free(self, num_bytes: int) -> None:
        self.now -= num_bytes


def _candidates(sizes: WindowSizes, smallest: int) -> Iterator[int]:
    """Yield sides a fifth apart: closer ones differ by less than the prediction of their time is worth."""
    side = smallest
    while side <= max(_LARGEST, smallest):
        yield side
        side = sizes.round_up(max(side + 1, side * 6 // 5))


def _cost(plan: TilePlan, is_cpu: bool) -> float:
    pixels = plan.window_shape[0] * plan.window_shape[1]
    growth = max(1.0, pixels / _CPU_FLAT_PX) ** _CPU_GROWTH if is_cpu else 1.0
    return len(plan) * (pixels * growth + _WINDOW_OVERHEAD_PX)


def _probe(model: Any, side: int, smallest: int, window_batch: int) -> int:
    """Run one batch; where memory runs out all the same, the next smaller side is taken."""
    parameter = next(model.parameters())
    while True:
        try:
            with torch.inference_mode():
                model(parameter.new_zeros(window_batch, model.in_channels, side, side))
            return side
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or side <= smallest:
                raise
        if parameter.device.type == "cuda":
            torch.cuda.empty_cache()
        side = max(model.window_sizes.round_down(side * 3 // 4) or smallest, smallest)


def free_bytes(device: torch.device, local_world_size: int) -> int:
    """Say how much memory a process may still take: of its device, or its part of the host's.

    On a host the least of: what the kernel calls available, what the control group leaves, and RLIMIT_DATA.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = [_proc("/proc/meminfo", "MemAvailable") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    try:
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as current:
            free.append(int(limit.read()) - int(current.read()))
    except (OSError, ValueError):  # no control group, or "max"
        pass
    share = min(free) // local_world_size
    limit_bytes, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit_bytes != resource.RLIM_INFINITY:
        share = min(share, limit_bytes - (_proc("/proc/self/status", "VmData") or 0))
    return max(share, 0)


def _proc(path: str, key: str) -> int | None:
    """Read a line such as `MemAvailable:  123 kB` in bytes."""
    try:
        with open(path) as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith(key + ":")), None)
    except OSError:
        return None
