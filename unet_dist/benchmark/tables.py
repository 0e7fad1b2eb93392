"""The figures as tables that read at 80 columns.

Owns words, units and the number of digits. Must not know how a figure was made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table

from unet_dist.benchmark.ceilings import Ceilings
from unet_dist.benchmark.layers import MeasuredLayer
from unet_dist.benchmark.results import Result
from unet_dist.benchmark.subject import BYTES, FLOPS, LOOP, PREDICT, PREDICT_BARE, READ, STEP, WAIT
from unet_dist.benchmark.timing import Spread
from unet_dist.wording import counted

MOST_LAYERS = 40
"""Rows that are looked through; bench.json has all."""
_NAME = 24


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def result_table(result: Result, precision: str, image_shape: tuple[int, int] | None) -> Table:
    """All figures of one setting."""
    amounts = result.amounts
    each = " (matrix product, copy, FLOP/s, crops: of each)" if amounts.world_size > 1 else ""
    table = _table(f"{result.name}{each}", "what", "median", "lowest", "highest")
    image = f"{image_shape[0]}x{image_shape[1]}" if image_shape else ""
    rows = [
        (f"matrix product, {precision}", FLOPS, flops_per_s),
        ("copy, read and written", BYTES, bytes_per_s),
        None,
        ("bare step, data on the device", STEP, time_text),
        ("model FLOP/s", "model_flops_per_s", flops_per_s),
        ("  share of the matrix product", "share_of_matmul", percent),
        None,
        ("step in the real loop", LOOP, time_text),
        ("  overhead over the bare step", "loop_overhead", percent),
        ("  share waiting for data", WAIT, percent),
        ("images/s", "images_per_s", number),
        ("megapixels/s of input windows", "megapixels_per_s", number),
        None,
        ("data path alone, a step's crops", READ, time_text),
        ("  crops/s", "crops_read_per_s", number),
        None,
        (f"prediction, {counted(amounts.images, 'image')} of {image}", PREDICT, time_text),
        ("  bare network, same windows", PREDICT_BARE, time_text),
        ("  prediction / bare", "prediction_over_bare", times),
        ("  megapixels/s", "predicted_megapixels_per_s", number),
    ]
    for row in rows:
        if row is None:
            table.add_section()
        elif row[1] in result.figures:
            table.add_row(row[0], *_cells(result.figures[row[1]], row[2]))
    return table


def layer_table(layers: Sequence[MeasuredLayer], ceilings: Ceilings) -> Table:
    """Time of each layer, forward and backward, against its roof; of more than MOST_LAYERS those that take most of it."""
    table = _table(
        "forward and backward pass, by layer", "layer", "time", "of all", "GFLOP/s", "GB/s", "of limit", "roof"
    )
    total = sum(layer.seconds for layer in layers) or 1.0
    least = sorted((layer.seconds for layer in layers), reverse=True)[:MOST_LAYERS][-1:]
    shown = [layer for layer in layers if layer.seconds >= least[0]]
    for layer in shown:
        taken = layer.seconds or float("inf")
        table.add_row(
            layer.name if len(layer.name) <= _NAME else f"…{layer.name[1 - _NAME :]}",
            time_text(layer.seconds),
            percent(layer.seconds / total),
            number(layer.flops / taken / 1e9) if layer.flops else "",
            number(layer.num_bytes / taken / 1e9),
            percent(layer.share_of_limit),
            layer.bound(ceilings),
        )
    if len(shown) < len(layers):
        rest = total - sum(layer.seconds for layer in shown)
        table.add_row(f"{len(layers) - len(shown)} others", time_text(rest), percent(rest / total), "", "", "", "")
    table.add_section()
    table.add_row("all", time_text(total), "", "", "", percent(sum(layer.limit_s for layer in layers) / total), "")
    return table


def scaling_table(rows: Sequence[tuple[str, float, float, Spread]], world_size: int) -> Table:
    """What several processes do together against one of them alone.

    Args:
        rows: what, units per second alone, units per second together, their ratio.
    """
    table = _table(
        f"{world_size} processes against one alone", "what", "alone", "together", "times", "lowest", "highest"
    )
    for what, alone, together, spread in rows:
        table.add_row(what, number(alone), number(together), *_cells(spread, times))
    return table


def comparison_tables(results: Sequence[Result], ratios: Sequence[dict[str, Spread | None]]) -> list[Table]:
    """Settings side by side; `times` is how many times as fast as the first."""
    training = _table("training", "setting", "images/s", "times", "bare step", "waiting", "crops/s")
    prediction = _table("prediction of an image", "setting", "time", "times", "megapixels/s", "over bare")
    for result, ratio in zip(results, ratios, strict=True):
        figures = result.figures
        training.add_row(
            result.name,
            _median(figures, "images_per_s", number),
            _times(ratio.get(LOOP)),
            _median(figures, STEP, time_text),
            _median(figures, WAIT, percent),
            _median(figures, "crops_read_per_s", number),
        )
        if PREDICT in figures:
            prediction.add_row(
                result.name,
                _median(figures, PREDICT, time_text),
                _times(ratio.get(PREDICT)),
                _median(figures, "predicted_megapixels_per_s", number),
                _median(figures, "prediction_over_bare", times),
            )
    return [training, prediction] if prediction.row_count > 1 else [training]


def _median(figures: dict[str, Spread], name: str, text: Callable[[float], str]) -> str:
    return text(figures[name].median) if name in figures else "-"


def _times(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.median:.2f} ±{(spread.high - spread.low) / 2:.2f}"


def _cells(spread: Spread, text: Callable[[float], str]) -> tuple[str, str, str]:
    return text(spread.median), text(spread.low), text(spread.high)


def time_text(seconds: float) -> str:
    """Seconds as people read them."""
    return (
        f"{seconds:,.2f} s"
        if seconds >= 1
        else f"{1e3 * seconds:,.2f} ms"
        if seconds < 0.1
        else f"{1e3 * seconds:,.0f} ms"
    )


def flops_per_s(value: float) -> str:
    """A rate of floating-point operations."""
    return f"{value / 1e12:,.2f} TFLOP/s" if value >= 1e12 else f"{value / 1e9:,.1f} GFLOP/s"


def bytes_per_s(value: float) -> str:
    """A rate of bytes."""
    return f"{value / 1e12:,.2f} TB/s" if value >= 1e12 else f"{value / 1e9:,.1f} GB/s"


def percent(value: float) -> str:
    """A share."""
    return f"{value:.1%}"


def times(value: float) -> str:
    """A ratio."""
    return f"{value:.3f}"


def number(value: float) -> str:
    """A rate with three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
