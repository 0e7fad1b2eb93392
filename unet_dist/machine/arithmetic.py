"""How a device computes: the same bits each time, and float32 as float32.

Owns torch's process-wide switches for both. Must not know the computation.
"""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
from torch import nn

_NO_SUCH = " does not have a deterministic implementation"


def compute_deterministically(environment: MutableMapping[str, str], *, warns_only: bool) -> None:
    """Let torch take deterministic algorithms only, before it first uses a device.

    Args:
        warns_only: whether a layer that has none computes as ever, and torch warns of it.
    """
    environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=warns_only)
    torch.backends.cudnn.benchmark = False
    # Otherwise torch fills every new tensor, for networks that read what nobody wrote; none of ours does. It takes 216 launches
    # per step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def compute_in_float32(*, tf32: bool) -> None:
    """Settle whether products of float32 on a GPU keep its 24 bits, or round their factors to the 11 bits of TF32.

    By default torch rounds within convolutions and not within matrix products.
    """
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def choose_algorithms(*, tries: bool) -> None:
    """Settle whether cuDNN times its algorithms for each new shape, or takes one by its rules of thumb.

    Which one is fastest varies from run to run, and their sums differ by rounding.
    """
    torch.backends.cudnn.benchmark = tries


def find_undeterministic(error: BaseException, network: nn.Module) -> str | None:
    """Name what torch refused in deterministic mode: its operation, and the layers of a network that may have called it.

    Returns:
        Such as "adaptive_avg_pool2d_backward_cuda (psp.pool)"; None where the error is another one.
    """
    operation, found, _ = str(error).partition(_NO_SUCH)
    if not isinstance(error, RuntimeError) or not found:
        return None
    operation = operation.split()[-1]
    spelt = operation.replace("_", "")
    names = [name for name, layer in network.named_modules() if name and spelt.startswith(type(layer).__name__.lower())]
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{operation} ({listed})" if names else operation
