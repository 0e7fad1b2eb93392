"""Walkers and cyclists, cut out flat and facing the eye: a head, a bright shirt and two legs, or two wheels."""

from __future__ import annotations

import math

import numpy as np

from unet_dist.scenes.canvas import Canvas, Colour
from unet_dist.scenes.classes import Label

_SKIN: tuple[Colour, ...] = ((240, 200, 170), (214, 164, 126), (140, 94, 66))
_HAIR: tuple[Colour, ...] = ((40, 30, 26), (92, 62, 36), (196, 160, 92))
SHIRTS: tuple[Colour, ...] = ((228, 52, 120), (150, 60, 190), (240, 96, 40), (236, 60, 60), (60, 196, 206))
"""Of people: pink, violet, orange, red and turquoise, as few other things here are."""
_TROUSERS: tuple[Colour, ...] = ((44, 50, 84), (60, 54, 50), (30, 32, 40))
_FRAMES: tuple[Colour, ...] = ((16, 150, 190), (210, 40, 50), (20, 20, 24))


def _one(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    return colours[rng.integers(len(colours))]


class _Figure:
    """Draws polygons of (across, up) metres around a spot on the ground."""

    def __init__(self, canvas: Canvas, x: float, z: float, scale: float, lean: int = 1) -> None:
        self._canvas, self._x, self._z, self._scale, self._lean = canvas, x, z, scale, lean

    def limb(
        self, start: tuple[float, float], end: tuple[float, float], width: float, label: Label, colour: Colour
    ) -> None:
        """A bar from start to end."""
        (u0, v0), (u1, v1) = start, end
        length = math.hypot(u1 - u0, v1 - v0)
        across, up = (v1 - v0) / length * width / 2, (u0 - u1) / length * width / 2
        self.shape(
            [(u0 - across, v0 - up), (u0 + across, v0 + up), (u1 + across, v1 + up), (u1 - across, v1 - up)],
            label,
            colour,
        )

    def shape(self, points: list[tuple[float, float]], label: Label | None, colour: Colour) -> None:
        at = [(self._x + self._lean * self._scale * u, self._scale * v, self._z) for u, v in points]
        self._canvas.polygon(at, label, colour)

    def disc(
        self, u: float, v: float, radius: float, label: Label | None, colour: Colour, *, squeeze: float = 1.0
    ) -> None:
        x, radius = self._x + self._lean * self._scale * u, radius * self._scale
        self._canvas.ellipse(x, self._scale * v, self._z, radius * squeeze, radius, label, colour)


def draw_person(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw someone who walks or stands, 1.5 to 1.9 m tall."""
    figure = _Figure(canvas, x, z, rng.uniform(0.88, 1.1), lean=int(rng.choice([-1, 1])))
    shirt, trousers, skin, hair = (_one(rng, colours) for colours in (SHIRTS, _TROUSERS, _SKIN, _HAIR))
    stride, swing = rng.uniform(0.05, 0.3), rng.uniform(0.0, 0.22)
    label = Label.PERSON
    for foot in (-stride, stride):
        hip = 0.09 if foot > 0 else -0.09
        figure.limb((hip, 0.86), (hip + foot, 0.03), 0.19, label, trousers)
        figure.shape(
            [(hip + foot - 0.09, 0), (hip + foot + 0.16, 0), (hip + foot + 0.1, 0.09), (hip + foot - 0.09, 0.09)],
            label,
            (24, 22, 22),
        )
    for side in (-1, 1):
        figure.limb((side * 0.24, 1.4), (side * (0.3 + swing), 0.86), 0.13, label, shirt)
        figure.disc(side * (0.3 + swing), 0.83, 0.065, label, skin)
    figure.shape([(-0.2, 0.8), (0.2, 0.8), (0.27, 1.44), (0.12, 1.5), (-0.12, 1.5), (-0.27, 1.44)], label, shirt)
    figure.shape([(-0.06, 1.46), (0.06, 1.46), (0.06, 1.58), (-0.06, 1.58)], label, skin)
    figure.disc(0, 1.67, 0.135, label, hair)
    figure.disc(0.02, 1.64, 0.11, label, skin)


def draw_rider(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a cyclist who crosses or turns in: seen from the side, or narrower."""
    lean = int(rng.choice([-1, 1]))
    _draw_bicycle(canvas, rng, x, z, lean)
    figure = _Figure(canvas, x, z, 1.0, lean)
    shirt, trousers, skin = (_one(rng, colours) for colours in (((206, 228, 40), (240, 226, 60)), _TROUSERS, _SKIN))
    label = Label.RIDER
    for foot in ((0.1, 0.18), (0.02, 0.42)):
        knee = (foot[0] + 0.22, foot[1] + 0.42)
        figure.limb((-0.18, 1.02), knee, 0.2, label, trousers)
        figure.limb(knee, foot, 0.16, label, trousers)
    figure.shape([(-0.34, 0.98), (-0.06, 0.92), (0.34, 1.38), (0.2, 1.58), (-0.04, 1.46)], label, shirt)
    figure.limb((0.22, 1.4), (0.5, 1.06), 0.13, label, shirt)
    figure.disc(0.36, 1.68, 0.14, label, skin)
    figure.disc(0.34, 1.75, 0.15, label, (236, 238, 240), squeeze=1.15)


def draw_bicycle(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a bicycle that is parked."""
    _draw_bicycle(canvas, rng, x, z, int(rng.choice([-1, 1])))


def _draw_bicycle(canvas: Canvas, rng: np.random.Generator, x: float, z: float, lean: int) -> None:
    frame, label = _one(rng, _FRAMES), Label.BICYCLE
    figure = _Figure(canvas, x, z, 1.1, lean)
    for hub in (-0.52, 0.52):
        for radius, colour in ((0.37, (26, 26, 28)), (0.28, (176, 178, 180)), (0.05, (40, 40, 44))):
            figure.disc(hub, 0.37, radius, label, colour)
    seat, crank, head = (-0.2, 0.84), (-0.06, 0.34), (0.4, 0.84)
    figure.shape(
        [seat, crank, head], label, (176, 178, 180)
    )  # what shows through counts as bicycle, as the wheels' discs
    bars = [
        (seat, crank),
        (crank, head),
        (seat, head),
        (seat, (-0.52, 0.37)),
        (crank, (-0.52, 0.37)),
        (head, (0.52, 0.37)),
    ]
    for start, end in bars:
        figure.limb(start, end, 0.075, label, frame)
    figure.limb((0.4, 0.84), (0.42, 1.02), 0.06, label, (40, 40, 44))
    figure.shape([(0.34, 1.0), (0.56, 1.0), (0.56, 1.06), (0.34, 1.06)], label, (40, 40, 44))
    figure.shape([(-0.34, 0.86), (-0.06, 0.86), (-0.1, 0.94), (-0.34, 0.94)], label, (40, 40, 44))
