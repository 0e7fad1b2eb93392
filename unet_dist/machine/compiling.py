"""Compiling a network for training, as far as this machine can.

Owns the options of torch.compile (one graph and static shapes, as crops are of one size), and what happens where it fails. Must
not know processes or checkpoints: the compiled network shares its parameters with the network, which stays as it is and is the one
that is saved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unet_dist.machine.memory import is_out_of_memory

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


def compile_static(network: Any, backend: str) -> Any:
    """Compile a network or a function into one graph for each shape that it is called with.

    It is compiled when it is first called: in minutes for a wide network on a CPU. A second graph that could not be whole is an
    error, and no slow remainder.
    """
    return torch.compile(network, backend=backend, dynamic=False, fullgraph=True)


class CompiledNetwork(nn.Module):
    """A network that is compiled when it is first called, and computes uncompiled once that fails.

    Args:
        network: stays as it is; both share their parameters.
        say: what to do with the one sentence of a failure.

    Attributes:
        obstacle: why it is not compiled, in the compiler's words; None where it is.
    """

    def __init__(self, network: nn.Module, backend: str, say: Callable[[str], object]) -> None:
        super().__init__()
        self.network = network
        self.obstacle: str | None = None
        self._backend, self._say = backend, say
        self._compiled: Callable[..., Tensor] = network
        try:
            self._compiled = compile_static(network, backend)
        except RuntimeError as error:  # torch does not know the backend
            self.leave(in_words(error))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Compute as the network does."""
        if self.obstacle is None:
            from torch._dynamo.exc import FailOnRecompileLimitHit

            try:
                return self._compiled(*inputs)
            except FailOnRecompileLimitHit:  # the limit's name of torch 2.6, which later ones know as well
                self.leave(
                    f"its windows have more shapes than the {torch._dynamo.config.cache_size_limit} that are compiled"
                )
            except RuntimeError as error:  # what torch raises for a compiler that is missing, broken or unknown
                if is_out_of_memory(error):
                    raise
                self.leave(in_words(error))
        logits: Tensor = self.network(*inputs)
        return logits

    def leave(self, obstacle: str) -> None:
        """Compute uncompiled from now on, and say so."""
        if self.obstacle is None:
            self._say(f"compile: {self._backend} does not work here, so the network runs uncompiled: {obstacle}.")
        self.obstacle = obstacle


def in_words(error: Exception) -> str:
    """A failure of a compiler, in one line of its own words."""
    cause = getattr(error, "inner_exception", None) or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0].rstrip(".")


def compiled_within(network: Any) -> CompiledNetwork | None:
    """The compiled network that a network is, or that its wrapper for several processes holds; None where it is none."""
    within = getattr(network, "module", network)
    return within if isinstance(within, CompiledNetwork) else None


def is_compiled(network: Any) -> bool:
    """Whether a network, or what its wrapper for several processes holds, computes compiled."""
    compiled = compiled_within(network)
    return compiled is not None and compiled.obstacle is None


def uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Within it a compiled network computes as it does uncompiled, so that a pass that is made once compiles no graph."""
    return torch.compiler.set_stance("force_eager")
