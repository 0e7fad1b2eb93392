"""Kill a run again and again, and compare its end with the run that was never killed, byte for byte.

    python -m tests.measure.kill_campaign --kills 100 --seed 0 --processes 1 2 3 --folder FOLDER

Every kill is a SIGKILL to a random rank or to all of them, at a random moment: while starting, between steps, in a
validation or while a checkpoint is written. Then the same command is started again. A run that ends before its next kill is
compared and a new one begun. Exit code 1 where a run hangs, does not come up again, or ends with other bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.ports import free_ports
from unet_dist.runs.metrics_log import read_metrics

ROOT = Path(__file__).resolve().parents[2]
EVAL_STEPS = 4
WORDS = (
    *("--synthetic_images", "9", "--synthetic_size", "48x80", "--depth", "2", "--base_channels", "4", "--norm", "none"),
    *("--input_size", "60", "--batch_size", "6", "--eval_steps", str(EVAL_STEPS), "--checkpoint_steps", "2"),
    *("--log_steps", "1", "--trackers", "[]", "--mixed_precision", "no", "--collective_timeout_s", "120"),
)
MOMENTS = ("start", "step", "validation", "saving")
HANG_S = 300.0
"""A run that has not ended so long after its last sign of life hangs. Assumption: far beyond any step of this size."""
POLL_S = 0.001


@dataclass
class Outcome:
    """What a campaign found.

    Attributes:
        kills: by "processes/moment/target".
        compared: runs that reached their end, by number of processes.
        failures: what went wrong, as sentences.
    """

    kills: Counter[str] = field(default_factory=Counter)
    compared: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class Ranks:
    """The processes of one start of a run, in their order of rank; what they print goes to a file beside the folder."""

    def __init__(self, folder: Path, words: Sequence[str], world_size: int) -> None:
        self.folder = folder
        self.log = folder.with_suffix(".log")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ACCELERATE_")}
        environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
        if world_size > 1:
            environment |= {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(free_ports(1)[0]),
                "WORLD_SIZE": str(world_size),
            }
        command = [sys.executable, "-m", "unet_dist", "train", *words, "--output_path", str(folder)]
        self.processes = []
        with self.log.open("ab") as log:
            for rank in range(world_size):
                place = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if world_size > 1 else {}
                self.processes.append(
                    subprocess.Popen(command, cwd=ROOT, env={**environment, **place}, stdout=log, stderr=log)
                )

    @property
    def has_ended(self) -> bool:
        """Whether any rank has left."""
        return any(process.poll() is not None for process in self.processes)

    def kill(self, ranks: Sequence[int]) -> None:
        """SIGKILL these ranks, at once."""
        for rank in ranks:
            self.processes[rank].kill()

    def wait(self, timeout_s: float) -> list[int] | None:
        """The exit codes once all ranks have left; None, and all are killed, where they do not in time."""
        deadline = time.monotonic() + timeout_s
        try:
            return [process.wait(max(0.0, deadline - time.monotonic())) for process in self.processes]
        except subprocess.TimeoutExpired:
            self.kill(range(len(self.processes)))
            for process in self.processes:
                process.wait()
            return None


def campaign(
    folder: Path,
    *,
    kills: int,
    seed: int,
    world_sizes: Sequence[int],
    total_steps: int = 16,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Kill runs on each number of processes in turn, `kills` times in all.

    Args:
        folder: for the runs; empty or new.
        seed: of the moments and the targets.
        world_sizes: numbers of processes.
        total_steps: of each run.
    """
    outcome, random_ = Outcome(), random.Random(seed)
    words = [*WORDS, "--total_steps", str(total_steps), "--cache_path", str(folder / "cache")]
    folder.mkdir(parents=True, exist_ok=True)
    for number, world_size in enumerate(world_sizes):
        share = kills * (number + 1) // len(world_sizes) - kills * number // len(world_sizes)
        if share == 0:
            continue
        reference = folder / f"undisturbed-{world_size}"
        began = time.monotonic()
        if Ranks(reference, words, world_size).wait(HANG_S) != [0] * world_size:
            outcome.failures.append(f"{reference}: the undisturbed run failed: {_last_lines(reference)}")
            continue
        seconds = time.monotonic() - began
        say(f"{world_size} process(es): undisturbed run in {seconds:.0f} s")
        _kill_runs(folder, words, world_size, share, random_, reference, outcome, say)
    return outcome


