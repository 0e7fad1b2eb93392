"""The weights of a model folder: read whole, finite and fitting, or refused in a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from unet_dist.errors import CheckpointError, ConfigError, UnetDistError
from unet_dist.machine.memory import free_bytes
from unet_dist.wording import first_line, size

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_COMPUTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The floating types that a network is computed in; torch computes with none of 8 bits."""


_MOST_TENSORS = 100_000
"""assumption: no network has more. Each takes microseconds, also an empty one, of which a header may hold millions."""


@contextmanager
def describing(file: Path, kind: str) -> Iterator[None]:
    """Turn what the values of a file lead to into the refusal of this file, while a network is made of them.

    Args:
        kind: of the network.

    Raises:
        CheckpointError: whatever was raised; our own refusals but those of values pass as they are.
    """
    try:
        yield
    except ConfigError as error:
        raise CheckpointError(f"{file} does not describe a {kind}: {error}") from error
    except UnetDistError:
        raise
    except Exception as error:  # values of other types lead to anything
        raise CheckpointError(
            f"{file} does not describe a {kind} ({type(error).__name__}: {first_line(error)}). Copy the model folder again."
        ) from error


def load_weights(file: Path, expected: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Read every tensor of a safetensors file, on the CPU.

    Args:
        expected: tensors of the names and shapes that it must have; compared before a value is read, as a file of zeros that a disk
            need not hold may be larger than the memory.

    Raises:
        CheckpointError: it is truncated or no safetensors file, has other tensors, or one is of another kind of numbers or not
            finite; names it.
    """
    try:
        if not file.is_file():  # a pipe would never answer
            raise CheckpointError(f"{file} is not a regular file. Give the folder that save_pretrained wrote.")
        with safe_open(file, "pt") as opened:
            count = len(opened.keys())
        if count > _MOST_TENSORS:
            raise CheckpointError(f"{file} holds {count:,} tensors, expected {_MOST_TENSORS:,} at most. Copy it again.")
        weights = load_file(file)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}. Check your permissions.") from error
    except RuntimeError as error:  # torch's word for a file that cannot be mapped
        raise CheckpointError(
            f"{file} ({size(file.stat().st_size)}) cannot be read: {first_line(error)}. Load it on a larger machine, or "
            "copy it again."
        ) from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{file} ({file.stat().st_size:,} bytes) is truncated or no safetensors file: {error}. Copy it again, or take the "
            "other model folder of the run (best/, last/)."
        ) from error
    if expected is not None:
        require_same_tensors(expected, weights, file)
    for name, tensor in weights.items():
        _require_kind(name, tensor, None if expected is None else expected.get(name), file)
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(
                f"{file}: the tensor {name} holds NaN or infinite numbers: the file is damaged, or its training "
                "diverged. Take the other model folder of the run (best/, last/), or an earlier checkpoint."
            )
    return weights


def require_same_tensors(expected: Mapping[str, Tensor], got: Mapping[str, Tensor], file: Path) -> None:
    """Refuse weights whose names or shapes are not the model's; say which in a line, not in a page.

    Raises:
        CheckpointError: names some of them.
    """
    differences = {
        "missing": [name for name in expected if name not in got],
        "not of this model": [name for name in got if name not in expected],
        "of another shape": [
            f"{name} {tuple(got[name].shape)} instead of {tuple(expected[name].shape)}"
            for name in expected
            if name in got and got[name].shape != expected[name].shape
        ],
    }
    if not any(differences.values()):
        return
    told = "; ".join(f"{len(names)} {kind} ({_some(names)})" for kind, names in differences.items() if names)
    raise CheckpointError(
        f"{file} does not fit the model that {CONFIG_FILE} beside it describes. Of {len(expected)} tensors: {told}. "
        f"Keep the {CONFIG_FILE} and the {WEIGHTS_FILE} of one training together."
    )


def _require_kind(name: str, tensor: Tensor, expected: Tensor | None, file: Path) -> None:
    """Refuse numbers that would be rounded or cut to those of the network in silence, or that it cannot compute with."""
    is_known = tensor.dtype in _COMPUTED or not tensor.is_floating_point()
    kinds = [(one.is_floating_point(), one.is_complex()) for one in (tensor, tensor if expected is None else expected)]
    if not is_known or kinds[0] != kinds[1]:
        wanted = (
            "float16, bfloat16, float32 or float64" if expected is None else str(expected.dtype).removeprefix("torch.")
        )
        raise CheckpointError(
            f"{file}: the tensor {name} holds {str(tensor.dtype).removeprefix('torch.')}, expected {wanted}. Save the weights in "
            "the type that the network was trained in."
        )


def require_room(model: nn.Module, device: torch.device, folder: Path) -> None:
    """Refuse a network that is larger than the memory, which the system might notice late, and end another program.

    Raises:
        CheckpointError: names both sizes.
    """
    needed = sum(tensor.nbytes for tensor in model.state_dict().values())
    free = free_bytes(device, 1) if device.type == "cpu" else needed
    if needed > free:
        raise CheckpointError(
            f"{folder / CONFIG_FILE} describes a network of {size(needed)}, and {size(free)} of memory are free. Free some, or "
            "load it on a larger machine."
        )


def _some(names: list[str], *, limit: int = 3) -> str:
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
