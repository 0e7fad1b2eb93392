"""Houses: facades with rows of windows, a door and a roof."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from unet_dist.scenes.canvas import Canvas, Colour, Point
from unet_dist.scenes.classes import Label

_PLASTER: tuple[Colour, ...] = (
    (214, 190, 150), (190, 150, 116), (204, 204, 196), (176, 132, 120), (222, 206, 178), (160, 150, 146), (196, 168, 92),
)  # fmt: skip
_ROOFS: tuple[Colour, ...] = ((128, 62, 48), (84, 80, 84), (110, 74, 60))
_DOORS: tuple[Colour, ...] = ((110, 52, 24), (18, 84, 60), (24, 56, 120), (128, 24, 32))
_PANE: Colour = (72, 90, 110)
_FRAME: Colour = (236, 234, 226)
_FLOOR_M = 3.1

Place = Callable[[float, float], Point]
"""From (along, up) metres on a facade to a point of the street."""


def draw_house(canvas: Canvas, rng: np.random.Generator, x: float, z0: float, z1: float) -> None:
    """Draw a house whose facade stands at x along the street, from z0 to z1."""
    floors = int(rng.integers(2, 5))
    height, outward = floors * _FLOOR_M + 0.4, math.copysign(1.0, x)
    plaster, light = _PLASTER[rng.integers(len(_PLASTER))], canvas.side_light(x)
    canvas.upright(min(x, x + 9 * outward), max(x, x + 9 * outward), 0, height, z0, Label.BUILDING, plaster, 0.9)
    ridge = x + 4 * outward
    gable = [(x, height, z0), (x + 9 * outward, height, z0), (ridge, height + 2.6, z0)]
    canvas.polygon(gable, Label.BUILDING, plaster, 0.86)
    canvas.polygon([(x, height, z0), (x, height, z1), (ridge, height + 2.6, z1), (ridge, height + 2.6, z0)],
                   Label.BUILDING, _ROOFS[rng.integers(len(_ROOFS))], light)  # fmt: skip
    canvas.along(x, 0, height, z0, z1, Label.BUILDING, plaster, light)
    _dress(canvas, rng, lambda along, up: (x, up, z0 + along), z1 - z0, floors, light)


def draw_house_across(canvas: Canvas, rng: np.random.Generator, x0: float, x1: float, z: float) -> None:
    """Draw a house that faces the eye and closes the street."""
    floors = int(rng.integers(3, 6))
    height, plaster = floors * _FLOOR_M + 0.4, _PLASTER[rng.integers(len(_PLASTER))]
    roof = [(x0, height, z), (x1, height, z), (x1 - 3, height + 3, z), (x0 + 3, height + 3, z)]
    canvas.polygon(roof, Label.BUILDING, _ROOFS[rng.integers(len(_ROOFS))], 0.9)
    canvas.upright(x0, x1, 0, height, z, Label.BUILDING, plaster, 0.92)
    _dress(canvas, rng, lambda along, up: (x0 + along, up, z), x1 - x0, floors, 0.92)


def _dress(canvas: Canvas, rng: np.random.Generator, place: Place, length: float, floors: int, light: float) -> None:
    """Draw windows in rows, a plinth, a cornice and a door."""
    count = max(int(length // 2.4), 1)
    bay = length / count
    door_bay = int(rng.integers(count))
    door = _DOORS[rng.integers(len(_DOORS))]
    lit = rng.random((floors, count)) < 0.1
    height = floors * _FLOOR_M + 0.4

    def panel(
        start: float, end: float, low: float, top: float, label: Label | None, colour: Colour, light: float
    ) -> None:
        canvas.polygon([place(start, low), place(end, low), place(end, top), place(start, top)], label, colour, light)

    panel(0, length, 0, 0.45, None, (120, 114, 108), light)
    panel(0, length, height - 0.35, height, None, _FRAME, light)
    for column in range(count):
        middle = (column + 0.5) * bay
        for floor in range(floors):
            if floor == 0 and column == door_bay:
                panel(middle - 0.95, middle + 0.95, 0, 2.65, Label.DOOR, _FRAME, light)
                panel(middle - 0.8, middle + 0.8, 0, 2.5, Label.DOOR, door, light)
                panel(middle - 0.5, middle + 0.5, 1.5, 2.2, Label.DOOR, _PANE, light)
                continue
            low = 0.9 + floor * _FLOOR_M
            pane: Colour = (226, 204, 140) if lit[floor, column] else _PANE
            panel(middle - 0.68, middle + 0.68, low - 0.1, low + 1.62, None, _FRAME, light)
            panel(middle - 0.56, middle + 0.56, low, low + 1.5, None, pane, light)
            panel(middle - 0.56, middle + 0.56, low + 0.95, low + 1.05, None, _FRAME, light)
