"""The roofline: what each layer reaches, against what the device can do, as a picture.

Owns one figure. Source: Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model".
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from unet_dist.benchmark.ceilings import Ceilings
from unet_dist.benchmark.layers import MeasuredLayer
from unet_dist.storage.files import write_whole

LABELLED = 8
"""Layers with the most time, which are named in the picture."""


def draw_roofline(path: Path, layers: Sequence[MeasuredLayer], ceilings: Ceilings, *, title: str) -> None:
    """Draw layers over the two roofs: operations per byte to the right, operations per second upwards, area the time taken.

    Layers without products, such as pooling, have no place there: they stand in the legend with their share of the time.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    counted = [layer for layer in layers if layer.flops]
    total = sum(layer.seconds for layer in layers)
    intensities = [layer.flops / layer.num_bytes for layer in counted]
    ridge = ceilings.flops_per_s / ceilings.bytes_per_s
    low, high = min([*intensities, ridge]) / 2, max([*intensities, ridge]) * 4
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    xs = [low, ridge, high]
    axes.plot(xs, [min(x * ceilings.bytes_per_s, ceilings.flops_per_s) / 1e9 for x in xs], color="0.2", linewidth=1.5)
    axes.annotate(
        f"matrix product {ceilings.flops_per_s / 1e9:,.0f} GFLOP/s",
        (high, ceilings.flops_per_s / 1e9), (-4, 5), textcoords="offset points", ha="right", fontsize=8,
    )  # fmt: skip
    axes.annotate(
        f"copy {ceilings.bytes_per_s / 1e9:,.0f} GB/s",
        (low, low * ceilings.bytes_per_s / 1e9), (6, -2), textcoords="offset points", fontsize=8, va="top",
    )  # fmt: skip
    rates = [layer.flops / layer.seconds / 1e9 for layer in counted]
    sizes = [20 + 1500 * layer.seconds / total for layer in counted]
    axes.scatter(intensities, rates, s=sizes, alpha=0.55, color="tab:blue", edgecolors="white", linewidths=0.5)
    # Layers of like shapes lie upon each other: their names stand in a column beside the picture, in the order of their rates.
    longest = sorted(range(len(counted)), key=lambda i: -counted[i].seconds)[:LABELLED]
    for place, i in enumerate(sorted(longest, key=lambda i: -rates[i])):
        axes.annotate(
            f"{counted[i].seconds / total:.0%}  {counted[i].name}", (intensities[i], rates[i]), (1.04, 0.92 - 0.08 * place),
            textcoords="axes fraction", va="center", fontsize=8,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "relpos": (0, 0.5), "shrinkA": 2},
        )  # fmt: skip
    rest = sum(layer.seconds for layer in layers if not layer.flops) / total
    axes.set(
        xscale="log", yscale="log", xlabel="operations per byte moved (FLOP/B)", ylabel="GFLOP/s", xlim=(low, high)
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_title(title, fontsize=10)
    axes.text(
        0.99, 0.02, f"area: time; without products (ReLU, pooling, copies, loss): {rest:.0%} of it",
        transform=axes.transAxes, ha="right", fontsize=8, color="0.3",
    )  # fmt: skip
    axes.grid(True, which="major", linewidth=0.4, alpha=0.6)
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png")
    write_whole(path, encoded.getvalue())
