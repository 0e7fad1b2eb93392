"""Proves that the setting of the allocator reaches torch in the commands that compute."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from packaging.version import Version

from unet_dist.machine.allocator import use_growing_segments

_PAGE = 4096
_ADDRESSES = """
import importlib, sys
importlib.import_module("unet_dist.commands." + sys.argv[1])
from unet_dist.machine.allocator import keep_freed_memory
print(int(keep_freed_memory()))
import torch
print(*(torch.empty(size, dtype=torch.uint8).data_ptr() for size in range(2**22, 2**22 + 4000, 400)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="large pages are asked for on Linux only")
@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "bench"])
def test_no_module_makes_a_tensor_before_the_setting(command: str) -> None:
    """Large tensors begin on a page only where torch had allocated nothing before the setting."""
    words = [sys.executable, "-c", _ADDRESSES, command]
    kept, addresses = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    if kept == "0":
        pytest.skip("a C library without mallopt")
    assert [int(address) % _PAGE for address in addresses.split()] == [0] * 10


@pytest.mark.parametrize(
    "users", [{}, {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, {"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}]
)
def test_segments_grow_unless_the_user_says_otherwise(users: dict[str, str]) -> None:
    environment = dict(users)
    use_growing_segments(environment)
    name = "PYTORCH_CUDA_ALLOC_CONF" if Version(torch.__version__) < Version("2.9") else "PYTORCH_ALLOC_CONF"
    assert environment == (users or {name: "expandable_segments:True"})
