"""Real processes for tests: started like a launcher does, watched by what they write, killed by their id."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ports import free_ports
from unet_dist.runs.metrics_log import read_metrics

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 300.0
"""For what takes seconds on a quiet machine."""


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

    def __init__(self, jobs: Path, ranks: list[subprocess.Popen[bytes]]) -> None:
        self._jobs = jobs
        self.ranks = ranks
        self.said: list[str] = []
        self._released = 0

    def wait(self) -> list[int]:
        """Wait for all ranks; returns their exit codes and keeps what each said."""
        codes = [process.wait(timeout=PATIENCE_S) for process in self.ranks]
        # From files: a pipe that nobody reads would hold its writer up.
        self.said = [_said(self._jobs, rank).read_text(encoding="utf-8") for rank in range(len(self.ranks))]
        return codes

    def codes(self, rank: int) -> list[int]:
        """The exit code of each command that a rank came to the end of."""
        path = self._jobs.with_suffix(f".{rank}")
        return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []

    def wait_for_codes(self, count: int) -> None:
        """Return once every rank has come to the end of so many commands."""
        for rank in range(len(self.ranks)):
            self._wait_until(lambda rank=rank: len(self.codes(rank)) >= count, f"the end of command {count}")  # type: ignore[misc]

    def go_on(self) -> None:
        """Let the ranks begin the command they hold before."""
        self._released += 1
        _release(self._jobs, self._released).touch()

    def wait_for_step(self, folder: Path, step: int) -> None:
        """Return once the run in a folder has recorded a step."""
        self._wait_until(lambda: last_step(folder) >= step, f"step {step}")

    def _wait_until(self, has_come: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not has_come():
            has_ended = any(process.poll() is not None for process in self.ranks)
            if has_ended and not has_come():
                raise AssertionError(f"ended before {what}: {self.wait()} {self.said}")
            assert time.monotonic() < deadline, f"{what} did not come"
            time.sleep(0.005)


def last_step(folder: Path) -> int:
    """The last step in a run's metrics.jsonl, 0 where there is none."""
    return max((record["step"] for record in read_metrics(folder / "metrics.jsonl")), default=0)


def descendants(pid: int) -> dict[int, int]:
    """The processes below one, each with its parent."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listed.splitlines())}
    found: dict[int, int] = {}
    for _ in parents:
        more = {child: parent for child, parent in parents.items() if parent == pid or parent in found}
        if more == found:
            break
        found = more
    return found


def _said(jobs: Path, rank: int) -> Path:
    """The file of what a rank printed."""
    return jobs.with_suffix(f".{rank}.txt")


def _release(jobs: Path, number: int) -> Path:
    """The file that lets the ranks begin a command, the first being 0."""
    return jobs.with_suffix(f".go-{number}")


@contextmanager
def launch(world_size: int, commands: Sequence[Sequence[str]], folder: Path, *, holds: bool = False) -> Iterator[Group]:
    """Start `world_size` processes that run commands one after the other; none outlives the block.

    Args:
        commands: the words of each, as after `unet-dist`.
        folder: for the list of jobs.
        holds: whether the ranks wait before each command but the first, until `Group.go_on`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = folder / "jobs.json"
    ports = free_ports(len(commands))
    content: list[dict[str, Any]] = [
        {"port": port, "words": list(words), "after": str(_release(jobs, number)) if holds and number else None}
        for number, (port, words) in enumerate(zip(ports, commands, strict=True))
    ]
    jobs.write_text(json.dumps(content), encoding="utf-8")
    ranks = []
    try:
        for rank in range(world_size):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
            environment = {**quiet_environment(), **{k: str(v) for k, v in place.items()}, "MASTER_ADDR": "127.0.0.1"}
            command = [sys.executable, "-m", "tests.distributed.worker", str(jobs)]
            with _said(jobs, rank).open("w", encoding="utf-8") as said:
                ranks.append(
                    subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT)
                )
        yield Group(jobs, ranks)
    finally:
        for process in ranks:
            process.kill()
            process.wait()
