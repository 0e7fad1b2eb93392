"""Figures for people and papers: PNG files drawn by matplotlib.

Owns how a label and a prediction look side by side. A class always stands in text beside its colour.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unet_dist.data.labels import IGNORED
from unet_dist.files import write_whole
from unet_dist.imaging.palette import class_palette

MAX_SIDE_PX = 960


def draw_pair(
    path: Path, image: np.ndarray, label: np.ndarray, prediction: np.ndarray, class_names: Sequence[str]
) -> None:
    """Draw image, label and prediction side by side, with a legend of the classes that occur.

    Args:
        path: of the PNG; its folder is made.
        image: (H, W, C) uint8.
        label, prediction: (H, W) uint8.
        class_names: one a class.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    step = max(1, -(-max(label.shape) // MAX_SIDE_PX))
    image, label, prediction = (np.asarray(a[::step, ::step]) for a in (image, label, prediction))
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[: len(class_names)] = class_palette(len(class_names))
    present = [i for i in np.union1d(label, prediction) if i != IGNORED]
    height, width = label.shape
    rows = -(-len(present) // 6)
    panel = 4.0
    figure = Figure(figsize=(3 * panel, panel * height / width + 0.3 + 0.22 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    pictures = (image if image.shape[2] >= 3 else image[:, :, 0], colours[label], colours[prediction])
    for axes, title, picture in zip(panels, ("image", "label", "prediction"), pictures, strict=True):
        axes.imshow(picture[:, :, :3] if picture.ndim == 3 else picture, cmap="gray", interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    patches = [Patch(facecolor=colours[i] / 255, edgecolor="0.5", linewidth=0.4, label=class_names[i]) for i in present]
    figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=7, frameon=False)
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, encoded.getvalue())
