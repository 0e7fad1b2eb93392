"""Train recipes on two of CamVid's films and score each on the third, of which it has seen nothing.

    python -m tests.measure.unseen --folder FOLDER [--data_path data/camvid]

The validation frames that CamVid names come from the films that are trained on, and flatter. The recipes go one after the other,
one thread each. A run that has ended in FOLDER is read and not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tests.measure.variants import last_miou, train

_SPLIT = ("group_by=sequence", "folds=3", "fold=1")
RECIPES = {
    "pretrained encoder": ("configs/camvid_pretrained_cpu.yaml", ("total_steps=4500", "eval_steps=1500")),
    "U-Net from scratch": ("configs/camvid_unet_best_cpu.yaml", ()),
}
"""The config of each, and what is changed of it."""


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is not yet there and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the runs")
    parser.add_argument("--data_path", default="data/camvid")
    options = parser.parse_args(argv)
    print("| recipe | mean IoU of the unseen film | processor time |\n|---|---|---|")
    for name, (config, changes) in RECIPES.items():
        folder = options.folder / name.replace(" ", "-")
        seconds = train(config, [f"data_path={options.data_path}", *_SPLIT, *changes], folder)
        print(f"| {name} | {last_miou(folder):.4f} | {seconds / 60:.0f} min |", flush=True)


if __name__ == "__main__":
    main()
