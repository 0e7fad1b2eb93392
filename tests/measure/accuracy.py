"""Train recipes of configs/ and score them on images that they have not seen.

    python -m tests.measure.accuracy camvid --folder runs/accuracy [--data_path data/camvid]
    python -m tests.measure.accuracy isbi2012 --folder runs/accuracy [--data_path data/isbi2012]

camvid trains on two of the films and scores on the third: the validation frames that CamVid names come from the films that are
trained on, and flatter. isbi2012 scores membranes on the slices of the validation, averaged over the eight rotations. One thread
each. A run that has ended in the folder is read and not made again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.measure.variants import last_miou, train

_UNSEEN = ("group_by=sequence", "folds=3", "fold=1")
RECIPES = {
    "pretrained encoder": ("configs/camvid_pretrained_cpu.yaml", ("total_steps=4500", "eval_steps=1500")),
    "U-Net from scratch": (
        "configs/camvid_unet_best_cpu.yaml",
        ("total_steps=16000", "eval_steps=4000"),
    ),
}
"""Of CamVid: the config, and what is changed of it."""


def main(argv: Sequence[str] | None = None) -> None:
    """Train the missing runs and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["camvid", "isbi2012"])
    parser.add_argument("--folder", type=Path, required=True, help="for the runs")
    parser.add_argument("--data_path", help="default: data/ and the name")
    options = parser.parse_args(argv)
    data = f"data_path={options.data_path or f'data/{options.data}'}"
    if options.data == "camvid":
        print("| recipe | mean IoU of the unseen film | processor time |\n|---|---|---|")
        for name, (config, changes) in RECIPES.items():
            folder = options.folder / name.replace(" ", "-")
            seconds = train(config, [data, *_UNSEEN, *changes], folder)
            print(f"| {name} | {last_miou(folder):.4f} | {seconds / 60:.0f} min |", flush=True)
        return
    seconds = train("configs/isbi2012_unet_cpu.yaml", [data], options.folder / "isbi2012")
    print(f"Trained in {seconds / 60:.0f} min of processor time.", flush=True)
    words = ["--split", "validation", "--border_class", "0", "--rotations", "true"]
    subprocess.run(
        [sys.executable, "-m", "unet_dist", "evaluate", str(options.folder / "isbi2012"), *words], check=True
    )


if __name__ == "__main__":
    main()