def _kill_runs(
    folder: Path,
    words: Sequence[str],
    world_size: int,
    kills: int,
    random_: random.Random,
    reference: Path,
    outcome: Outcome,
    say: Callable[[str], None],
) -> None:
    """Kill runs of one number of processes, and let the last one end."""
    number, killed = 0, 0
    run = folder / f"killed-{world_size}-{number}"
    while True:
        moment = random_.choice(MOMENTS) if killed < kills else None
        is_whole = random_.random() < 0.5 or world_size == 1
        targets = list(range(world_size)) if is_whole else [random_.randrange(world_size)]
        ranks = Ranks(run, words, world_size)
        if moment is not None and _await(moment, ranks, random_):
            ranks.kill(targets)
            killed += 1
            target = "all" if is_whole else f"rank {targets[0]}"
            outcome.kills[f"{world_size}/{moment}/{target}"] += 1
            step = max((record["step"] for record in read_metrics(run / "metrics.jsonl")), default=0)
            say(f"  kill {killed} of {kills}: {target} of {world_size}, {moment}, at step {step}")
            if ranks.wait(HANG_S) is None:
                outcome.failures.append(
                    f"{run}: the other ranks hang after {target} was killed ({moment}, step {step})"
                )
            continue
        if ranks.wait(HANG_S) != [0] * world_size:
            outcome.failures.append(f"{run}: does not come up after a kill: {_last_lines(run)}")
            return
        outcome.failures += differences(reference, run)
        outcome.compared[world_size] += 1
        if killed >= kills:
            return
        number += 1
        run = folder / f"killed-{world_size}-{number}"


def _await(moment: str, ranks: Ranks, random_: random.Random) -> bool:
    """Wait until a moment has come; False where the run ends, or is about to, before."""
    folder = ranks.folder
    seen = _size(folder / "metrics.jsonl")
    left_over = _being_saved(folder)  # by a process killed before; the next save removes it
    if moment == "start":
        return _sleep(random_.uniform(0, 6), ranks)
    deadline = time.monotonic() + HANG_S
    steps_to_pass = random_.randrange(4)
    while not ranks.has_ended and time.monotonic() < deadline:
        if moment == "saving":
            if _being_saved(folder) - left_over:
                return _sleep(random_.uniform(0, 0.01), ranks)
        elif _size(folder / "metrics.jsonl") != seen:
            seen = _size(folder / "metrics.jsonl")
            records = read_metrics(folder / "metrics.jsonl")
            last = records[-1] if records else {"step": 0, "split": "train"}
            is_validating = last["split"] == "train" and last["step"] and last["step"] % EVAL_STEPS == 0
            if moment == "validation" and is_validating:
                return _sleep(random_.uniform(0, 0.1), ranks)
            steps_to_pass -= 1
            if moment == "step" and steps_to_pass < 0:
                return _sleep(random_.uniform(0, 0.1), ranks)
        time.sleep(POLL_S)
    return False


def _sleep(seconds: float, ranks: Ranks) -> bool:
    time.sleep(seconds)
    return not ranks.has_ended


def differences(reference: Path, run: Path) -> list[str]:
    """What differs between the ends of two runs: the bytes of their models, and the losses of every step."""
    found = []
    for name in ("last", "best"):
        ends = [
            hashlib.sha256((folder / name / "model.safetensors").read_bytes()).hexdigest()
            for folder in (reference, run)
        ]
        if ends[0] != ends[1]:
            found.append(f"{run}/{name}: model.safetensors differs from the undisturbed run's")
    logs = [[_told(record) for record in read_metrics(folder / "metrics.jsonl")] for folder in (reference, run)]
    if logs[0] != logs[1]:
        found.append(
            f"{run}: metrics.jsonl differs from the undisturbed run's: {len(logs[0])} and {len(logs[1])} lines"
        )
    return found


def _told(record: dict[str, Any]) -> tuple[Any, ...]:
    """What of a line of metrics does not depend on the time."""
    return tuple(record.get(key) for key in ("step", "split", "loss", "learning_rate", "miou", "pixel_accuracy"))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _being_saved(folder: Path) -> set[tuple[str, int]]:
    """The checkpoints being written, folders that do not yet have their name, each with the time of its last change."""
    try:
        with os.scandir(folder / "checkpoints") as entries:
            return {(entry.name, entry.stat().st_ctime_ns) for entry in entries if entry.name.startswith(".step-")}
    except FileNotFoundError:
        return set()


def _last_lines(folder: Path) -> str:
    log = folder.with_suffix(".log")
    return log.read_text(encoding="utf-8", errors="replace")[-1500:] if log.exists() else "nothing printed"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaign of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="kills in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the targets")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3], help="numbers of processes, in turn")
    parser.add_argument("--total_steps", type=int, default=16, help="steps of each run")
    parser.add_argument("--folder", type=Path, help="for the runs; kept. By default a temporary one, removed")
    arguments = parser.parse_args(argv)
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="kill-campaign-"))
    began = time.monotonic()
    try:
        outcome = campaign(
            folder,
            kills=arguments.kills,
            seed=arguments.seed,
            world_sizes=arguments.processes,
            total_steps=arguments.total_steps,
        )
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"kills": outcome.kills, "compared": outcome.compared, "failures": outcome.failures}, indent=1))
    print(
        f"{sum(outcome.kills.values())} kills, {sum(outcome.compared.values())} runs compared, {len(outcome.failures)} failures, "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
