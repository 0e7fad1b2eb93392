"""Real processes for tests: started like a launcher does, watched by what they write, killed by their id."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from unet_dist.tracking import read_metrics

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 300.0
"""For what takes seconds on a quiet machine."""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens at."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in listeners]


def quiet_environment() -> dict[str, str]:
    """The environment of a process on CPUs that no launcher has touched; one thread, as byte identity is for a thread count."""
    launcher = ("ACCELERATE_", "SLURM_", "TORCHELASTIC_")
    ranks = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(launcher) and k not in ranks}
    return {**kept, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


class Group:
    """The processes of a launch.

    Attributes:
        ranks: one process a rank.
    """

    def __init__(self, jobs: Path, ranks: list[subprocess.Popen[str]]) -> None:
        self._jobs = jobs
        self.ranks = ranks
        self.said: list[str] = []

    def wait(self) -> list[int]:
        """Wait for all ranks; returns their exit codes and keeps what each said."""
        self.said = [process.communicate(timeout=PATIENCE_S)[0] for process in self.ranks]
        return [process.returncode for process in self.ranks]

    def codes(self, rank: int) -> list[int]:
        """The exit code of each command that a rank came to the end of."""
        return list(json.loads(self._jobs.with_suffix(f".{rank}").read_text(encoding="utf-8")))

    def wait_for_step(self, folder: Path, step: int) -> None:
        """Return once the run in a folder has recorded a step."""
        deadline = time.monotonic() + PATIENCE_S
        while last_step(folder) < step:
            assert all(process.poll() is None for process in self.ranks), (
                f"ended before step {step}: {self.wait()} {self.said}"
            )
            assert time.monotonic() < deadline, f"step {step} did not come"
            time.sleep(0.005)


def last_step(folder: Path) -> int:
    """The last step in a run's metrics.jsonl, 0 where there is none."""
    return max((record["step"] for record in read_metrics(folder / "metrics.jsonl")), default=0)


@contextmanager
def launch(world_size: int, commands: Sequence[Sequence[str]], folder: Path) -> Iterator[Group]:
    """Start `world_size` processes that run commands one after the other; none outlives the block.

    Args:
        commands: the words of each, as after `unet-dist`.
        folder: for the list of jobs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = folder / "jobs.json"
    ports = free_ports(len(commands))
    content: list[dict[str, Any]] = [{"port": p, "words": list(w)} for p, w in zip(ports, commands, strict=True)]
    jobs.write_text(json.dumps(content), encoding="utf-8")
    ranks = []
    try:
        for rank in range(world_size):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
            environment = {**quiet_environment(), **{k: str(v) for k, v in place.items()}, "MASTER_ADDR": "127.0.0.1"}
            ranks.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.distributed.worker", str(jobs)],
                    cwd=ROOT,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        yield Group(jobs, ranks)
    finally:
        for process in ranks:
            process.kill()
            process.communicate()
