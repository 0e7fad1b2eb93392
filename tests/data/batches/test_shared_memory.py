"""Worker processes that find no room in /dev/shm, here one of 64 KiB in a mount namespace of its own: a sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

_PROGRAM = """
import torch
from unet_dist.data.batches.ahead import _by_workers
from unet_dist.errors import DataError

class Crops(torch.utils.data.Dataset):
    def __getitem__(self, number):
        return torch.ones(2**20)

try:
    with _by_workers(Crops(), iter(range(4)), 1, False) as read:
        print(sum(float(crop.sum()) for crop in read))
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="takes root, to mount a small /dev/shm")
def test_full_shared_memory_is_a_sentence() -> None:
    mount = 'mount -t tmpfs -o size=64k small /dev/shm && exec "$0" -c "$1"'
    words = ["unshare", "--mount", "sh", "-c", mount, sys.executable, _PROGRAM]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=250)
    if "mount:" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"this machine lets nobody mount: {done.stderr}")
    assert done.stdout.startswith(
        "num_workers: worker processes hand crops over in shared memory (/dev/shm), which is full"
    ), done
