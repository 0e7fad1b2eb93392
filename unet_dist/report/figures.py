"""Figures for people and papers: PNG files drawn by matplotlib.

Owns how labels and predictions look side by side. A class always stands in text beside its colour.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unet_dist.data.decoded.labels import ignored_in
from unet_dist.data.decoded.planes import holds_planes, plane_of
from unet_dist.imaging.palette import class_palette, colour_table
from unet_dist.imaging.stretch import as_picture
from unet_dist.storage.files import write_whole
from unet_dist.wording import one_line, shorten

MAX_SIDE_PX = 960
PANEL_INCHES = 4.0
LEGEND_COLUMNS = 6
_MOST_NAMED = 60
"""Classes of a legend: each row of it takes height from the pictures, and layout takes time."""


class Sample(NamedTuple):
    """An image with its label and prediction: (H, W, C), (H, W) and (H, W), the last two uint8; or of overlapping classes packed
    planes, or (K, H, W)."""

    image: np.ndarray
    label: np.ndarray
    prediction: np.ndarray


def draw_samples(path: Path, samples: Sequence[Sample], class_names: Sequence[str]) -> None:
    """Draw image, label and prediction side by side, a row per sample, with a legend of the classes that occur.

    Args:
        path: of the PNG; its folder is made.
        class_names: one per class.
    """
    samples = [_shrunk(sample) for sample in samples]
    occurring = _occurring([part for sample in samples for part in sample[1:]], class_names)
    heights = [PANEL_INCHES * sample.label.shape[0] / sample.label.shape[1] + 0.3 for sample in samples]
    figure, rows = _panels(heights, occurring, class_names)
    for number, (row, sample) in enumerate(zip(rows, samples, strict=True)):
        picture = as_picture(sample.image)
        shown = picture if picture.shape[2] == 3 else picture[:, :, 0]
        pictures = (shown, _coloured(sample.label, class_names), _coloured(sample.prediction, class_names))
        for axes, title, panel in zip(row, ("image", "label", "prediction"), pictures, strict=True):
            axes.imshow(panel, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.axis("off")
            if number == 0:
                axes.set_title(title, fontsize=9)
    write_figure(path, figure)


def draw_prediction(path: Path, image: np.ndarray, prediction: np.ndarray, class_names: Sequence[str]) -> None:
    """Draw an image and its prediction side by side, with a legend of the classes that occur.

    Args:
        path: of the PNG; its folder is made.
        image: (H, W, C).
        prediction: (H, W) class ids, or (K, H, W) of overlapping classes.
        class_names: one per class.
    """
    image, prediction, _ = _shrunk(Sample(image, prediction, prediction))
    height = PANEL_INCHES * prediction.shape[-2] / prediction.shape[-1] + 0.3
    figure, rows = _panels([height], _occurring([prediction], class_names), class_names, columns=2)
    base = as_picture(image)
    shown = base if base.shape[2] == 3 else base[:, :, 0]
    pictures = (shown, _coloured(prediction, class_names))
    for axes, title, picture in zip(rows[0], ("image", "prediction"), pictures, strict=True):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    write_figure(path, figure)


class Pair(NamedTuple):
    """An image (H, W, C) with its label (H, W), class ids or packed planes, and a name."""

    image: np.ndarray
    label: np.ndarray
    name: str


def draw_pairs(path: Path, pairs: Sequence[Pair], class_names: Sequence[str]) -> None:
    """Draw images beside their labels, two pairs per row, with a legend of the classes that occur.

    Args:
        path: of the PNG; its folder is made.
        pairs: 1 or more; values of more than 8 bits are stretched.
        class_names: one per class.
    """
    shrunk = [Pair(*_shrunk(Sample(one.image, one.label, one.label))[:2], one.name) for one in pairs]
    occurring = _occurring([one.label for one in shrunk], class_names)
    rows_of = [shrunk[start : start + 2] for start in range(0, len(shrunk), 2)]
    heights = [PANEL_INCHES * max(one.label.shape[0] / one.label.shape[1] for one in row) + 0.3 for row in rows_of]
    figure, rows = _panels(heights, occurring, class_names, columns=4)
    for axes, row in zip(rows, rows_of, strict=True):
        for panel in axes:
            panel.axis("off")
        for number, one in enumerate(row):
            axes[2 * number].imshow(_shown(one.image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes[2 * number].set_title(one_line(one.name)[-40:], fontsize=9, parse_math=False)
            axes[2 * number + 1].imshow(_coloured(one.label, class_names), interpolation="nearest")
    write_figure(path, figure)


def _shown(image: np.ndarray) -> np.ndarray:
    """The first three channels, or the first, of (H, W, C) as 8 bits."""
    channels = image[:, :, :3] if image.shape[2] >= 3 else image[:, :, 0]
    if channels.dtype == np.uint8:
        return channels
    low, high = np.nanpercentile(channels, (0.5, 99.5))
    stretched = (np.nan_to_num(channels.astype(np.float64)) - low) * (255 / max(high - low, 1e-9))
    return np.clip(stretched, 0, 255).astype(np.uint8)


def draw_fed(
    path: Path, window: np.ndarray, labels: np.ndarray, class_names: Sequence[str], *, title: str = ""
) -> None:
    """Draw a window with a frame around its output, its labels, and the labels over that part of the window.

    Args:
        path: of the PNG; its folder is made.
        window: (h, w, C), what the network sees.
        labels: (h - 2 halo, w - 2 halo) of its output, class ids or packed planes.
        class_names: one per class.
        title: such as the sample's id.
    """
    from matplotlib.patches import Rectangle

    halo = (window.shape[0] - labels.shape[0]) // 2
    height, width = labels.shape
    coloured = _coloured(labels, class_names)
    picture = as_picture(window)
    picture = picture if picture.shape[2] == 3 else np.repeat(picture, 3, axis=2)
    seen = picture[halo : halo + height, halo : halo + width]
    counted = (labels != ignored_in(labels.dtype))[:, :, None]
    mixed = np.where(counted, seen // 2 + coloured // 2, seen // 4)
    heights = [PANEL_INCHES * window.shape[0] / window.shape[1] + 0.3]
    figure, rows = _panels(heights, _occurring([labels], class_names), class_names)
    titles = (f"fed: {one_line(title)}", "mask of the framed part", "mask on the framed part")
    for axes, text, shown in zip(rows[0], titles, (picture, coloured, mixed), strict=True):
        axes.imshow(shown, interpolation="nearest")
        axes.set_title(text, fontsize=9, parse_math=False)
        axes.axis("off")
    rows[0][0].add_patch(Rectangle((halo - 0.5, halo - 0.5), width, height, fill=False, edgecolor="red", linewidth=1))
    write_figure(path, figure)


def _planes_of(labels: np.ndarray, count: int) -> np.ndarray | None:
    """Planes (K, H, W) of overlapping classes, packed or not; None of class ids."""
    if labels.ndim == 3:
        return labels
    return np.stack([plane_of(labels, k) for k in range(count)]) if holds_planes(labels.dtype) else None


def _coloured(labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """The colours of labels, (H, W, 3) uint8; where several classes are, the mean of theirs."""
    colours = _class_colours(class_names)
    planes = _planes_of(labels, len(class_names))
    if planes is None:
        return colours[labels]
    here = planes == 1
    mean = np.tensordot(here, colours[: len(planes)].astype(np.float32), axes=(0, 0))
    return np.rint(mean / np.maximum(here.sum(axis=0), 1)[:, :, None]).astype(np.uint8)


def _occurring(parts: Sequence[np.ndarray], class_names: Sequence[str]) -> np.ndarray:
    """The class ids that occur in labels, what counts nowhere among them."""
    stacks = [_planes_of(part, len(class_names)) for part in parts]
    found = [
        np.unique(part) if planes is None else np.flatnonzero((planes == 1).any(axis=(1, 2)))
        for part, planes in zip(parts, stacks, strict=True)
    ]
    return np.unique(np.concatenate(found))


def _class_colours(class_names: Sequence[str]) -> np.ndarray:
    """(256, 3) uint8, or (65536, 3): a colour for each class id, black for others."""
    return colour_table(class_palette(len(class_names)))


def _panels(
    heights: Sequence[float], occurring: np.ndarray, class_names: Sequence[str], *, columns: int = 3
) -> tuple[Any, Any]:
    """A figure of rows of panels, each row's height in inches, above a legend of the classes that occur."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    colours = _class_colours(class_names)
    shown = occurring[:_MOST_NAMED]
    names = [shorten(one_line(class_names[i]), 60) if i < len(class_names) else "ignored" for i in shown]
    legend_columns = LEGEND_COLUMNS * columns // 3
    legend_inches = 0.22 * -(-len(names) // legend_columns)
    figure = Figure(figsize=(columns * PANEL_INCHES, sum(heights) + legend_inches), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    patches = [
        Patch(facecolor=colours[i] / 255, edgecolor="0.5", linewidth=0.4, label="name") for i in occurring[:_MOST_NAMED]
    ]
    if len(occurring) > _MOST_NAMED:
        names.append(f"and {len(occurring) - _MOST_NAMED} more")
        patches.append(Patch(facecolor="none", edgecolor="none", label="name"))
    legend = figure.legend(handles=patches, loc="outside lower center", ncols=legend_columns, fontsize=7, frameon=False)
    for text, name in zip(legend.get_texts(), names, strict=True):  # a legend leaves out labels that begin with _
        text.set(text=name, parse_math=False)
    return figure, figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights)


def write_figure(path: Path, figure: Any) -> None:
    """Write a figure as a PNG."""
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, encoded.getvalue())


def _shrunk(sample: Sample) -> Sample:
    """Every n-th pixel, so that no side is longer than MAX_SIDE_PX."""
    step = max(1, -(-max(sample.image.shape[:2]) // MAX_SIDE_PX))
    labels = (np.asarray(part[..., ::step, ::step]) for part in sample[1:])
    return Sample(np.asarray(sample.image[::step, ::step]), *labels)
