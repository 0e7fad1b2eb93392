"""Figures for people and papers: PNG files drawn by matplotlib.

Owns how labels and predictions look side by side. A class always stands in text beside its colour.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unet_dist.data.labels import IGNORED
from unet_dist.files import write_whole
from unet_dist.imaging.palette import class_palette

MAX_SIDE_PX = 960
PANEL_INCHES = 4.0
LEGEND_COLUMNS = 6


class Sample(NamedTuple):
    """An image with its label and prediction: (H, W, C), (H, W) and (H, W), all uint8."""

    image: np.ndarray
    label: np.ndarray
    prediction: np.ndarray


def draw_samples(path: Path, samples: Sequence[Sample], class_names: Sequence[str]) -> None:
    """Draw image, label and prediction side by side, a row a sample, with a legend of the classes that occur.

    Args:
        path: of the PNG; its folder is made.
        class_names: one a class.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    samples = [_shrunk(sample) for sample in samples]
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[: len(class_names)] = class_palette(len(class_names))
    occurring = np.unique(np.concatenate([part.ravel() for sample in samples for part in sample[1:]]))
    present = [i for i in occurring if i != IGNORED]
    heights = [PANEL_INCHES * sample.label.shape[0] / sample.label.shape[1] + 0.2 for sample in samples]
    legend_inches = 0.22 * -(-len(present) // LEGEND_COLUMNS)
    figure = Figure(figsize=(3 * PANEL_INCHES, sum(heights) + legend_inches), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(samples), 3, squeeze=False, height_ratios=heights)
    for row, sample in zip(rows, samples, strict=True):
        shown = sample.image[:, :, :3] if sample.image.shape[2] >= 3 else sample.image[:, :, 0]
        pictures = (shown, colours[sample.label], colours[sample.prediction])
        for axes, title, picture in zip(row, ("image", "label", "prediction"), pictures, strict=True):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.axis("off")
            if row is rows[0]:
                axes.set_title(title, fontsize=9)
    patches = [Patch(facecolor=colours[i] / 255, edgecolor="0.5", linewidth=0.4, label=class_names[i]) for i in present]
    figure.legend(handles=patches, loc="outside lower center", ncols=LEGEND_COLUMNS, fontsize=7, frameon=False)
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, encoded.getvalue())


def _shrunk(sample: Sample) -> Sample:
    """Every n-th pixel, so that no side is longer than MAX_SIDE_PX."""
    step = max(1, -(-max(sample.label.shape) // MAX_SIDE_PX))
    return Sample(*(np.asarray(part[::step, ::step]) for part in sample))
