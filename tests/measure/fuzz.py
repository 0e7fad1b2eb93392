"""Damaged and hostile material in numbers: what became of many seeded mutations.

    python -m tests.measure.fuzz [--count 20000] [--processes 2] [--first 0] [--only picture,tiff] [--output FILE.json]

Counts, of each subject (tests/hostile), the readings, the refusals in a sentence, and the faults: tracebacks, hangs over
20 s, more memory than the budget, pixels or values that are silently wrong, files touched outside the folder, crashes of
the process. Prints each fault once with its seed; `--only SUBJECT --first SEED --count 1` shows it again. Ends with 1 where there
is a fault. A crash is seen because cases run in a child, which is started anew after it.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import logging
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

BUDGET_BYTES = 2**29
_SILENCE_S = 300  # of a child that hangs where no signal reaches it


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only")
    parser.add_argument("--processes", type=int, default=1, help="that share the seeds")
    parser.add_argument("--minutes", type=float, default=600.0, help="stop after so long, with what was counted")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    started = time.monotonic()
    until_s = started + options.minutes * 60
    counts: dict[str, Counter[str]] = {}
    faults: list[dict[str, object]] = []
    edges = [options.first + options.count * part // options.processes for part in range(options.processes + 1)]
    with ThreadPoolExecutor(options.processes) as pool:
        parts = [pool.submit(_run_range, *ends, options.only, until_s) for ends in itertools.pairwise(edges)]
        for part in parts:
            for name, of in part.result()[0].items():
                counts.setdefault(name, Counter()).update(of)
            faults += part.result()[1]
    total = sum((Counter(of) for of in counts.values()), Counter[str]())
    record = {
        "command": f"python -m tests.measure.fuzz --count {options.count} --first {options.first}",
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "mutations": total.total(),
        "seconds": round(time.monotonic() - started),
        "budget_bytes": BUDGET_BYTES,
        "total": dict(total),
        "by_subject": {name: dict(of) for name, of in sorted(counts.items())},
        "faults": faults,
    }
    text = json.dumps(record, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    sys.exit(1 if faults else 0)


def _run_range(
    seed: int, stop: int, only: str | None, until_s: float
) -> tuple[dict[str, Counter[str]], list[dict[str, object]]]:
    """Judge the cases of some seeds, by one child after another."""
    counts: dict[str, Counter[str]] = {}
    faults: list[dict[str, object]] = []
    while seed < stop and time.monotonic() < until_s:
        seed = _run_child(seed, stop, only, until_s, counts, faults)
    return counts, faults


def _run_child(
    seed: int,
    stop: int,
    only: str | None,
    until_s: float,
    counts: dict[str, Counter[str]],
    faults: list[dict[str, object]],
) -> int:
    """Judge cases in a child until it ends or dies; returns the seed that is next."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(
        prefix="unet-dist-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None
    ) as root:
        child = context.Process(target=_judge_all, args=(Path(root), seed, stop, only, until_s, theirs))
        child.start()
        theirs.close()
        try:
            ours.recv()  # it has made its material, which takes as long as it takes
            while ours.poll(_SILENCE_S):
                name, kind, damage, words = ours.recv()
                counts.setdefault(name, Counter())[kind] += 1
                if kind not in ("read", "refused"):
                    faults.append(
                        {"seed": seed, "subject": name, "kind": kind, "damage": damage, "words": words[-600:]}
                    )
                    print(f"seed {seed}, {name}: {kind} after {damage}\n{words}", file=sys.stderr)
                seed += 1
            kind = "hang"
        except EOFError:
            child.join()
            if child.exitcode == 0:
                return stop
            kind = "crash"
        child.kill()
        child.join()
        faults.append(
            {"seed": seed, "subject": "?", "kind": kind, "damage": "", "words": f"exit code {child.exitcode}"}
        )
        counts.setdefault("?", Counter())[kind] += 1
        return seed + 1


def _judge_all(root: Path, first: int, stop: int, only: str | None, until_s: float, told: Connection) -> None:
    logging.disable(logging.CRITICAL)
    os.environ["HF_DATASETS_CACHE"] = str(root / "tables")
    import torch

    from tests.hostile import labels, pictures, stores
    from tests.hostile.judging import Judge

    torch.set_num_threads(1)
    subjects = [*pictures.SUBJECTS, *stores.SUBJECTS, *labels.SUBJECTS, stores.TABLE]
    judge = Judge(root, [one for one in subjects if only is None or one.name in only.split(",")], BUDGET_BYTES)
    told.send(None)
    for seed in range(first, stop):
        if time.monotonic() > until_s:
            break
        verdict = judge.judge(seed)
        told.send((judge.draw(seed), verdict.kind, verdict.damage, verdict.words))
    told.close()
    os._exit(0)  # forked in a thread: to leave in order would wait for that thread


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
