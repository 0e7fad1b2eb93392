"""Lack of memory, told from other failures.

Owns the words by which libraries say it where they have no type for it. Must not know what is done about it.
"""

from __future__ import annotations

import torch

# Of torch's allocator on a CPU; of the C++ library; of cuBLAS and cuDNN, whose own allocations are not torch's; and of torch where
# none of cuDNN's algorithms found the memory to work in, of which it swallows the reason.
_WORDS = ("DefaultCPUAllocator", "std::bad_alloc", "STATUS_ALLOC_FAILED", "unable to find an engine to execute")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell lack of memory from other failures: beside torch's own type there are plain RuntimeErrors."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)
