"""Scores as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from unet_dist.metrics.confusion import Scores


def scores_table(title: str, scores: Scores, class_names: Sequence[str], ignore_index: int | None) -> Table:
    """The per-class IoU as a table: class, IoU, share of the valid pixels."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("class")
    table.add_column("IoU", justify="right")
    table.add_column("pixels", justify="right")
    total = max(1, int(scores.confusion.sum()))
    for index, name in enumerate(class_names):
        if index == ignore_index:
            continue
        iou = scores.iou[index]
        share = int(scores.confusion[index].sum()) / total
        table.add_row(name, "-" if iou is None else f"{iou:.4f}", f"{share:.2%}")
    table.add_section()
    table.add_row("mean IoU", f"{scores.miou:.4f}", "")
    table.add_row("pixel accuracy", f"{scores.pixel_accuracy:.4f}", "")
    return table
