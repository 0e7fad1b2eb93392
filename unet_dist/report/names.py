"""The names in a chart, as Plotly shows them: words and nothing else.

Plotly reads <b>, <a href> and <br> in any text, and takes an axis of names like 1 and 2 for one of numbers, which it sorts and
spaces. Here names become what they are, whatever somebody called a class, an image or a run.
"""

from __future__ import annotations

from typing import Any

_OF_NAMES = ("name", "x", "y", "text")
"""Keys of a trace that hold names; its templates are ours."""


def keep_names(chart: dict[str, Any]) -> None:
    """Put the names of a chart into the form that shows them as they are; the chart is Plotly's JSON, and is changed."""
    for trace in chart["data"]:
        for key in _OF_NAMES:
            if key in trace:
                trace[key] = _plain(trace[key])
        for direction in "xy":
            values = trace.get(direction)
            if isinstance(values, list) and any(isinstance(value, str) for value in values):
                number = trace.get(f"{direction}axis", direction)[1:]
                chart["layout"].setdefault(f"{direction}axis{number}", {})["type"] = "category"
    for key, axis in chart["layout"].items():
        if key[1:].startswith("axis") and "categoryarray" in axis:
            axis["categoryarray"] = _plain(axis["categoryarray"])


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") if isinstance(value, str) else value
