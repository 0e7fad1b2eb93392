"""What processes tell each other beside tensors: JSON, as bytes in a tensor.

Owns which values may be sent and how they travel. Nothing from another process is unpickled: a process that does not
belong here can send wrong figures, but makes nobody run its code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""Of sequences lists only, of mappings dicts: the receiver gets the value that was sent. The wide names let mypy take list[int]."""


def require_json(value: object, where: str = "message") -> None:
    """Refuse what JSON would change on its way or cannot hold; whoever sends it converts it, and back.

    Raises:
        TypeError: names the place and the type, such as a tuple, a set, a dataclass or an array.
    """
    if type(value) is list:
        for number, item in enumerate(value):
            require_json(item, f"{where}[{number}]")
    elif type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError(f"{where}: got a key of type {type(key).__name__}, expected str")
            require_json(item, f"{where}[{key!r}]")
    elif value is not None and type(value) not in (bool, int, float, str):
        raise TypeError(f"{where}: got {type(value).__name__}, expected what JSON holds (lists, dicts, numbers, str)")


def encode(value: Json) -> Tensor:
    """Write JSON as bytes: uint8, (n,). Floats come back to the bit, also those that are not finite."""
    require_json(value)
    return torch.frombuffer(bytearray(json.dumps(value).encode("ascii")), dtype=torch.uint8)


def decode(message: Tensor) -> Json:
    """Read what encode wrote."""
    value: Json = json.loads(message.numpy().tobytes())
    return value


def broadcast(value: Json, rank: int, device: torch.device) -> Json:
    """Send rank 0's value to all; what others give counts for nothing.

    Args:
        device: where the collectives of the group take tensors.
    """
    own = encode(value if rank == 0 else None).to(device)
    length = torch.tensor([len(own)], device=device)
    dist.broadcast(length, src=0)
    message = own if rank == 0 else torch.empty(int(length.item()), dtype=torch.uint8, device=device)
    dist.broadcast(message, src=0)
    return decode(message.cpu())


def all_gather(value: Json, world_size: int, device: torch.device) -> list[Json]:
    """Send everyone's value to all, in the order of ranks.

    Args:
        device: as in broadcast.
    """
    own = encode(value).to(device)
    lengths = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world_size)]
    dist.all_gather(lengths, torch.tensor([len(own)], device=device))
    sizes = [int(length.item()) for length in lengths]
    padded = torch.zeros(max(sizes), dtype=torch.uint8, device=device)
    padded[: len(own)] = own
    messages = [torch.empty_like(padded) for _ in range(world_size)]
    dist.all_gather(messages, padded)
    return [decode(message[:size].cpu()) for message, size in zip(messages, sizes, strict=True)]
