"""The charts of the page, as Plotly figures.

Owns the axes and marks of each chart. Colours are left to the page, which knows whether it is dark: a trace says which of the
series' colours it takes (`meta.colour`), or that it is a scale (`meta.scale`). So is the width: a layout says what differs on a
phone (`meta.narrow`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dist.report.contents import RunContents
from unet_dist.report.summary import ClassScore

if TYPE_CHECKING:
    import plotly.graph_objects as go

_FEW_POINTS, _NONE = 100, np.empty(0)  # which are marked
MAX_POINTS = 2000
"""Of a curve: more are thinned out by means of neighbours, as no screen shows them."""

ROW_PX = 21
"""Height of a class in the bars and in the confusion matrix."""

MOST_CLASSES = 100
"""That a chart shows. assumption, by the eye; of 268 classes a matrix took matplotlib five minutes."""

NARROW = "narrow"
"""Key of a layout's meta: what its axes are like on a phone, by axis."""

LEAST_WIDTH = "least_width"
"""Key of a layout's meta: below as many px, a chart is wider than its place and scrolls there."""

LEGEND_PX = 20
"""Height of a name in a legend: on a phone, or beside another chart, each of several runs takes a line."""

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def run_charts(run: RunContents, split: str | None, scores: Sequence[ClassScore]) -> dict[str, go.Figure]:
    """The charts of one run by their place in the page; those without data are left out."""
    charts: dict[str, go.Figure | None] = {
        "loss": _loss_chart([run]),
        "rate": _curve_chart([run], "train", "learning_rate", "learning rate"),
        "miou": _miou_chart(run),
        "iou": _iou_chart(scores) if scores else None,
    }
    if split is not None:
        evaluation = run.evaluations[split]
        if evaluation.get("confusion"):
            charts["confusion"] = _confusion_chart(evaluation["confusion"], run.class_names, run.ignore_index)
        if evaluation.get("calibration"):
            charts["calibration"] = _calibration_chart(evaluation["calibration"])
        if evaluation.get("by_image"):
            charts["images"] = _images_chart(evaluation["by_image"])
    return {name: figure for name, figure in charts.items() if figure is not None}


def comparison_charts(runs: Sequence[RunContents], scores: Sequence[Sequence[ClassScore]]) -> dict[str, go.Figure]:
    """The charts of several runs, a colour and a dash each."""
    charts = {
        "loss": _loss_chart(runs),
        "rate": _curve_chart(runs, "train", "learning_rate", "learning rate"),
        "miou": _curve_chart(runs, "validation", "miou", "mean IoU"),
        "iou": _class_comparison_chart(runs, scores),
    }
    return {name: figure for name, figure in charts.items() if figure is not None}


