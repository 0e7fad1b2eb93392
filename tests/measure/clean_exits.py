"""Run the whole of a small training again and again, and count the runs that do not end with exit code 0.

    python -m tests.measure.clean_exits --runs 30 --processes 1 2 3 --folder FOLDER

The number of processes goes round. Without an orderly shutdown gloo aborts some successful runs at exit, so a single run proves
little. Exit code 1 where one run fails; its output is printed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORDS = (
    *(
        "--synthetic_images",
        "9",
        "--synthetic_size",
        "48x80",
        "--depth",
        "2",
        "--base_channels",
        "4",
        "--input_size",
        "60",
    ),
    *("--batch_size", "6", "--total_steps", "6", "--eval_steps", "3", "--mixed_precision", "no"),
)
TIME_LIMIT_S = 300


def command(processes: int, folder: Path) -> list[str]:
    """The words that start a run, as a user on a machine without a GPU types them."""
    launcher = [
        "-m",
        "accelerate.commands.launch",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    ]
    several = ["--multi_gpu", "--num_processes", str(processes), "--main_process_port", "0"]
    start = [] if processes == 1 else [*launcher, *several]
    words = [*WORDS, "--output_path", str(folder), "--expected_processes", str(processes)]
    return [sys.executable, *start, "-m", "unet_dist", "train", *words, "--cache_path", str(folder.parent / "cache")]


def main() -> None:
    """Make the runs and say how they ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    clean = 0
    for number in range(arguments.runs):
        processes = arguments.processes[number % len(arguments.processes)]
        words = command(processes, arguments.folder / f"run-{number}")
        started = time.perf_counter()
        run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=TIME_LIMIT_S)
        is_clean = run.returncode == 0 and "Finished at step 6" in run.stdout
        clean += is_clean
        print(
            f"run {number}: {processes} process(es), exit {run.returncode}, {time.perf_counter() - started:.1f} s",
            flush=True,
        )
        if not is_clean:
            print(run.stdout[-2000:], run.stderr[-4000:], sep="\n", flush=True)
    print(f"{clean} of {arguments.runs} runs ended with exit code 0.")
    sys.exit(clean != arguments.runs)


if __name__ == "__main__":
    main()
