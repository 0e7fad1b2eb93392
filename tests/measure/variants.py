"""Train variants of a config with several seeds, and compare their validation mean IoU.

    python -m tests.measure.variants configs/camvid_unet_cpu.yaml --folder FOLDER --seeds 0 1 --common total_steps=300 \\
        --variant "as it is" --variant "averaged weights: ema_decay=0.99"

A variant is a name and, after a colon, settings key=value apart by semicolons; module=MODULE runs `python -m MODULE train` in
place of unet_dist's. --common goes to every run. The runs go one after the other, one thread each unless OMP_NUM_THREADS
says otherwise; a run that has ended in FOLDER is not made again, so the same command resumes an interrupted campaign. The last
validation counts, as no variant then chooses its best moment.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from unet_dist.runs.metrics_log import read_metrics


def main(argv: Sequence[str] | None = None) -> None:
    """Train the missing runs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--folder", type=Path, required=True, help="for the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--common", nargs="*", default=[], metavar="KEY=VALUE", help="said to every run")
    parser.add_argument("--variant", action="append", required=True, metavar="NAME[: KEY=VALUE; ...]")
    arguments = parser.parse_args(argv)
    variants = dict(read_variant(text) for text in arguments.variant)
    scores: dict[str, list[float]] = {name: [] for name in variants}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for seed in arguments.seeds:  # the outer loop, so that an interrupted campaign has whole seeds
        for name, settings in variants.items():
            folder = arguments.folder / f"{name.replace(' ', '-')}-seed{seed}"
            seconds[name].append(train(arguments.config, [*arguments.common, *settings, f"seed={seed}"], folder))
            scores[name].append(last_miou(folder))
            print(f"{name}, seed {seed}: {scores[name][-1]:.4f}", file=sys.stderr, flush=True)
    print(table(arguments.seeds, scores, seconds))


def read_variant(text: str) -> tuple[str, list[str]]:
    """Split "name: key=value; key=value" into the name and the settings."""
    name, _, settings = text.partition(":")
    return name.strip(), [setting.strip() for setting in settings.split(";") if setting.strip()]


def train(config: str, settings: Sequence[str], folder: Path) -> float:
    """Train to the end, unless it has been done; the seconds of processor time, of all starts."""
    spent = folder / "processor_seconds.json"
    if not spent.exists():
        said = dict(setting.split("=", 1) for setting in settings)
        module = said.pop("module", "unet_dist")
        words = [word for key, value in said.items() for word in (f"--{key}", value)]
        command = [sys.executable, "-m", module, "train", config, *words, "--output_path", str(folder)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={"OMP_NUM_THREADS": "1", **os.environ})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.write_text(json.dumps(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    return float(json.loads(spent.read_text()))


def last_miou(folder: Path) -> float:
    """Mean IoU of the last validation."""
    return [float(r["miou"]) for r in read_metrics(folder / "metrics.jsonl") if r["split"] == "validation"][-1]


def table(seeds: Sequence[int], scores: dict[str, list[float]], seconds: dict[str, list[float]]) -> str:
    """A Markdown table: mean IoU by seed, and the mean's distance from the first variant."""
    first = statistics.mean(next(iter(scores.values())))
    lines = [
        "| variant | "
        + " | ".join(f"seed {seed}" for seed in seeds)
        + " | mean | against the first | processor time |",
        "|---" * (len(seeds) + 4) + "|",
    ]
    for name, values in scores.items():
        mean = statistics.mean(values)
        cells = [name, *(f"{value:.4f}" for value in values), f"{mean:.4f}", f"{100 * (mean - first):+.1f} points"]
        lines.append("| " + " | ".join([*cells, f"{statistics.mean(seconds[name]):.0f} s"]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
