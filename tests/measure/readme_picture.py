"""Draw the README's picture: street scenes that a run has not seen, their labels and its predictions.

python -m tests.measure.readme_picture runs/quickstart docs/prediction.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from unet_dist.data.synthetic import SyntheticScenes
from unet_dist.figures import Sample, draw_samples
from unet_dist.models.registry import load_model
from unet_dist.tiling.inference import predict_image

SEED = 572  # the scenes of data_path synthetic have seed 0
INDICES = (2, 5, 8)


def main(run: str, path: str, height: int = 270, width: int = 480) -> None:
    """Draw three scenes."""
    model = load_model(Path(run) / "best")
    scenes = SyntheticScenes(max(INDICES) + 1, height, width, seed=SEED)
    rendered = [scenes.render(index) for index in INDICES]
    samples = [Sample(image, label, predict_image(model, image)) for image, label in rendered]
    draw_samples(Path(path), samples, scenes.class_names)


if __name__ == "__main__":
    main(*sys.argv[1:])
