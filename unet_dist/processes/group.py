"""Processes: the one place that knows accelerate, process groups and the ranks in the environment.

Owns starting and ending them, the device, mixed precision, and the few collectives the toolkit needs. Must not know training
or prediction.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unet_dist.config.sections import Precision
from unet_dist.errors import ConfigError, ExtraError, LaunchError, suggest
from unet_dist.machine.allocator import keep_freed_memory, use_growing_segments
from unet_dist.machine.arithmetic import compute_deterministically, compute_in_float32
from unet_dist.machine.compiling import CompiledNetwork
from unet_dist.processes.failing import announce, end_together
from unet_dist.processes.launcher import (
    accept_own_device,
    refuse_idle_gpu,
    refuse_shared_devices,
    refuse_silent_single_process,
)
from unet_dist.processes.messages import Json, all_gather, broadcast, require_json
from unet_dist.processes.precision import choose_device_type, has_fast_bf16, resolve_precision, why_no_gpu
from unet_dist.processes.rendezvous import MEETING, naming_the_place, stay_on_loopback
from unet_dist.processes.stopping import follow_launcher
from unet_dist.wording import counted

if TYPE_CHECKING:
    from accelerate import Accelerator

J = TypeVar("J", bound=Json)

_BACKENDS = {"cuda": "cpu:gloo,cuda:nccl", "xpu": "cpu:gloo,xpu:xccl"}
"""Collectives of host tensors beside the device's own: those of a process that is gone fail with a Python error."""


