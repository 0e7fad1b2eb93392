"""From what a run's folder says to one HTML file.

Owns what the page embeds, and how: the page loads nothing from anywhere, and says so to the browser (its content security policy),
so that a class name or an id of hostile words stays words.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from unet_dist.config.sections import KEYS, Config
from unet_dist.imaging.palette import class_palette
from unet_dist.report.charts import comparison_charts, run_charts
from unet_dist.report.comparison import columns_of, compare, differing_keys
from unet_dist.report.contents import RunContents
from unet_dist.report.names import keep_names
from unet_dist.report.pictures import PICTURES_FOLDER, embed_picture
from unet_dist.report.published import DATA_SET, PUBLISHED, is_same_data
from unet_dist.report.summary import (
    class_scores,
    hardware_rows,
    headline,
    missing,
    missing_together,
    status,
    worst_classes,
)
from unet_dist.wording import printable

if TYPE_CHECKING:
    import plotly.graph_objects as go

_SCRIPTS = ("charts.js", "viewer.js", "tables.js")
_LIBRARY = "plotly-cartesian.min.js.gz"
"""Of the charts: npm's plotly.js-cartesian-dist-min 4.1.1 (MIT), packed by gzip -9n. A third of what the Python package brings,
which a browser takes a second longer to compile."""


def run_page(run: RunContents, *, split: str | None = None, max_pictures: int = 12) -> str:
    """The page of one run.

    Args:
        split: whose evaluation is shown; by default the first that is there.
        max_pictures: shown at most.
    """
    shown = run.shown_split(split)
    scores = class_scores(run, shown)
    pictures = _pictures(run, shown, max_pictures)
    context = {
        "run": run,
        "split": shown,
        "status": status(run),
        "tiles": headline(run, shown),
        "missing": missing(run, shown, split),
        "worst_classes": worst_classes(scores),
        "spread": [p for p in pictures if p["reason"] == "spread"],
        "worst": sorted((p for p in pictures if p["reason"] == "worst"), key=lambda p: p["miou"] or 0.0),
        "hardware": hardware_rows(run),
        "settings": _settings(run),
        "evaluations": run.evaluations,
    }
    figures = run_charts(run, shown, scores)
    return _render("run.html", figures, {"pictures": pictures, "classes": _classes(run)}, context)


def comparison_page(runs: Sequence[RunContents], *, split: str | None = None, max_pictures: int = 12) -> str:
    """The page of several runs side by side."""
    splits = [run.shown_split(split) for run in runs]
    scores = [class_scores(run, shown) for run, shown in zip(runs, splits, strict=True)]
    rows = compare(runs, splits)
    pictures = _common_pictures(runs, splits, max_pictures)
    trained = [run for run in runs if run.is_run]  # scores from elsewhere have no settings
    context = {
        "runs": runs,
        "trained": trained,
        "columns": columns_of(runs, splits),
        "rows": rows,
        "published": PUBLISHED if any(is_same_data(run.config) for run in runs) else (),
        "published_data": DATA_SET,
        "differences": [(key, [_said(value) for value in values]) for key, values in differing_keys(trained)],
        "missing": missing_together(runs, splits, split),
        "statuses": [(run.name, status(run)) for run in runs],
    }
    data = {"pictures": pictures, "classes": _classes(runs[0])}
    return _render("comparison.html", comparison_charts(runs, scores), data, context)


def _render(
    template: str, figures: Mapping[str, go.Figure], data: Mapping[str, Any], context: Mapping[str, Any]
) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Plotly writes NaN as null; the rest must be JSON for everybody.
    charts = {name: json.loads(figure.to_json()) for name, figure in figures.items()}
    for chart in charts.values():
        keep_names(chart)
    packed = json.dumps({**data, "charts": charts}, allow_nan=False, separators=(",", ":"))
    library, library_hash = _packed_plotly()
    scripts = [_web(name) for name in _SCRIPTS]
    environment = Environment(
        loader=PackageLoader("unet_dist.report", "web"),
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,  # not text that is HTML already
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        **context,
        charts=list(charts),
        data=packed.replace("<", "\\u003c"),  # no word in it can end the element that holds it
        style=_web("page.css"),
        library=library,
        scripts=scripts,
        script_hashes=" ".join(f"'sha256-{found}'" for found in (library_hash, *map(_sha256, scripts))),
        made=time.strftime("%Y-%m-%d %H:%M"),
        has_pictures=bool(data["pictures"]),
    )


@cache
def _packed_plotly() -> tuple[str, str]:
    """The library of the charts as base64 of gzip, and the hash of its text.

    The page unpacks its 1.5 MB once everything else stands: Chromium takes longer to compile them than for all the rest.
    """
    packed = (files("unet_dist.report") / "web" / _LIBRARY).read_bytes()
    return base64.b64encode(packed).decode("ascii"), _sha256(gzip.decompress(packed).decode())


def _web(name: str) -> str:
    return (files("unet_dist.report") / "web" / name).read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _classes(run: RunContents) -> list[dict[str, Any]]:
    """Name and colour of each class id."""
    names = run.class_names
    if not names:
        return []
    return [
        {"name": name, "colour": colour} for name, colour in zip(names, class_palette(len(names)).tolist(), strict=True)
    ]


def _pictures(run: RunContents, split: str | None, count: int) -> list[dict[str, Any]]:
    """The pictures that an evaluation kept, embedded: as many of the worst as of the spread where not all may be shown."""
    kept = [] if split is None else run.evaluations[split].get("pictures") or []
    worst = [entry for entry in kept if entry["reason"] == "worst"]
    spread = [entry for entry in kept if entry["reason"] != "worst"]
    chosen = spread[: max(count - len(worst), count - count // 2)]
    chosen += worst[: count - len(chosen)]
    pictures = []
    for entry in chosen:
        embedded = embed_picture(run.folder / PICTURES_FOLDER, entry["name"])
        if embedded is not None:
            predictions = [{"title": "prediction", "source": embedded.pop("prediction"), "miou": entry["miou"]}]
            pictures.append({**entry, **embedded, "predictions": predictions})
    return pictures


def _common_pictures(runs: Sequence[RunContents], splits: Sequence[str | None], count: int) -> list[dict[str, Any]]:
    """The pictures that all runs kept of the same images, one with the predictions of all."""
    of_runs = [_pictures(run, split, 10**6) for run, split in zip(runs, splits, strict=True)]
    same = len({(split, tuple(run.class_names)) for run, split in zip(runs, splits, strict=True)}) == 1
    if not same:
        return []
    common: list[dict[str, Any]] = []
    for picture in of_runs[0]:
        twins = [next((p for p in of_run if _is_same_image(p, picture)), None) for of_run in of_runs]
        if len(common) < count and all(twin is not None for twin in twins):
            predictions = [
                {**twin["predictions"][0], "title": run.name} for run, twin in zip(runs, twins, strict=True) if twin
            ]
            classes = sorted({c for twin in twins if twin for c in twin["classes"]})
            common.append({**picture, "predictions": predictions, "classes": classes})
    return common


def _is_same_image(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one[key] == other[key] for key in ("id", "label", "width", "height"))


def _settings(run: RunContents) -> list[tuple[str, str, bool]]:
    """Key, value, and whether it differs from the default; keys of another release are listed too."""
    defaults = Config().flat()
    return [(key, _said(value), key in KEYS and value != defaults[key]) for key, value in run.config.items()]


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