def column(records: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a key where it is a number, thinned out to MAX_POINTS."""
    pairs = [(record["step"], record[key]) for record in records if isinstance(record.get(key), int | float)]
    if not pairs:
        return np.empty(0), np.empty(0)
    steps, values = (np.array(numbers, dtype=np.float64) for numbers in zip(*pairs, strict=True))
    group = -(-len(steps) // MAX_POINTS)
    if group > 1:
        starts = np.arange(0, len(steps), group)
        sizes = np.diff(np.append(starts, len(steps)))
        steps, values = (np.add.reduceat(numbers, starts) / sizes for numbers in (steps, values))
    return steps, values


def smooth(values: np.ndarray) -> np.ndarray:
    """The mean over a window of a twentieth of the curve around each value, narrower at the ends."""
    half = max(1, len(values) // 40)
    sums = np.cumsum(np.insert(values, 0, 0.0))
    at = np.arange(len(values))
    reach = np.minimum(half, np.minimum(at, len(values) - 1 - at))
    smoothed: np.ndarray = (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1)
    return smoothed


def _figure(height: int = 300, **layout: Any) -> go.Figure:
    import plotly.graph_objects as go

    figure = go.Figure(
        layout={
            "template": {},
            "height": height,
            "margin": {"l": 12, "r": 24, "t": 12, "b": 56},
            "hovermode": "x unified",
            "xaxis": {"title": {"standoff": 8}, "rangemode": "tozero"},
            "yaxis": {"automargin": True, "title": {"standoff": 8}},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        }
    )
    return figure.update_layout(**layout)


def _curve_height(runs: Sequence[RunContents]) -> int:
    """300 px, and more where the legend is of many runs."""
    return 300 + LEGEND_PX * max(0, len(runs) - 2)


def _loss_chart(runs: Sequence[RunContents]) -> go.Figure | None:
    figure = _figure(_curve_height(runs), xaxis={"title": {"text": "step"}}, yaxis={"title": {"text": "loss"}})
    for number, run in enumerate(runs):
        steps, values = column(run.train, "loss")
        if not len(steps):
            continue
        is_alone = len(runs) == 1
        if is_alone:
            figure.add_scatter(
                x=_rounded(steps), y=_rounded(values), name="loss", opacity=0.4, **_line(number, width=1)
            )
        name = "smoothed" if is_alone else run.name
        line = _line(number, dash=None if is_alone else _DASHES[number % len(_DASHES)])
        figure.add_scatter(x=_rounded(steps), y=_rounded(smooth(values)), name=name, **line)
    return figure if figure.data else None


def _curve_chart(runs: Sequence[RunContents], split: str, key: str, title: str) -> go.Figure | None:
    axis = {"title": {"text": title}, "rangemode": "tozero", "exponentformat": "none"}
    figure = _figure(_curve_height(runs), xaxis={"title": {"text": "step"}}, yaxis=axis)
    for number, run in enumerate(runs):
        steps, values = column(run.train if split == "train" else run.validations, key)
        if len(steps):
            dash = None if len(runs) == 1 else _DASHES[number % len(_DASHES)]
            name, line = title if len(runs) == 1 else run.name, _line(number, steps, dash=dash)
            figure.add_scatter(x=_rounded(steps), y=_rounded(values), name=name, **line)
    figure.update_layout(showlegend=len(runs) > 1)
    return figure if figure.data else None


def _miou_chart(run: RunContents) -> go.Figure | None:
    best = run.best
    if best is None:
        return None
    figure = _figure(xaxis={"title": {"text": "step"}}, yaxis={"title": {"text": "validation"}, "rangemode": "tozero"})
    drawn = {"mean IoU": column(run.validations, "miou"), "pixel accuracy": column(run.validations, "pixel_accuracy")}
    others = [{"step": record["step"], **record.get("metrics", {})} for record in run.validations]
    drawn |= {
        name: column(others, name) for name in dict.fromkeys(key for other in others for key in other if key != "step")
    }
    for number, (title, (steps, values)) in enumerate(drawn.items()):
        if len(steps):
            line = _line(number, steps, dash=_DASHES[2 * number % 5])
            figure.add_scatter(x=_rounded(steps), y=_rounded(values), name=title, **line)
    figure.add_scatter(
        x=[best["step"]],
        y=[best["miou"]],
        name="best mean IoU",
        mode="markers",
        marker={"symbol": "star", "size": 13},
        meta={"colour": 2},
        hoverinfo="skip",
    )
    return figure


def _iou_chart(scores: Sequence[ClassScore]) -> go.Figure:
    """IoU beside frequency, the most frequent class on top."""
    from plotly.subplots import make_subplots

    ordered = most_frequent(scores)
    names = [score.name for score in ordered]
    figure = make_subplots(1, 2, shared_yaxes=True, column_widths=[0.62, 0.38], horizontal_spacing=0.03)
    figure.add_bar(
        y=names,
        x=[score.iou or 0.0 for score in ordered],
        orientation="h",
        name="IoU",
        meta={"colour": 0},
        text=["absent" if score.iou is None else f"{score.iou:.3f}" for score in ordered],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: IoU %{text}<extra></extra>",
    )
    shares = (("training pixels", "train_share", 1), ("pixels of the split", "split_share", 3))
    for title, attribute, colour in shares:
        values = [getattr(score, attribute) for score in ordered]
        if any(value is not None for value in values):
            figure.add_scatter(
                y=names,
                x=[value or None for value in values],  # none has no place on a logarithmic axis
                mode="markers",
                name=title,
                marker={"size": 11, "symbol": "circle" if colour == 1 else "diamond-open", "line": {"width": 1.5}},
                meta={"colour": colour},
                hovertemplate=f"%{{y}}: %{{x:.3%}} of the {title}<extra></extra>",
                xaxis="x2",
                yaxis="y2",
            )
    figure.update_layout(
        _figure(height=max(220, 110 + ROW_PX * len(names))).layout
    )  # the legend takes three lines of a phone
    figure.update_layout(hovermode="closest", bargap=0.25, margin={"l": 8, "r": 16, "t": 12, "b": 56})
    figure.update_layout(
        xaxis={"title": {"text": "IoU"}, "range": [0, 1.12], "tickvals": [0, 0.25, 0.5, 0.75, 1]},
        xaxis2={
            "title": {"text": "share of the pixels (log)", "standoff": 8},
            "type": "log",
            "tickformat": "~%",
            "nticks": 4,
        },
        yaxis={"dtick": 1, "range": [-0.7, len(names) - 0.3]},
        yaxis2={"range": [-0.7, len(names) - 0.3]},
        meta={NARROW: {"xaxis": {"range": [0, 1.45], "tickvals": [0, 0.5, 1]}, "xaxis2": _narrow_shares(scores)}},
    )
    return figure


def _narrow_shares(scores: Sequence[ClassScore]) -> dict[str, Any]:
    """The axis of shares where a third of a phone is left for it: whole decades up to 100 %, the last and a middle one named."""
    shares = [share for score in scores for share in (score.train_share, score.split_share) if share]
    decades = max(1, -math.floor(math.log10(min(shares, default=0.1))))
    middle = (decades + 1) // 2
    title = {"text": "share (log)", "standoff": 8}
    return {
        "title": title,
        "range": [-decades - 0.2, 0.2],
        "tickvals": [10.0**-middle, 1],
        "tickangle": 0,
        "tickfont": {"size": 11},
    }


def _frequency(score: ClassScore) -> float:
    return score.train_share if score.train_share is not None else score.split_share or 0.0


def most_frequent(scores: Sequence[ClassScore]) -> list[ClassScore]:
    """The classes that a chart shows, the most frequent last: tables hold the others."""
    return sorted(scores, key=_frequency)[-MOST_CLASSES:]


def shown_classes(counts: np.ndarray, ignore_index: int | None) -> tuple[list[int], str]:
    """The classes that a drawn confusion matrix (K, K) shows, in order, and how its axis of labels is called."""
    pixels = counts.sum(0) + counts.sum(1)
    occurring = [index for index in range(len(counts)) if pixels[index] > 0 and index != ignore_index]
    shown = sorted(sorted(occurring, key=lambda index: -pixels[index])[:MOST_CLASSES])
    rest = len(occurring) - len(shown)
    return shown, f"label ({rest} more classes have fewer pixels)" if rest else "label"


def _confusion_chart(confusion: Sequence[Sequence[int]], names: Sequence[str], ignore_index: int | None) -> go.Figure:
    counts = np.asarray(confusion, dtype=np.int64)  # (K, K), rows are labels
    shown, title = shown_classes(counts, ignore_index)
    counts = counts[np.ix_(shown, shown)]
    rows = counts.sum(1, keepdims=True)
    shares = np.where(rows > 0, counts / np.maximum(rows, 1), np.nan)
    labels = [names[index] for index in shown]
    figure = _figure(height=190 + ROW_PX * len(shown))
    figure.add_heatmap(
        z=[[None if np.isnan(value) else round(float(value), 4) for value in row] for row in shares],
        x=labels,
        y=labels,
        customdata=counts.tolist(),
        zmin=0,
        zmax=1,
        xgap=1,
        ygap=1,
        meta={"scale": True},
        colorbar={
            "title": {"text": "share of the label", "side": "right"},
            "tickformat": ".0%",
            "thickness": 12,
            "len": 0.6,
        },
        hovertemplate="label %{y}<br>predicted %{x}<br>%{z:.1%} of the label's pixels<br>%{customdata:,} pixels<extra></extra>",
    )
    figure.update_layout(
        hovermode="closest",
        margin={"l": 8, "r": 8, "t": 8, "b": 28},
        xaxis={"title": {"text": "predicted"}, "tickangle": -60, "automargin": True, "dtick": 1, "showgrid": False},
        yaxis={"title": {"text": title}, "autorange": "reversed", "automargin": True, "dtick": 1, "showgrid": False},
        meta={LEAST_WIDTH: 140 + 16 * len(shown)},
    )
    return figure


def _calibration_chart(calibration: Mapping[str, Any]) -> go.Figure:
    """Accuracy against confidence, above how many pixels there are of each confidence."""
    from plotly.subplots import make_subplots

    pixels = np.asarray(calibration["pixels"], dtype=np.float64)
    right = np.asarray(calibration["right"], dtype=np.float64)
    width = 1 / len(pixels)
    middles = (np.arange(len(pixels)) + 0.5) * width
    filled = pixels > 0
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.74, 0.26], vertical_spacing=0.05)
    figure.add_bar(
        x=_rounded(middles[filled]),
        y=_rounded(right[filled] / pixels[filled]),
        width=width * 0.92,
        name="right",
        meta={"colour": 0},
        customdata=[f"{count:,.0f}" for count in pixels[filled]],
        hovertemplate="confidence about %{x:.2f}<br>right %{y:.1%}<br>%{customdata} pixels<extra></extra>",
    )
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        name="perfectly calibrated",
        hoverinfo="skip",
        **_line(1, dash="dash"),
    )
    figure.add_bar(
        x=_rounded(middles),
        y=_rounded(pixels / max(1.0, pixels.sum())),
        width=width * 0.92,
        name="share of the pixels",
        meta={"colour": 7},
        hovertemplate="confidence about %{x:.2f}<br>%{y:.1%} of the pixels<extra></extra>",
        xaxis="x2",
        yaxis="y2",
    )
    figure.update_layout(_figure(height=420).layout)
    figure.update_layout(
        hovermode="closest",
        xaxis={"range": [0, 1], "showticklabels": False},
        xaxis2={"range": [0, 1], "title": {"text": "confidence", "standoff": 8}, "tickformat": ".0%"},
        yaxis={"range": [0, 1.02], "title": {"text": "right"}, "tickformat": ".0%"},
        yaxis2={"title": {"text": "pixels"}, "tickformat": ".0%", "nticks": 3},
    )
    return figure


def _images_chart(by_image: Sequence[Mapping[str, Any]]) -> go.Figure | None:
    """The images of the split from the worst to the best."""
    known = sorted((entry["miou"], entry["id"]) for entry in by_image if entry.get("miou") is not None)
    if not known:
        return None
    figure = _figure(height=260, hovermode="closest", showlegend=False)
    figure.add_scatter(
        x=list(range(1, len(known) + 1)),
        y=[round(miou, 4) for miou, _ in known],
        text=[name for _, name in known],
        mode="markers" if len(known) < 400 else "lines",
        marker={"size": 10},
        meta={"colour": 0},
        hovertemplate="%{text}<br>mean IoU %{y:.4f}<br>%{x}. from below<extra></extra>",
    )
    figure.update_layout(
        xaxis={"title": {"text": "images, the worst first"}},
        yaxis={"title": {"text": "mean IoU"}, "rangemode": "tozero"},
    )
    return figure


def _class_comparison_chart(runs: Sequence[RunContents], scores: Sequence[Sequence[ClassScore]]) -> go.Figure | None:
    """IoU of each class, one mark per run."""
    occurring = [score for of_run in scores for score in of_run]
    if not occurring:
        return None
    names = list(dict.fromkeys(score.name for score in sorted(occurring, key=_frequency)))
    figure = _figure(height=90 + LEGEND_PX * len(runs) + ROW_PX * len(names), hovermode="closest")
    symbols = ("circle", "diamond", "square", "triangle-up", "cross", "x")
    for number, (run, of_run) in enumerate(zip(runs, scores, strict=True)):
        known = {score.name: score.iou for score in of_run if score.iou is not None}
        figure.add_scatter(
            y=[name for name in names if name in known],
            x=[round(known[name], 4) for name in names if name in known],
            mode="markers",
            name=run.name,
            marker={"size": 10, "symbol": symbols[number % len(symbols)], "opacity": 0.85},
            meta={"colour": number},
            hovertemplate="%{y}: IoU %{x:.4f}<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(
        xaxis={"title": {"text": "IoU"}, "range": [-0.02, 1.02]},
        yaxis={"automargin": True, "dtick": 1, "categoryorder": "array", "categoryarray": names},
    )
    return figure


def _line(colour: int, marked: np.ndarray = _NONE, *, width: float = 2, dash: str | None = None) -> dict[str, Any]:
    mode = "lines+markers" if 0 < len(marked) < _FEW_POINTS else "lines"
    return {"mode": mode, "line": {"width": width, "dash": dash}, "meta": {"colour": colour}}


def _rounded(values: np.ndarray) -> list[float]:
    """Six digits: what a chart can show, in a third of the bytes."""
    return [float(f"{value:.6g}") for value in values]
