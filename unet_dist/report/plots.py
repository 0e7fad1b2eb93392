"""The charts for papers: PNG files in figures/, drawn by matplotlib.

Owns curves.png, iou.png, confusion.png and calibration.png; of the same numbers as the page's charts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet_dist.report.charts import column, most_frequent, shown_classes, smooth
from unet_dist.report.contents import RunContents
from unet_dist.report.figures import write_figure
from unet_dist.report.summary import ClassScore, class_scores
from unet_dist.wording import one_line, shorten

# Source: Okabe and Ito 2008, "Color Universal Design".
_BLUE, _VERMILION, _GREEN, _GREY = "#0072b2", "#d55e00", "#009e73", "#9aa0a8"
_MOST_NUMBERED = 20
"""Classes whose shares fit into the cells of a confusion matrix, in percent."""


def draw_plots(run: RunContents, split: str | None, folder: Path) -> list[Path]:
    """Draw what the run has the numbers for.

    Args:
        split: whose evaluation is drawn, None where there is none.

    Returns:
        The files that were written.
    """
    figures: dict[str, Any] = {}
    if run.train or run.validations:
        figures["curves.png"] = _curves(run)
    scores = class_scores(run, split)
    if scores:
        figures["iou.png"] = _iou(scores, split)
    if split is not None:
        if run.evaluations[split].get("confusion"):
            figures["confusion.png"] = _confusion(run, split)
        if run.evaluations[split].get("calibration"):
            figures["calibration.png"] = _calibration(run.evaluations[split]["calibration"])
    for name, figure in figures.items():
        write_figure(folder / name, figure)
    return [folder / name for name in figures]


def _new(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _curves(run: RunContents) -> Any:
    figure = _new(11, 3)
    loss, rate, miou = figure.subplots(1, 3, sharex=True)
    steps, values = column(run.train, "loss")
    if len(steps):
        _draw(loss, steps, values, color=_BLUE, alpha=0.35, linewidth=0.8)
        _draw(loss, steps, smooth(values), color=_BLUE)
    _draw(rate, *column(run.train, "learning_rate"), color=_BLUE)
    _draw(miou, *column(run.validations, "miou"), color=_BLUE, label="mean IoU")
    accuracy = column(run.validations, "pixel_accuracy")
    _draw(miou, *accuracy, color=_VERMILION, linestyle=":", label="pixel accuracy")
    if run.best is not None:
        ring = {"markerfacecolor": "none", "markeredgewidth": 1.5, "markersize": 10}
        miou.plot([run.best["step"]], [run.best["miou"]], "o", color=_GREEN, label="best", **ring)
        miou.legend(frameon=False, fontsize=8)
    for axes, title in ((loss, "training loss"), (rate, "learning rate"), (miou, "validation")):
        axes.set_xlabel("step")
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw(axes: Any, steps: np.ndarray, values: np.ndarray, **style: Any) -> None:
    """Draw a curve, or a mark where it has a single point: a line would not show it."""
    axes.plot(steps, values, marker="o" if len(steps) == 1 else None, **style)


def _iou(scores: Sequence[ClassScore], split: str | None) -> Any:
    ordered = most_frequent(scores)
    rows = np.arange(len(ordered))
    figure = _new(8, 1.2 + 0.24 * len(ordered))
    iou, share = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    iou.barh(rows, [score.iou or 0.0 for score in ordered], color=_BLUE)
    for row, score in zip(rows, ordered, strict=True):
        text = "absent" if score.iou is None else f"{score.iou:.3f}"
        iou.text((score.iou or 0.0) + 0.01, row, text, va="center", fontsize=9)
    iou.set(yticks=rows, xlim=(0, 1.12), ylim=(-0.6, len(rows) - 0.4), xlabel="IoU")
    iou.set_yticklabels([shorten(one_line(score.name), 40) for score in ordered], fontsize=9, parse_math=False)
    for attribute, colour, marker, title in (
        ("train_share", _VERMILION, "o", "training"),
        ("split_share", _GREEN, "d", split or "validation"),
    ):
        values = [(row, getattr(score, attribute)) for row, score in zip(rows, ordered, strict=True)]
        known = [(row, value) for row, value in values if value]
        if known:
            share.plot([v for _, v in known], [r for r, _ in known], marker, color=colour, markersize=7, label=title)
            share.set_xscale("log")
    if share.get_legend_handles_labels()[0]:
        share.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, handletextpad=0.2)
    share.set_xlabel("share of the pixels")
    for axes in (iou, share):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _confusion(run: RunContents, split: str) -> Any:
    counts = np.asarray(run.evaluations[split]["confusion"], dtype=np.float64)  # (K, K), rows are labels
    shown, title = shown_classes(counts, run.ignore_index)
    counts = counts[np.ix_(shown, shown)]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [shorten(one_line(run.class_names[index]), 40) for index in shown]
    side = (
        2.2 + 0.22 * len(names) + 0.06 * max([0, *(len(name) - 20 for name in names)])
    )  # inches: long names take room
    figure = _new(side + 0.8, side)
    axes = figure.subplots()
    drawn = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    axes.set(xticks=range(len(names)), yticks=range(len(names)), xlabel="predicted", ylabel=title)
    axes.set_xticklabels(names, rotation=90, fontsize=7, parse_math=False)
    axes.set_yticklabels(names, fontsize=7, parse_math=False)
    figure.colorbar(drawn, label="% of the label's pixels", shrink=0.6)
    if len(names) <= _MOST_NUMBERED:
        for row, column_ in np.ndindex(shares.shape):
            colour = "white" if shares[row, column_] > 0.5 else "black"
            axes.text(
                column_, row, f"{100 * shares[row, column_]:.0f}", ha="center", va="center", fontsize=6, color=colour
            )
    return figure


def _calibration(calibration: Mapping[str, Any]) -> Any:
    pixels, right = (np.asarray(calibration[key], dtype=np.float64) for key in ("pixels", "right"))
    middles = (np.arange(len(pixels)) + 0.5) / len(pixels)
    figure = _new(4, 4.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.bar(middles, right / np.maximum(pixels, 1), width=0.92 / len(pixels), color=_BLUE)
    upper.plot([0, 1], [0, 1], "--", color=_VERMILION)
    upper.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    upper.set_title(f"expected calibration error {calibration['error']:.1%}", fontsize=10)
    lower.bar(middles, pixels / max(1.0, pixels.sum()), width=0.92 / len(pixels), color=_GREY)
    lower.set(xlabel="confidence", ylabel="pixels")
    return figure
