"""Train recipes of configs/ and score them on images that they have not seen.

    python -m tests.measure.accuracy camvid --folder runs/accuracy [--data_path data/camvid] [--films 0 1 2] [--recipes R ...]
    python -m tests.measure.accuracy isbi2012 --folder runs/accuracy [--data_path data/isbi2012]

camvid trains on two of the films and scores on the third, in turn (film 0 is 0016E5, 1 is 0006R0, 2 is 0001TP): the validation
frames that CamVid names come from the films that are trained on, and flatter. isbi2012 scores membranes on the slices of the
validation, averaged over the eight rotations. One thread each. A run that has ended in the folder is read and not made again.

    python -m tests.measure.accuracy isbi2012 --folder runs/accuracy --configure 11min

scores what `unet-dist configure` chooses for that time, too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.measure.variants import last_miou, train

_UNSEEN = ("group_by=sequence", "folds=3")
RECIPES = {
    "pretrained encoder": (
        "configs/camvid_pretrained_cpu.yaml",
        ("optimizer=adamw", "total_steps=4500", "eval_steps=4500"),
    ),
    "U-Net from scratch": (
        "configs/camvid_unet_best_cpu.yaml",
        ("optimizer=adamw", "total_steps=16000", "eval_steps=4000"),
    ),
    "U-Net from scratch, a quarter of that": (
        "configs/camvid_unet_best_cpu.yaml",
        ("optimizer=adamw", "total_steps=4000", "eval_steps=4000", "ema_decay=0.99"),
    ),
    "the same quarter by Muon": (
        "configs/camvid_unet_best_cpu.yaml",
        ("optimizer=muon", "total_steps=4000", "eval_steps=4000", "ema_decay=0.99"),
    ),
    "U-Net of version 0.2": (
        "configs/camvid_unet_best_cpu.yaml",
        (
            *("blocks=plain", "padding=valid", "input_size=592", "context_px=null", "batch_size=1"),
            *("augmentation=null", "ema_decay=0.99", "total_steps=10000", "eval_steps=10000", "optimizer=adamw"),
        ),
    ),
}
"""Of CamVid: the config, and what is changed of it."""


def main(argv: Sequence[str] | None = None) -> None:
    """Train the missing runs and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["camvid", "isbi2012"])
    parser.add_argument("--folder", type=Path, required=True, help="for the runs")
    parser.add_argument("--data_path", help="default: data/ and the name")
    parser.add_argument("--films", type=int, nargs="+", default=[1], choices=range(3), help="that are scored, in turn")
    parser.add_argument("--recipes", nargs="*", default=[*RECIPES], choices=[*RECIPES], metavar="RECIPE")
    parser.add_argument("--configure", metavar="TIME", help="also what `unet-dist configure` chooses for so long")
    options = parser.parse_args(argv)
    data = f"data_path={options.data_path or f'data/{options.data}'}"
    if options.data == "camvid":
        _score_films(options.recipes, options.films, data, options.folder, options.configure)
        return
    _score_membranes("configs/isbi2012_unet_cpu.yaml", data, options.folder / "isbi2012")
    if options.configure:
        folder = options.folder / f"isbi2012-configured-{options.configure}"
        _score_membranes(_configured(folder, options.configure, [data]), data, folder)


def _score_membranes(config: str, data: str, folder: Path) -> None:
    seconds = train(config, [data], folder)
    print(f"Trained in {seconds / 60:.0f} min of processor time: {folder.name}", flush=True)
    words = ["--split", "validation", "--border_class", "0", "--rotations", "true"]
    subprocess.run([sys.executable, "-m", "unet_dist", "evaluate", str(folder), *words], check=True)


def _configured(run: Path, time: str, settings: Sequence[str]) -> str:
    """The config that `unet-dist configure` chooses for a run, made once and kept beside the run's folder."""
    file = run.with_suffix(".yaml")
    if not file.exists():
        said = dict(setting.split("=", 1) for setting in settings)
        words = [said.pop("data_path"), *(word for key, value in said.items() for word in (f"--{key}", value))]
        program = [sys.executable, "-m", "unet_dist", "configure", *words, "--time", time]
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        chosen = subprocess.run(program, check=True, stdout=subprocess.PIPE, encoding="utf-8", env=environment).stdout
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(chosen, encoding="utf-8")
    return str(file)


def _score_films(recipes: Sequence[str], films: Sequence[int], data: str, folder: Path, time: str | None) -> None:
    print("| recipe | " + " | ".join(f"film {film}" for film in films) + " | mean IoU | processor time |")
    print("|---" * (len(films) + 3) + "|", flush=True)
    for name in [*recipes, *([] if time is None else [f"configured {time}"])]:
        runs = {film: folder / f"{name.replace(' ', '-')}-film{film}" for film in films}
        seconds = []
        for film, run in runs.items():
            said = [data, "ignore_index=11", *_UNSEEN, f"fold={film}"]
            if name in RECIPES:
                config, changes = RECIPES[name]
            else:
                assert time is not None
                config, changes = _configured(run, time, said), ()
            seconds.append(train(config, [*said, *changes], run))
        scores = [last_miou(run) for run in runs.values()]
        cells = [name, *(f"{score:.4f}" for score in scores), f"{statistics.mean(scores):.4f}"]
        print("| " + " | ".join(cells) + f" | {statistics.mean(seconds) / 60:.0f} min |", flush=True)


if __name__ == "__main__":
    main()