class Processes:
    """The processes of a run, seen from one of them.

    Attributes:
        rank, local_rank, world_size: whole numbers, as every launcher means them.
        device: where this process computes.
        host: where tensors are that the hosts reduce, without the device; the device itself where its backend stands alone.
        precision: "no", "fp16" or "bf16", resolved.
        accelerator: accelerate's, for mixed precision and trackers.
    """

    def __init__(
        self, accelerator: Accelerator, precision: str, accelerate: Callable[[str], Accelerator] | None = None
    ) -> None:
        self.accelerator = accelerator
        self.precision = precision
        self._accelerate = accelerate
        self.rank: int = accelerator.process_index
        self.local_rank: int = accelerator.local_process_index
        self.world_size: int = accelerator.num_processes
        self.device: torch.device = accelerator.device
        has_host = self.device.type in ("cpu", *_BACKENDS)
        self.host = torch.device("cpu") if has_host else self.device

    @property
    def is_main(self) -> bool:
        """Whether this process talks and writes."""
        return self.rank == 0

    def alone(self) -> Processes:
        """This process as if there were no other: to measure it by itself, while the others wait."""
        alone = copy.copy(self)
        alone.rank, alone.world_size = 0, 1
        return alone

    @contextlib.contextmanager
    def without_the_others(self, model: nn.Module) -> Iterator[None]:
        """Within it, where `alone` gave these processes, batch normalisation takes the statistics of this one only.

        The others wait elsewhere, and would not come to the collective that it makes of its statistics.
        """
        layers = [layer for layer in model.modules() if isinstance(layer, nn.SyncBatchNorm)]
        if not layers or self.world_size > 1 or not dist.is_initialized() or dist.get_world_size() == 1:
            yield
            return
        before = [layer.process_group for layer in layers]
        own = dist.new_group([dist.get_rank()], use_local_synchronization=True)  # made without the others, too
        try:
            for layer in layers:
                layer.process_group = own
            yield
        finally:
            for layer, group in zip(layers, before, strict=True):
                layer.process_group = group
            dist.destroy_process_group(own)

    def in_precision(self, wish: Precision) -> Processes:
        """The same processes in another mixed precision, to compare; parts that were prepared before keep theirs.

        Raises:
            ConfigError: fp16 on a CPU.
        """
        assert self._accelerate is not None, "processes that open_processes did not join"
        precision = resolve_precision(wish, {}, self.device.type, has_fast_bf16(self.device.type))
        return Processes(self._accelerate(precision), precision, self._accelerate)

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over the processes, in place; ordered on the device, without waiting for it."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def barrier(self) -> None:
        """Wait for all processes: on the host, where a lost process is an error with a sentence."""
        if self.world_size > 1:
            dist.all_reduce(torch.zeros((), device=self.host))

    def broadcast(self, value: J) -> J:
        """The main process's value, on every process.

        Args:
            value: JSON, which is all that processes tell each other beside tensors; only the main process's counts.

        Raises:
            TypeError: something else; on one process, too.
        """
        require_json(value)
        if self.world_size == 1:
            return value
        return cast(J, broadcast(value, self.rank, self.host))

    def gather(self, value: J) -> list[J]:
        """Every process's value, in the order of ranks, on every process; for small things that are not tensors.

        Raises:
            TypeError: as share.
        """
        require_json(value)
        if self.world_size == 1:
            return [value]
        return cast("list[J]", all_gather(value, self.world_size, self.host))

    def copy_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with the main process's, in place."""
        if self.world_size > 1:
            for tensor in tensors:
                on_device = tensor.to(self.device)
                dist.broadcast(on_device, src=0)
                if on_device is not tensor:
                    tensor.copy_(on_device)

    def prepare(
        self, model: nn.Module, backend: str | None = None, say: Callable[[str], object] = lambda _: None
    ) -> nn.Module:
        """Move a model to the device, wrap it for mixed precision and, on several processes, for gradient averaging.

        Args:
            backend: compiles the returned model, and leaves the given one as it is; None compiles nothing.
            say: what to do with the sentence of a compiler that fails.
        """
        # Where the placement is open, accelerate imports torch's sharded tensors to look for them: a second of each start.
        prepared: Any = self.accelerator.prepare_model(model, device_placement=True)
        if backend is None:
            return prepared
        compiled = CompiledNetwork(model, backend, say)
        if prepared is model:
            return compiled
        # Within the averaging, not around it: torch then cuts the graph where a bucket is full, so that its all-reduce runs
        # beside the rest of the backward pass.
        prepared.module = compiled
        return prepared

    @property
    def mixed_dtype(self) -> torch.dtype | None:
        """The type to which mixed precision casts; None where there is none."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Around a forward pass of a model that prepare has not wrapped: the run's mixed precision."""
        dtype = self.mixed_dtype
        return contextlib.nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)

    def accumulate(self, model: nn.Module, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        """Around a backward pass: gradients stay local until the last micro-batch of a step."""
        return contextlib.nullcontext() if is_last else self.accelerator.no_sync(model)


@contextlib.contextmanager
def open_processes(
    *,
    mixed_precision: Precision,
    expected_processes: int | None = None,
    collective_timeout_s: float = 1800.0,
    deterministic: bool | Literal["warn"] = False,
    tf32: bool = False,
    trackers: list[str] | None = None,
    project_dir: str | None = None,
) -> Iterator[Processes]:
    """Join the processes of the launcher, and leave them in good order.

    An error inside is printed by the process it happened on, once, and ends the others.

    Args:
        deterministic: refuses layers that are not, or only warns of them.
        tf32: whether float32 on a GPU may round to TF32.

    Raises:
        LaunchError: another number of processes than was asked for, or a GPU that torch cannot use.
        ConfigError: a precision that the device or the launcher contradicts.
    """
    refuse_silent_single_process(os.environ)
    follow_launcher(os.environ)
    stay_on_loopback(os.environ)
    keep_freed_memory()
    use_growing_segments(os.environ)
    from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState
    from accelerate.utils import GradientAccumulationPlugin, TorchDynamoPlugin

    if "LOCAL_RANK" in os.environ:
        # Its functions have the group of the moment of their import as a default. Imported later, as by the averaging of
        # gradients, they keep the group when it is destroyed, and its threads: one that drops a tensor while Python shuts down
        # aborts the process ("terminate called without an active exception").
        importlib.import_module("torch.distributed.nn.functional")
    if deterministic:
        compute_deterministically(os.environ, warns_only=deterministic == "warn")
    _require_trackers(trackers or [])
    accelerating = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device_type = choose_device_type(None if accelerating is None else accelerating.type, os.environ)
    if device_type == "cuda":
        refuse_shared_devices(os.environ, torch.cuda.device_count())
        accept_own_device(os.environ, torch.cuda.device_count())
    elif device_type == "cpu":
        refuse_idle_gpu(os.environ, has_gpu=Path("/dev/nvidia0").exists(), why=why_no_gpu)
    precision = resolve_precision(mixed_precision, os.environ, device_type, has_fast_bf16(device_type))
    if precision == "no":
        compute_in_float32(tf32=tf32)

    def accelerate(precision: str) -> Accelerator:
        AcceleratorState._reset_state()  # it refuses a second run of another precision; the process group stays
        return Accelerator(
            mixed_precision=precision,
            # Ranks on a host without an accelerator: accelerate takes each for a run of its own without this.
            cpu=device_type == "cpu" and (accelerating is not None or "LOCAL_RANK" in os.environ),
            log_with=trackers or None,
            project_dir=project_dir,
            # Otherwise it divides every loss by what accelerate launch says; ours is divided once, by the whole batch.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            # Otherwise it compiles the averaging, too, by what accelerate launch says; prepare compiles the inner model.
            dynamo_plugin=TorchDynamoPlugin(backend="no"),
            kwargs_handlers=[
                InitProcessGroupKwargs(
                    # On one process without a group accelerate would ask a named backend for its ranks.
                    backend=_BACKENDS.get(device_type) if "LOCAL_RANK" in os.environ else None,
                    init_method=MEETING,
                    timeout=timedelta(seconds=collective_timeout_s),
                ),
                # The same parameters have a gradient in every backward pass: of crops, of tiles and of a blank window.
                DistributedDataParallelKwargs(gradient_as_bucket_view=True, static_graph=True),
            ],
        )

    with naming_the_place(os.environ):
        accelerator = accelerate(precision)
    processes = Processes(accelerator, precision, accelerate)
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    assert processes.world_size == launched, (processes.world_size, launched, accelerator.distributed_type)
    try:
        announce(processes.rank, processes.world_size)
        if expected_processes is not None and processes.world_size != expected_processes:
            raise LaunchError(
                f"expected_processes: got {counted(processes.world_size, 'process', 'es')}, expected "
                f"{expected_processes}. On a host without GPUs several processes come from accelerate launch --multi_gpu "
                f"--num_processes {expected_processes}; on a cluster check that every node's launcher has the same value."
            )
        yield processes
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:
            _leave(processes)
            raise
        end_together(error, rank=processes.rank, world_size=processes.world_size, timeout_s=collective_timeout_s)
    else:
        _leave(processes)


def _leave(processes: Processes) -> None:
    """Shut down in step. The objects freed here held the group; as it ends, its threads are waited for."""
    processes.accelerator.free_memory()
    gc.collect()
    processes.barrier()
    processes.accelerator.end_training()
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # a script may join again, in another precision too


def _require_trackers(names: list[str]) -> None:
    """Refuse trackers that accelerate does not know or whose package is missing: it would leave them out in silence.

    Raises:
        ConfigError: not a name of accelerate's.
        ExtraError: the package is not installed.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    available = {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ConfigError(
                f"trackers: got {name!r}, expected names of trackers. {suggest(name, LOGGER_TYPE_TO_CLASS)}"
            )
        if name not in available:
            raise ExtraError(f"trackers: {name} is not installed. Run pip install {name}, or take it out of trackers.")
