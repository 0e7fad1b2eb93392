"""Count the memory that a computation would take, by part, without taking it.

Owns the bookkeeping: which storages live, what each is for, and how much was alive at the worst moment. Runs under torch's fake
tensors, which have shapes and no values. Must not know the computation.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from unet_dist.planner.segments import Place, Segments

WEIGHTS, GRADIENTS, OPTIMIZER = "weights", "gradients", "optimizer"
ACTIVATIONS, INPUT, WORKSPACE, GAPS = "activations", "input", "workspace", "gaps"
PARTS = (WEIGHTS, GRADIENTS, OPTIMIZER, ACTIVATIONS, INPUT, WORKSPACE, GAPS)

_CONVOLUTION = torch.ops.aten.convolution.default
_CONVOLUTION_BACKWARD = torch.ops.aten.convolution_backward.default
# In inference mode these arrive whole, and their results are found below them.
_COMPOSED = (torch.ops.aten.conv2d.default, torch.ops.aten.conv_transpose2d.input)


@dataclass(frozen=True)
class Peak:
    """The moment of most memory.

    Attributes:
        parts: bytes of each of PARTS at that moment.
        largest_bytes: the largest single allocation of the computation.
    """

    parts: dict[str, int]
    largest_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


@dataclass
class _Block:
    """A storage: its size and what it is for."""

    num_bytes: int
    part: str
    place: Place | None = None


class LiveMemory(TorchDispatchMode):
    """Follows the storages that operations make; enter it inside torch's FakeTensorMode.

    Args:
        device_type: cpu or cuda: whose convolutions are computed, and in which memory layout their results are.
        has_workspace: whether convolutions on a GPU take memory beside their results.
    """

    def __init__(self, device_type: str, *, has_workspace: bool = True) -> None:
        super().__init__()
        self._device_type = device_type
        self._has_workspace = has_workspace or device_type == "cpu"
        self._segments = Segments() if device_type == "cuda" else None
        self._blocks: dict[int, _Block] = {}
        self._live = dict.fromkeys(PARTS, 0)
        self._now = 0
        self._part = ACTIVATIONS
        self._peak_bytes = 0
        self._peak = dict(self._live)
        self._largest_bytes = 0

    @property
    def peak(self) -> Peak:
        """The worst moment since the start, or since forget_peak; on a GPU with what its allocator has taken by now beside it."""
        gaps = 0 if self._segments is None else self._segments.reserved - sum(self._peak.values())
        return Peak({**self._peak, GAPS: max(gaps, 0)}, self._largest_bytes)

    def forget_peak(self) -> None:
        """Look for the worst moment from now on."""
        self._peak_bytes, self._largest_bytes = 0, 0
        self._note(0)

    @contextmanager
    def making(self, part: str) -> Iterator[None]:
        """Count tensors made inside as this part."""
        before, self._part = self._part, part
        try:
            yield
        finally:
            self._part = before

    def count_as(self, part: str, tensors: Iterable[Tensor]) -> None:
        """Count tensors that exist as this part from now on."""
        for tensor in tensors:
            block = self._blocks[id(tensor.untyped_storage())]
            self._live[block.part] -= block.num_bytes
            self._live[part] += block.num_bytes
            block.part = part

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _COMPOSED:
            with self:
                return func.decompose(*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        if func is _CONVOLUTION and self._device_type == "cuda" and _is_channels_last(args[0]):
            # cuDNN keeps the layout of its input; the fake kernel of a host without fast bf16 does not.
            result = torch.empty_like(result, memory_format=torch.channels_last)
        workspace = 0
        if func in (_CONVOLUTION, _CONVOLUTION_BACKWARD) and self._has_workspace:
            needed = _while_running(self._device_type, func, args, result)
            made = sum(t.untyped_storage().nbytes() for t in tree_iter(result) if isinstance(t, Tensor))
            workspace = max(needed - made, 0)
            self._live[self._part] += made
            self._note(workspace, made)
            self._live[self._part] -= made
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        if workspace and self._segments is not None:
            self._segments.give_back(self._segments.take(workspace))
        self._note(0)
        return result

    def _follow(self, storage: Any) -> None:
        key = id(storage)
        if key in self._blocks:
            return
        place = self._segments.take(storage.nbytes()) if self._segments and storage.nbytes() else None
        block = self._blocks[key] = _Block(storage.nbytes(), self._part, place)
        self._now += block.num_bytes
        self._live[block.part] += block.num_bytes
        self._largest_bytes = max(self._largest_bytes, block.num_bytes)
        # The Python object of a storage lives as long as the storage itself, also where only the graph holds it.
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        block = self._blocks.pop(key)
        self._now -= block.num_bytes
        self._live[block.part] -= block.num_bytes
        if self._segments is not None and block.place is not None:
            self._segments.give_back(block.place)

    def _note(self, workspace_bytes: int, made_bytes: int = 0) -> None:
        total = self._now + workspace_bytes + made_bytes
        if total > self._peak_bytes:
            self._peak_bytes = total
            self._peak = {**self._live, WORKSPACE: workspace_bytes}


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _while_running(device_type: str, func: Any, args: Any, result: Any) -> int:
    """Count the most bytes that a convolution has allocated while it runs, its results included."""
    if func is _CONVOLUTION:
        images, weight = args[0], args[1]
        return _forward_bytes(device_type, images, weight, result, args)
    gradient, images, weight, mask = args[0], args[1], args[2], args[10]
    made = sum(_num_bytes(tensor) for tensor in result if tensor is not None)
    if device_type != "cpu":
        return made + max(_num_bytes(gradient), _num_bytes(images))  # assumption, as for the forward pass
    fmt = torch.channels_last if _is_channels_last(images) else torch.contiguous_format
    copy = 0 if gradient.is_contiguous(memory_format=fmt) else _num_bytes(gradient)
    backend = _backend(images, weight, args[3], args[4:10])
    if backend == "slow":
        return made + copy + _columns_bytes(images, weight, gradient)
    if fmt is torch.channels_last:
        return made + copy + 2 * _num_bytes(weight)
    # Measured with torch's allocation record: first the gradient of the input, then that of the weights, each in oneDNN's layout.
    blocked_gradient, own = _blocked_bytes(gradient), _num_bytes(weight)
    blocked_images = 0 if images.shape[1] == 3 else _blocked_bytes(images)
    phases = [(_num_bytes(images) if mask[0] else 0) + blocked_gradient + blocked_images + 2 * own]
    if mask[0]:
        phases += [blocked_gradient + own + _blocked_bytes(images), _blocked_bytes(images) + _num_bytes(images)]
    return copy + max(phases)


def _forward_bytes(device_type: str, images: Tensor, weight: Tensor, result: Tensor, args: Any) -> int:
    if device_type != "cpu":
        # assumption: cuDNN's workspace is as large as the result. Not measured: no GPU was at hand.
        return 2 * _num_bytes(result)
    is_transposed = bool(args[6])
    if _backend(images, weight, args[2], args[3:9]) == "slow":
        return _num_bytes(result) + _columns_bytes(images, weight, result)
    if _is_channels_last(images):
        return _num_bytes(result) + 2 * _num_bytes(weight)
    blocked_result = _blocked_bytes(result)
    blocked_images = 0 if images.shape[1] in (1, 3) else _blocked_bytes(images)
    leaving = blocked_result + (2 if is_transposed else 1) * _num_bytes(result)
    return max(blocked_images + _num_bytes(weight) + blocked_result, leaving)


def _backend(images: Tensor, weight: Tensor, bias: Any, geometry: Any) -> str:
    """Ask torch which implementation of a convolution it would take on this CPU: onednn or slow (by matrix products)."""
    bias = bias if isinstance(bias, Tensor) else None
    chosen = str(torch._C._select_conv_backend(images, weight, bias, *geometry))
    return "slow" if "Slow" in chosen else "onednn"  # the name of the transposed oneDNN kernel is not printable


def _blocked_bytes(tensor: Tensor) -> int:
    """Size of a copy in oneDNN's layout: channels in blocks as wide as a register (8 floats with AVX2, 16 with AVX-512)."""
    block = 16 if "AVX512" in torch.backends.cpu.get_cpu_capability() else 8
    num_samples, channels, height, width = tensor.shape
    return num_samples * math.ceil(channels / block) * block * height * width * tensor.element_size()


def _columns_bytes(images: Tensor, weight: Tensor, result: Tensor) -> int:
    """Size of the unfolded input of a convolution by matrix products; none for 1x1."""
    kernel = weight.shape[2] * weight.shape[3]
    if kernel == 1:
        return 0
    pixels = min(result.shape[2] * result.shape[3], images.shape[2] * images.shape[3] * kernel)
    return images.shape[0] * weight.shape[1] * kernel * pixels * images.element_size()
