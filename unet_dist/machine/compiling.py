"""Compiling a network for training: whether this machine can, and the compiled network.

Owns what is asked of torch.compile: one graph and static shapes, as crops are of one size. Must not know processes or
checkpoints: the compiled network shares its parameters with the network, which stays as it is, and what is saved is of that.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

DEFAULT_BACKEND = "inductor"


def choose_backend(wish: bool, environment: Mapping[str, str]) -> str | None:
    """Settle what compiles between the config and accelerate launch (--dynamo_backend); a launcher's "no" is no wish.

    Returns:
        A backend of torch.compile, or None.
    """
    launched = environment.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if launched != "no":
        return launched
    return DEFAULT_BACKEND if wish else None


def find_obstacle(backend: str, device: torch.device) -> str | None:
    """Why a backend does not compile here, in its own words: it is tried on one product. None where it does."""
    # A new product each time: one of another day is in the cache, and a compiler that is gone since would not be missed.
    factor = time.time_ns() % 1_000_003

    def product(x: Tensor) -> Tensor:
        return x * factor

    try:
        compile_static(product, backend)(torch.ones(16, device=device))
    except RuntimeError as error:  # what torch raises for a compiler that is missing, broken or unknown
        cause = getattr(error, "inner_exception", None) or error
        return (str(cause).strip().splitlines() or [type(cause).__name__])[0].rstrip(".")
    return None


def compile_static(network: Any, backend: str) -> Any:
    """Compile a network or a function into one graph for each shape that it is called with.

    It is compiled when it is first called: in minutes for a wide network on a CPU. A second graph that could not be whole is an
    error, and no slow remainder.
    """
    return torch.compile(network, backend=backend, dynamic=False, fullgraph=True)


def is_compiled(network: Any) -> bool:
    """Whether a network, or what its wrapper for several processes holds, is compiled."""
    return isinstance(getattr(network, "module", network), torch._dynamo.OptimizedModule)


def uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Within it a compiled network computes as it does uncompiled, so that a pass that is made once compiles no graph."""
    return torch.compiler.set_stance("force_eager")
