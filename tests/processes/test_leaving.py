"""The end of several processes: nothing of them is left that could touch Python while it shuts down."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ports import free_ports

SCRIPT = """
import torch.distributed as dist
from pathlib import Path
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from unet_dist.processes.group import open_processes

def threads():
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]

before = len(threads())
with open_processes(mixed_precision="no") as processes:
    DistributedDataParallel(nn.Linear(2, 2))
    processes.barrier()
    assert len(threads()) > before, threads()
assert not any("gloo" in name for name in threads()), threads()
assert len(threads()) == before, threads()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not show a process's threads")
@pytest.mark.slow
def test_no_thread_of_a_collective_outlives_the_group() -> None:
    """One that drops a tensor while Python shuts down aborts the process, after all its work was done."""
    launched = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_ports(1)[0]),
    }
    script = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **launched, "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert script.returncode == 0, script.stderr
