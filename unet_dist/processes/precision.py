"""On which kind of device a run computes, and in which precision.

Owns the choice between config, launcher and device. Moves nothing.
"""

from __future__ import annotations

from typing import Any

import torch

from unet_dist.config.sections import Precision
from unet_dist.errors import ConfigError
from unet_dist.processes.launcher import wants_cpu
from unet_dist.processes.starting import DEVICE_WISH


def choose_device_type(accelerator: str | None, environment: Any) -> str:
    """Say on which kind of device to compute.

    On Apple's GPUs nothing is computed: they have no float64, in which losses and divisors are summed.

    Args:
        accelerator: the kind that torch sees, None for none.

    Raises:
        ConfigError: a GPU was asked for by name, and torch sees none.
    """
    wish = environment.get(DEVICE_WISH)
    if wish is not None and accelerator != "cuda":
        raise ConfigError(f"device: got {wish}, and {why_no_gpu()}. Set --device auto, or mend what hides the GPU.")
    is_left_alone = accelerator is None or accelerator == "mps" or wants_cpu(environment)
    return "cpu" if is_left_alone or accelerator is None else accelerator


def why_no_gpu() -> str:
    """Say why torch sees no NVIDIA GPU."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build for CPUs"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # the driver is missing or too old, in torch's words
        return f"torch {torch.__version__}: {(str(error).strip().splitlines() or ['no reason'])[0].rstrip('.')}"
    return f"torch {torch.__version__} sees none"


def has_fast_bf16(device_type: str) -> bool:
    """Whether the device computes bf16 in hardware: on others it is emulated (measured on an AVX2 CPU: 400 times slower)."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type != "cpu":
        return False
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def resolve_precision(wish: Precision, environment: Any, device_type: str, fast_bf16: bool) -> str:
    """Settle the precision between config, launcher and device.

    A launcher's "no" is what accelerate exports unasked: it is no wish.

    Raises:
        ConfigError: config and launcher contradict each other, or fp16 on a CPU.
    """
    launched = environment.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if launched in ("fp16", "bf16"):
        if wish not in ("auto", launched):
            raise ConfigError(
                f"mixed_precision: got {wish} from the config and {launched} from accelerate launch, expected one of them. "
                f"Remove --mixed_precision on one side."
            )
        wish = launched
    if wish == "auto":
        return "bf16" if fast_bf16 else "no"
    if wish == "fp16" and device_type == "cpu":
        raise ConfigError("mixed_precision: got fp16 on a CPU, expected no or bf16 there. Set --mixed_precision no.")
    return wish


def precision_line(wish: Precision, precision: str) -> str | None:
    """What to print where auto has chosen a mixed precision; None where it has not."""
    if wish != "auto" or precision == "no":
        return None
    return f"Computed in {precision}, at which this device is fast (--mixed_precision no: in the network's own type)."
