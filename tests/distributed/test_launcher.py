"""Proves, under accelerate's own launcher, that a run whose process was killed comes back by itself, that one asked to stop
through the launcher saves, as one whose launcher was killed does, and that nothing outlives any of them.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.distributed.conftest import LONG, Laboratory
from tests.distributed.processes import PATIENCE_S, ROOT, descendants, last_step, quiet_environment
from tests.distributed.test_no_step_lost import assert_all_is_saved, assert_same_end, names

pytestmark = pytest.mark.processes


class Launched:
    """A run of two processes as a user starts it, and all processes that it ever had."""

    def __init__(self, agent: subprocess.Popen[bytes], said: Path) -> None:
        self.agent = agent
        self._said = said
        self._seen: set[int] = set()

    @property
    def said(self) -> str:
        return self._said.read_text(encoding="utf-8")

    def wait_for_step(self, folder: Path, step: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while last_step(folder) < step:
            assert self.agent.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)
        self._seen.update(descendants(self.agent.pid))

    def ranks(self) -> list[int]:
        """The processes that the launcher started, in their order."""
        return sorted(pid for pid, parent in descendants(self.agent.pid).items() if parent == self.agent.pid)

    def wait(self) -> int:
        """Wait for the launcher, and for every process that was seen below it; returns its exit code."""
        try:
            code = self.agent.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the launcher does not end: {self.said}")
        deadline = time.monotonic() + PATIENCE_S
        while alive := [pid for pid in self._seen if is_alive(pid)]:
            assert time.monotonic() < deadline, f"{alive} outlive the launcher: {self.said}"
            time.sleep(0.05)
        return code


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody asked for its exit code does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def launcher(words: list[str], said: Path, *options: str) -> Iterator[Launched]:
    """`accelerate launch` of two processes; none outlives the block."""
    how = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--main_process_port", "0", *options]
    quiet = ["--mixed_precision", "no", "--dynamo_backend", "no"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *how, *quiet, "-m", "unet_dist", *words]
    with said.open("wb") as file:
        agent = subprocess.Popen(command, cwd=ROOT, env=quiet_environment(), stdout=file, stderr=subprocess.STDOUT)
    launched = Launched(agent, said)
    try:
        yield launched
    finally:
        for pid in (*descendants(agent.pid), agent.pid):
            subprocess.run(["kill", "-KILL", str(pid)], capture_output=True, check=False)
        agent.wait()


@pytest.mark.slow
def test_killed_rank_comes_back_by_itself(lab: Laboratory) -> None:
    """With `--max_restarts` nobody starts the command again, and the run ends with the bytes of the undisturbed one."""
    folder = lab.folder / "restarted-2"
    words = lab.train("restarted-2", **LONG, num_workers=1)
    with launcher(words, lab.folder / "restarted.txt", "--max_restarts", "2") as launched:
        launched.wait_for_step(folder, 12)
        victim = launched.ranks()[1]
        subprocess.run(["kill", "-KILL", str(victim)], check=True)
        assert launched.wait() == 0, launched.said
        assert f"lost rank 1 (pid {victim} on " in launched.said
        assert "Resuming at step " in launched.said
    assert_same_end(lab, folder, world_size=2)


@pytest.mark.slow
def test_launcher_asked_to_stop_saves_and_leaves_nothing_behind(lab: Laboratory) -> None:
    folder = lab.folder / "stopped-2"
    words = lab.train("stopped-2", **LONG, num_workers=1)
    with launcher(words, lab.folder / "stopped.txt") as launched:
        launched.wait_for_step(folder, 12)
        launched.agent.send_signal(signal.SIGTERM)
        launched.wait()  # the launcher's own code is 1, whatever its processes return
        step = assert_all_is_saved(folder)
        assert f"Stopped as asked at step {step} of " in launched.said
        assert "requeue" not in names(folder)


@pytest.mark.slow
def test_processes_of_a_killed_launcher_save_and_leave(lab: Laboratory) -> None:
    """Nothing is left to end them: they notice it, and the same command resumes."""
    folder = lab.folder / "orphaned-2"
    words = lab.train("orphaned-2", **LONG, num_workers=1)
    with launcher(words, lab.folder / "orphaned.txt") as launched:
        launched.wait_for_step(folder, 12)
        launched.agent.kill()
        assert launched.wait() == -signal.SIGKILL, launched.said
        step = assert_all_is_saved(folder)
        assert f"Stopped as asked at step {step} of " in launched.said
