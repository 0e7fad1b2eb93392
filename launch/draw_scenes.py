"""Draw street scenes that no run has seen: python launch/draw_scenes.py FOLDER COUNT HEIGHTxWIDTH."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from unet_dist.scenes.synthetic import SyntheticScenes

SEED = 572  # the scenes of data_path synthetic have seed 0


def main(folder: Path, count: int, size: str) -> None:
    """Write COUNT pictures."""
    height, width = (int(side) for side in size.split("x"))
    scenes = SyntheticScenes(count, height, width, seed=SEED)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.fromarray(scenes.render(index)[0]).save(folder / f"scene-{index}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
