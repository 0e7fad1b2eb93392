"""Draw the README's picture, for light and for dark pages: scenes that a run has not seen, their labels and its predictions.

    python -m tests.measure.readme_picture runs/quickstart docs/images/prediction.png

The dark one lies beside it, as prediction-dark.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

from unet_dist.models.registry import load_model
from unet_dist.prediction.image import predict_image
from unet_dist.report.figures import Sample, draw_samples
from unet_dist.scenes.synthetic import SyntheticScenes

SEED = 572  # the scenes of data_path synthetic have seed 0
INDICES = (2, 5, 8)
SHAPE = (270, 480)  # (height, width), px, as the quick start's
DARK = {
    "figure.facecolor": "#0d1117",
    "savefig.facecolor": "#0d1117",
    "text.color": "#e6edf3",
    "axes.titlecolor": "#e6edf3",
}


def main() -> None:
    """Draw three scenes, twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("path", type=Path, help="PNG to write")
    options = parser.parse_args()
    model = load_model(options.run / "best")
    scenes = SyntheticScenes(max(INDICES) + 1, *SHAPE, seed=SEED)
    rendered = [scenes.render(index) for index in INDICES]
    samples = [Sample(image, label, predict_image(model, image)) for image, label in rendered]
    draw_samples(options.path, samples, scenes.class_names)
    with matplotlib.rc_context(DARK):
        draw_samples(options.path.with_stem(f"{options.path.stem}-dark"), samples, scenes.class_names)


if __name__ == "__main__":
    main()
