"""Ask runs of the quick start to stop at random moments, and time them from SIGTERM to their exit.

    python -m tests.measure.stop_time --rounds 6 --processes 1 2 --folder FOLDER

Every other round asks within a validation, the others between or within steps. Each start resumes from the last, so that a
checkpoint that is not whole would show twice. Exit code 1 where a process does not leave with 0, the newest checkpoint is not
whole and of the last recorded step, or the longest time is above --limit_s.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from pathlib import Path

from tests.measure.kill_campaign import HANG_S, Ranks
from unet_dist.errors import CheckpointError
from unet_dist.runs.checkpoint import list_checkpoints, read_checkpoint
from unet_dist.runs.metrics_log import read_metrics

CONFIG = "configs/synthetic_unet_quickstart.yaml"
EVAL_STEPS = 3
POLL_S = 0.002


def main() -> int:
    """Time the stops and say them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="stops of each number of processes")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--limit_s", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    random_, failures, longest = random.Random(arguments.seed), 0, 0.0
    for world_size in arguments.processes:
        folder = arguments.folder / f"stopped-{world_size}"
        words = [CONFIG, "--eval_steps", str(EVAL_STEPS), "--log_steps", "1", "--checkpoint_steps", "1000"]
        words += ["--total_steps", "1000", "--cache_path", str(arguments.folder / "cache")]
        times = []
        for number in range(arguments.rounds):
            ranks = Ranks(folder, words, world_size)
            moment = "validation" if number % 2 else "step"
            _await(moment, ranks, random_)
            asked = time.perf_counter()
            for process in ranks.processes:
                process.terminate()
            codes = ranks.wait(HANG_S)
            times.append(time.perf_counter() - asked)
            complaint = _complaint(folder, codes, world_size)
            failures += complaint is not None
            print(f"{world_size} process(es), {moment}: {times[-1]:.2f} s, {complaint or 'all is saved'}", flush=True)
        longest = max(longest, *times)
        print(f"{world_size} process(es): median {statistics.median(times):.2f} s, longest {max(times):.2f} s")
    print(f"{failures} failures; longest {longest:.2f} s (at most {arguments.limit_s:g} wanted)")
    return 1 if failures or longest > arguments.limit_s else 0


def _await(moment: str, ranks: Ranks, random_: random.Random) -> None:
    """Wait until this start has recorded a step, and for a moment within the next validation or the next steps."""
    log = ranks.folder / "metrics.jsonl"
    before = len(read_metrics(log))
    wanted = random_.randint(1, 3)
    deadline = time.monotonic() + HANG_S
    while time.monotonic() < deadline:
        assert not ranks.has_ended, f"ended before it was asked to: see {ranks.log}"
        records = read_metrics(log)
        if len(records) >= before + wanted:
            is_validating = records[-1]["split"] == "train" and records[-1]["step"] % EVAL_STEPS == 0
            if moment == "step" or is_validating:
                time.sleep(random_.uniform(0, 0.5))
                return
        time.sleep(POLL_S)


def _complaint(folder: Path, codes: list[int] | None, world_size: int) -> str | None:
    """Name the fault after a stop; None where there is none."""
    if codes != [0] * world_size:
        return f"exit codes {codes}"
    paths = list_checkpoints(folder / "checkpoints")
    step = max((record["step"] for record in read_metrics(folder / "metrics.jsonl")), default=0)
    try:
        saved = read_checkpoint(paths[-1]).step if paths else 0
    except CheckpointError as error:
        return str(error)
    return None if saved == step else f"step {step} was recorded, and {saved} saved"


if __name__ == "__main__":
    sys.exit(main())
