"""Proves that tensors packed into one buffer are written as the tensors themselves: the same file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from unet_dist.runs.landing import ALIGNMENT, Landing, pack, packed_bytes


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "channels_last": torch.randn(3, 5, 4, 7).to(memory_format=torch.channels_last),
        "odd": torch.randint(0, 9, (3,), dtype=torch.uint8),
        "scalar": torch.tensor(7.0),
        "counter": torch.tensor(2**40),
        "empty": torch.empty(0, 4),
        "double": torch.randn(5, 2, dtype=torch.float64).t(),
        "half": torch.randn(9).to(torch.bfloat16),
    }


def test_packed_tensors_make_the_same_file(tmp_path: Path) -> None:
    given = tensors()
    buffer = torch.full((packed_bytes(given) + 5,), 255, dtype=torch.uint8)
    views = pack(given, buffer)
    assert {view.untyped_storage().data_ptr() for view in views.values()} == {buffer.untyped_storage().data_ptr()}
    assert all(view.is_contiguous() for view in views.values())
    save_file(views, tmp_path / "packed")
    save_file({name: tensor.contiguous() for name, tensor in given.items()}, tmp_path / "plain")
    assert (tmp_path / "packed").read_bytes() == (tmp_path / "plain").read_bytes()
    assert bool((buffer[packed_bytes(given) :] == 255).all()), "nothing behind the room that was asked for"
    assert packed_bytes(given) % ALIGNMENT == 0


def test_copies_of_the_host_are_their_own() -> None:
    given = tensors()
    copies, arrive = Landing().take(given)
    arrive()
    before = {name: tensor.clone() for name, tensor in given.items()}
    for tensor in given.values():
        tensor.zero_()
    assert all(torch.equal(copies[name], tensor) and copies[name].is_contiguous() for name, tensor in before.items())
