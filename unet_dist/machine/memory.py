"""Memory: how much a process may still take, and lack of it told from other failures.

Owns the words by which libraries report it where they have no type for it. Must not know the remedy.
"""

from __future__ import annotations

import os
import resource

import torch

from unet_dist.machine.control_groups import group_memory

# Of torch's allocator on a CPU; of the C++ library; of the driver, NCCL, cuBLAS and cuDNN, whose own allocations are not torch's:
# cuBLAS cannot make its handle in the last of a device's memory; and of torch where none of cuDNN's algorithms found the memory
# to work in, of which it swallows the reason.
_WORDS = (
    "DefaultCPUAllocator",
    "std::bad_alloc",
    "CUDA error: out of memory",
    "Cuda failure 2 'out of memory'",
    "STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "unable to find an engine to execute",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell lack of memory from other failures: beside torch's own type there are plain RuntimeErrors."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def free_bytes(device: torch.device, local_world_size: int) -> int:
    """Say how much memory a process may still take: of its device, or its part of the host's.

    On a host the least of: what the kernel calls available, what the control group leaves, and RLIMIT_DATA.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = [_proc("/proc/meminfo", "MemAvailable") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    free += [limit - use for limit, use in group_memory()]
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
