"""Measure how long the command line takes to answer, and training to make its first step.

    python -m tests.measure.startup [CONFIG.yaml] [--rounds 5]

Each start is a process of its own, timed from its command: --help, train --help, and a training of the config (by default the
quick start's) up to the moment at which its first step stands in metrics.jsonl; once with the data to be made, then with its
decoded cache there. A process is ended when it has been timed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PATIENCE_S = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="configs/synthetic_unet_quickstart.yaml")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            # In turn, so that what slows the machine down for a while slows all of them.
            for words in (["--help"], ["train", "--help"]):
                times.setdefault(" ".join(words), []).append(whole(words))
            for name, cache in (("first step, data made", f"cache-{number}"), ("first step, data there", "cache-0")):
                keys = {
                    "output_path": f"{folder}/{name} {number}",
                    "cache_path": f"{folder}/{cache}",
                    "log_steps": 1,
                    "eval_steps": 1000,
                }
                words = ["train", options.config, *(f"--{key}={value}" for key, value in keys.items())]
                times.setdefault(name, []).append(first_step(words, Path(keys["output_path"]) / "metrics.jsonl"))
    for name, seconds in times.items():
        print(f"{name}: {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})", flush=True)


def command(words: Sequence[str]) -> list[str]:
    """The whole command."""
    return [sys.executable, "-m", "unet_dist", *words]


def whole(words: Sequence[str]) -> float:
    """Seconds of a command from start to end."""
    started = time.perf_counter()
    subprocess.run(command(words), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def first_step(words: Sequence[str], metrics: Path) -> float:
    """Seconds of a training up to the record of its first step."""
    started = time.perf_counter()
    process = subprocess.Popen(command(words), stdout=subprocess.DEVNULL)
    try:
        while not (metrics.is_file() and metrics.stat().st_size):
            assert process.poll() is None, "the training ended before its first step"
            assert time.perf_counter() - started < PATIENCE_S, "no step came"
            time.sleep(0.01)
        return time.perf_counter() - started
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
