"""Count at which columns and rows of a block the labels of kept pictures change: a stem stride's blocks, where they show.

    python -m tests.measure.block_edges RUN [--side 4]

RUN was evaluated on images of at most 960 px per side: larger ones are kept smaller. Of the predictions, and of the labels beside
them: the share of neighbours whose classes differ, by where the second lies in its block. A network that does not see blocks
changes everywhere alike.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from unet_dist.report.pictures import PICTURES_FOLDER


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--side", type=int, default=4)
    options = parser.parse_args()
    for kind in ("prediction", "label"):
        files = sorted((options.run / PICTURES_FOLDER).glob(f"*-{kind}.png"))
        if not files:
            parser.error(f"{options.run / PICTURES_FOLDER}: holds no picture. Run unet-dist evaluate {options.run}.")
        maps = [np.asarray(Image.open(file)) for file in files]
        for words, axis in (("columns", 1), ("rows", 0)):
            shares = np.mean([changes(ids, axis, options.side) for ids in maps], axis=0)
            print(
                f"{kind}, {words} 0 to {options.side - 1} of a block: {', '.join(f'{share:.1%}' for share in shares)}"
            )
        print(f"{kind}, speckles: {np.mean([speckles(ids) for ids in maps]):.1%}")


def speckles(ids: np.ndarray) -> float:
    """The share of inner pixels that have the class of none of their four neighbours."""
    inner, others = ids[1:-1, 1:-1], (ids[:-2, 1:-1], ids[2:, 1:-1], ids[1:-1, :-2], ids[1:-1, 2:])
    return float(np.logical_and.reduce([inner != other for other in others]).mean())


def changes(ids: np.ndarray, axis: int, side: int) -> list[float]:
    """The share of changes from one pixel to the next, by the second's place in its block of that many pixels."""
    differs = np.moveaxis(np.diff(ids.astype(np.int16), axis=axis) != 0, axis, 0)  # change i leads to pixel i + 1
    return [float(differs[(place - 1) % side :: side].mean()) for place in range(side)]


if __name__ == "__main__":
    main()
