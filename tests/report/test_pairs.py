"""The picture of pairs shows each image beside its label in the colours of the classes, whatever the type of its values."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from unet_dist.imaging.palette import class_palette
from unet_dist.report import figures, plots
from unet_dist.report.figures import Pair, draw_pairs
from unet_dist.report.summary import ClassScore


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint16, 7), (np.float32, 2)])
def test_pairs_of_any_type(tmp_path: Path, dtype: type, channels: int) -> None:
    label = np.zeros((40, 60), np.uint8)
    label[10:, 30:] = 2
    label[:5] = 255
    pairs = [Pair(np.full((40, 60, channels), 7 * number, dtype), label, f"name_{number}$") for number in range(3)]
    draw_pairs(tmp_path / "figures/pairs.png", pairs, ["sky", "road", "tree"])
    with Image.open(tmp_path / "figures/pairs.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    shares = [(pixels == colour).all(axis=1).mean() for colour in class_palette(3)]
    assert shares[2] > shares[1] * 10
    assert shares[0] > shares[1] * 10, "no pixel is road"


def test_names_of_classes_are_shown_as_they_are(tmp_path: Path) -> None:
    """No formula between dollars, which may be none and end the drawing, and no name left out for its underscore."""
    names = ["_background_", r"cost $\frac{$", "a$b$c"]
    labels = np.arange(3, dtype=np.uint8).repeat(30).reshape(9, 10)
    figure, _ = figures._panels([2.0], np.unique(labels), names)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    image = np.zeros((9, 10, 3), np.uint8)
    figures.draw_samples(tmp_path / "samples.png", [figures.Sample(image, labels, labels)], names)
    scores = [ClassScore(name, 0.5, 0.1, 0.01) for name in names]
    figures.write_figure(tmp_path / "iou.png", plots._iou(scores, "test"))
    run = SimpleNamespace(evaluations={"test": {"confusion": np.eye(3).tolist()}}, ignore_index=None, class_names=names)
    figures.write_figure(tmp_path / "confusion.png", plots._confusion(cast(Any, run), "test"))
