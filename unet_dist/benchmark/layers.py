"""Where the time of a step goes, layer by layer, against what each layer must take at least.

Owns the attribution of every operation of a forward and a backward pass to the layer it belongs to, with its time, its
floating-point operations and the bytes it moves. Knows no architecture: layers are a network's modules.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from unet_dist.benchmark.ceilings import Ceilings
from unet_dist.benchmark.timing import synchronise
from unet_dist.planner.operations import COUNTS

OUTSIDE = "outside the network"
BETWEEN = "between the blocks"
_MARK = "unet_dist.layer"
_ALLOCATIONS = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")


@dataclass(frozen=True)
class MeasuredLayer:
    """What a layer did in a forward and a backward pass.

    Attributes:
        seconds: the median of the passes.
        flops: floating-point operations.
        num_bytes: what its operations read and wrote, each tensor once an operation.
        limit_s: the larger of its operations over the matmul rate and its bytes over the bandwidth.
    """

    name: str
    seconds: float
    flops: int
    num_bytes: int
    limit_s: float

    @property
    def share_of_limit(self) -> float:
        """The least time over the time taken: 1 is the roof."""
        return self.limit_s / self.seconds if self.seconds else 0.0

    def bound(self, ceilings: Ceilings) -> str:
        """Which roof it lies under: matmul or memory."""
        is_matmul = self.flops / ceilings.flops_per_s > self.num_bytes / ceilings.bytes_per_s
        return "matmul" if is_matmul else "memory"


def time_layers(
    model: nn.Module, work: Callable[[], object], device: torch.device, ceilings: Ceilings, *, passes: int
) -> list[MeasuredLayer]:
    """Time a forward and a backward pass layer by layer.

    Operations that a layer's parent makes itself, such as ReLU, count as the parent's; those of the network itself as BETWEEN, and
    those outside of it, such as the loss, as OUTSIDE.

    Args:
        work: makes both passes of the model; called `passes` times after one that is not counted.
        device: where it computes.

    Returns:
        The layers in the order in which they first computed something.
    """
    work()
    clocks = []
    for _ in range(passes):
        with _LayerClock(model, device) as clock:
            work()
        clock.settle()
        clocks.append(clock)
    layers = []
    for name, done in clocks[0].work.items():
        taken = statistics.median(clock.work[name].seconds for clock in clocks)
        layers.append(
            MeasuredLayer(name, taken, done.flops, done.num_bytes, ceilings.limit_s(done.flops, done.num_bytes))
        )
    return layers


@dataclass
class _Work:
    seconds: float = 0.0
    flops: int = 0
    num_bytes: int = 0


class _Layers:
    """Knows which layer computes now: in the forward pass by hooks, in the backward pass by marks on the graph."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._inside: list[tuple[str, set[Any]]] = []
        self._handles: list[Any] = []

    @property
    def name(self) -> str:
        if self._inside:
            return self._inside[-1][0]
        node: Any = torch._C._current_autograd_node()  # no public name for it; its metadata is a dictionary
        return OUTSIDE if node is None else node.metadata.get(_MARK, OUTSIDE)

    def watch(self) -> None:
        """Put the hooks on."""
        for name, module in self._model.named_modules():
            self._handles.append(module.register_forward_pre_hook(partial(self._enter, name or BETWEEN)))
            self._handles.append(module.register_forward_hook(self._leave, always_call=True))

    def leave(self) -> None:
        """Take them off."""
        for handle in self._handles:
            handle.remove()

    def _enter(self, name: str, _module: nn.Module, inputs: Any) -> None:
        self._inside.append((name, {leaf.grad_fn for leaf in tree_iter(inputs) if isinstance(leaf, Tensor)}))

    def _leave(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        """Mark the nodes added to the graph since the layer was entered, but for those of layers inside."""
        name, before = self._inside.pop()
        pending: list[Any] = [leaf.grad_fn for leaf in tree_iter(output) if isinstance(leaf, Tensor)]
        while pending:
            node = pending.pop()
            if node is None or node in before or _MARK in node.metadata:
                continue
            node.metadata[_MARK] = name
            pending += [following for following, _ in node.next_functions]


class _LayerClock(TorchDispatchMode):
    """Times each operation under the name of the innermost layer that it belongs to, forward or backward."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self._device = device
        self._layers = _Layers(model)
        self._marks: list[tuple[str, Any, Any]] = []
        self.work: dict[str, _Work] = defaultdict(_Work)

    def __enter__(self) -> Any:
        self._layers.watch()
        synchronise(self._device)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._layers.leave()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "is_view", False):  # no work: the same bytes seen otherwise
            return func(*args, **kwargs)
        name = self._layers.name
        start = self._mark()
        result = func(*args, **kwargs)
        self._marks.append((name, start, self._mark()))
        done = self.work[name]
        count = COUNTS.get(func._overloadpacket)
        if count is not None:
            done.flops += int(count(*args, **kwargs, out_val=result))
        if func._overloadpacket.__name__ not in _ALLOCATIONS:
            done.num_bytes += sum(_num_bytes(leaf) for leaf in tree_iter((args, kwargs, result)))
        return result

    def _mark(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def settle(self) -> None:
        """Turn the marks into seconds; on a GPU, once all is done."""
        synchronise(self._device)
        for name, start, end in self._marks:
            is_event = self._device.type == "cuda"
            self.work[name].seconds += start.elapsed_time(end) / 1e3 if is_event else end - start
        self._marks.clear()


def _num_bytes(leaf: Any) -> int:
    """Bytes of a tensor; of one that repeats itself, those that exist."""
    if not isinstance(leaf, Tensor):
        return 0
    return min(leaf.numel() * leaf.element_size(), leaf.untyped_storage().nbytes())
