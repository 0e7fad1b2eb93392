"""What the rounds of a setting say: medians, spreads and ratios, as numbers with names.

Owns the meaning of every figure in bench.json. Ratios are taken round by round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unet_dist.benchmark.layers import MeasuredLayer
from unet_dist.benchmark.subject import (
    BYTES,
    FLOPS,
    LOOP,
    PREDICT,
    PREDICT_BARE,
    READ,
    STEP,
    WAIT,
    Round,
)
from unet_dist.benchmark.timing import Spread, ratios

VERSION = 1
"""Of the layout of bench.json."""


@dataclass(frozen=True)
class Amounts:
    """The work of a setting that is timed.

    Attributes:
        crops: of a step, by all processes.
        window_pixels: pixels of the input windows of a step, by all processes.
        flops: of a step, by the process that has most to do.
        share_crops: that one process reads for a step.
        image_pixels: of the images predicted, by all processes.
        images: that many.
        world_size: processes that take part.
    """

    crops: int
    window_pixels: int
    flops: int
    share_crops: float
    image_pixels: int = 0
    images: int = 0
    world_size: int = 1


@dataclass(frozen=True)
class Result:
    """A setting, measured.

    Attributes:
        figures: by name; rates per second are of all processes together.
        amounts: what the figures are of.
        peak_bytes: the most that the device held in the loop; None where a device has no record of its own.
        predicted_bytes: what `plan` predicts for a step; None for a network that is not ours.
    """

    name: str
    figures: dict[str, Spread]
    amounts: Amounts
    rounds: int
    steps: int
    peak_bytes: int | None = None
    predicted_bytes: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The same as numbers, lists and words."""
        return asdict(self)


def figures_of(rounds: Sequence[Round], amounts: Amounts) -> dict[str, Spread]:
    """Make the figures of a setting; those whose parts were not measured are left out."""

    def column(name: str) -> list[float]:
        return [measured[name] for measured in rounds if name in measured]

    found: dict[str, Spread] = {}
    for name in (FLOPS, BYTES, STEP, LOOP, WAIT, READ, PREDICT, PREDICT_BARE):
        if values := column(name):
            found[name] = Spread.of(values)
    if LOOP in found:
        found["images_per_s"] = Spread.of([amounts.crops / loop for loop in column(LOOP)])
        found["megapixels_per_s"] = Spread.of([amounts.window_pixels / loop / 1e6 for loop in column(LOOP)])
    if STEP in found:
        found["bare_images_per_s"] = Spread.of([amounts.crops / step for step in column(STEP)])
        found["model_flops_per_s"] = Spread.of([amounts.flops / step for step in column(STEP)])
        found["share_of_matmul"] = ratios([amounts.flops / step for step in column(STEP)], column(FLOPS))
    if STEP in found and LOOP in found:
        found["loop_overhead"] = shifted(ratios(column(LOOP), column(STEP)), -1)
    found["crops_read_per_s"] = Spread.of([amounts.share_crops / read for read in column(READ)])
    if PREDICT in found:
        found["predicted_megapixels_per_s"] = Spread.of([amounts.image_pixels / t / 1e6 for t in column(PREDICT)])
        found["prediction_over_bare"] = ratios(column(PREDICT), column(PREDICT_BARE))
    return found


def shifted(spread: Spread, by: float) -> Spread:
    """The same, moved by a number."""
    return Spread(spread.median + by, spread.low + by, spread.high + by)


def speedups(rounds: Sequence[Round], others: Sequence[Round], name: str, factor: float = 1.0) -> Spread | None:
    """How many times as fast the first is as the other, round by round; None where it was not measured.

    Args:
        name: of seconds.
        factor: how much more work the first does in its seconds.
    """
    pairs = [(a[name], b[name]) for a, b in zip(rounds, others, strict=True) if name in a and name in b]
    return Spread.of([factor * other / own for own, other in pairs]) if pairs else None


def layers_as_json(layers: Sequence[MeasuredLayer]) -> list[dict[str, Any]]:
    """Layers as numbers and words."""
    return [{**asdict(layer), "share_of_limit": layer.share_of_limit} for layer in layers]
