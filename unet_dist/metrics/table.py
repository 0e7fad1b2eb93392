"""Scores as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from unet_dist.metrics.confusion import Scores
from unet_dist.wording import listed, one_line

_BAR = 10
WORST = 10
MOST_ROWS = 50
"""Classes that a table shows; of more it shows the WORST."""
MOST_NAMES = 20
"""Classes that a line lists by name."""


def scores_table(
    title: str,
    scores: Scores,
    class_names: Sequence[str],
    ignore_index: int | None,
    *,
    before: Sequence[float | None] | None = None,
    is_short: bool = False,
    is_detailed: bool = False,
    rest: str | None = None,
) -> Table:
    """The per-class IoU as a table: class, IoU as a number and a bar, its change, share of the valid pixels.

    Args:
        before: the IoU of each class in an earlier validation, to show the change since.
        is_short: show the WORST classes only, as of more than MOST_ROWS.
        is_detailed: Dice, precision and recall in place of the bar.
        rest: the file with all classes, named where the table leaves some out.
    """
    table = Table(title=one_line(title), title_justify="left", caption_justify="left", show_edge=False, pad_edge=False)
    details = (scores.dice, scores.precision, scores.recall) if is_detailed else ()
    middle = ["Dice", "precision", "recall"] if is_detailed else [""]
    for name in ("class", "IoU", *middle, *(["change"] if before else []), "pixels"):
        table.add_column(name, justify="left" if name in ("class", "") else "right")
    shares = scores.shares
    iou_of = {index: iou for index, iou in enumerate(scores.iou) if index != ignore_index and iou is not None}
    shown = (
        sorted(iou_of, key=lambda index: iou_of[index])[:WORST] if is_short or len(iou_of) > MOST_ROWS else list(iou_of)
    )
    if len(shown) == 2 == len(iou_of):  # of two classes the foreground is asked about
        shown.reverse()
    for index in shown:
        iou = iou_of[index]
        parts = [("-" if (value := column[index]) is None else f"{value:.4f}") for column in details]
        parts = parts or ["━" * round(_BAR * iou)]
        changes = [_change(iou, before[index])] if before else []
        table.add_row(one_line(class_names[index]), f"{iou:.4f}", *parts, *changes, f"{shares[index]:.2%}")
    table.add_section()
    table.add_row("mean IoU", f"{scores.miou:.4f}")
    if scores.miou_present != scores.miou:
        table.add_row("mean IoU of labelled classes", f"{scores.miou_present:.4f}")
    table.add_row("pixel accuracy", f"{scores.pixel_accuracy:.4f}")
    for name, value in scores.others.items():
        table.add_row(one_line(name), "-" if value is None else f"{value:.4f}")
    table.caption = _left_out(scores, class_names, ignore_index, len(iou_of) - len(shown), rest)
    return table


def _change(iou: float, before: float | None) -> str:
    return "" if before is None else f"{iou - before:+.4f}"


def _left_out(
    scores: Scores, class_names: Sequence[str], ignore_index: int | None, num_better: int, rest: str | None
) -> str | None:
    """A line about the classes without a row."""
    absent = [one_line(name) for i, name in enumerate(class_names) if i != ignore_index and scores.iou[i] is None]
    where = f" All are in {rest}." if rest else ""
    lines = [f"The {WORST} worst; {num_better} others are better.{where}"] if num_better else []
    lines += [f"Neither labelled nor predicted: {listed(absent, MOST_NAMES)}."] if absent else []
    return " ".join(lines) or None
