"""Cars, trucks, buses and trams: boxes on wheels, told apart by shape, size and livery.

Every function draws one vehicle whose nearest end is at depth z, in the lane with the middle x.
"""

from __future__ import annotations

import numpy as np

from unet_dist.scenes.canvas import Canvas, Colour
from unet_dist.scenes.classes import Label

_GLASS: Colour = (58, 74, 92)
_DARK: Colour = (34, 34, 38)
CAR_COLOURS: tuple[Colour, ...] = (
    (178, 28, 34), (30, 72, 158), (232, 234, 236), (40, 44, 52), (146, 150, 156), (24, 108, 96), (206, 118, 30),
)  # fmt: skip
CARGO_COLOURS: tuple[Colour, ...] = ((236, 236, 232), (226, 226, 214), (196, 206, 220))
CAB_COLOURS: tuple[Colour, ...] = ((196, 40, 36), (32, 92, 176), (38, 130, 70))
BUS_COLOURS: tuple[Colour, ...] = ((236, 178, 24), (226, 158, 20))
TRAM_COLOURS: tuple[Colour, ...] = ((30, 122, 62), (24, 104, 84))


def draw_car(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a car, 1.8 m wide and 4.2 m long."""
    colour = CAR_COLOURS[rng.integers(len(CAR_COLOURS))]
    tall, is_facing = rng.uniform(1.4, 1.75), rng.random() < 0.5
    x0, x1, z1 = x - 0.9, x + 0.9, z + 4.2
    side = x0 if x > 0 else x1
    for at in (z + 3.4, z + 0.8):
        canvas.wheel(side, at, 0.33, Label.CAR)
    for edge in (x0, x1 - 0.24):
        canvas.upright(edge, edge + 0.24, 0.0, 0.4, z + 0.1, Label.CAR, _DARK)
    # The cabin tapers: its pillars are the car's colour, its panes are glass.
    low, back, front = 0.86, z + 3.7, z + 0.75
    roof = [(x0 + 0.22, tall, front + 0.6), (x1 - 0.22, tall, front + 0.6)]
    roof += [(x1 - 0.22, tall, back - 0.5), (x0 + 0.22, tall, back - 0.5)]
    inner = x0 + 0.22 if x > 0 else x1 - 0.22
    flank = [(side, low, front), (side, low, back), (inner, tall, back - 0.5), (inner, tall, front + 0.6)]
    canvas.box(x0, x1, 0.28, low, z, z1, Label.CAR, colour)
    canvas.polygon(flank, Label.CAR, colour, canvas.side_light(x))
    for start, end in ((0.1, 0.48), (0.54, 0.9)):
        pane = [
            _between(flank, start, 0.14),
            _between(flank, end, 0.14),
            _between(flank, end, 0.8),
            _between(flank, start, 0.8),
        ]
        canvas.polygon(pane, None, _GLASS, canvas.side_light(x))
    screen = [(x0, low, front), (x1, low, front), roof[1], roof[0]]
    canvas.polygon(screen, Label.CAR, colour, 0.95)
    canvas.polygon(
        [_between(screen, u, v) for u, v in ((0.07, 0.1), (0.93, 0.1), (0.93, 0.86), (0.07, 0.86))], None, _GLASS, 1.15
    )
    canvas.polygon(roof, Label.CAR, colour, 1.16)
    lamp: Colour = (250, 246, 214) if is_facing else (216, 20, 20)
    for edge in (x0 + 0.06, x1 - 0.4):
        canvas.upright(edge, edge + 0.34, 0.58, 0.76, z, None, lamp)
    canvas.upright(x - 0.26, x + 0.26, 0.42, 0.54, z, None, (226, 226, 216))
    canvas.upright(x0, x1, 0.28, 0.38, z, None, _DARK)


def draw_truck(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a lorry: a coloured cab, and a tall plain box."""
    cab, cargo = CAB_COLOURS[rng.integers(len(CAB_COLOURS))], CARGO_COLOURS[rng.integers(len(CARGO_COLOURS))]
    x0, x1, is_facing = x - 1.2, x + 1.2, rng.random() < 0.6
    side = x0 if x > 0 else x1
    cab_at, cargo_at = (z, z + 2.0) if is_facing else (z + 6.2, z)

    def draw_cab() -> None:
        canvas.box(x0 + 0.08, x1 - 0.08, 0.45, 2.5, cab_at, cab_at + 1.9, Label.TRUCK, cab)
        canvas.along(side, 1.4, 2.2, cab_at + 0.3, cab_at + 1.3, None, _GLASS)
        if is_facing:
            canvas.upright(x0 + 0.2, x1 - 0.2, 1.35, 2.25, cab_at, None, _GLASS, 1.1)
            canvas.upright(x0 + 0.3, x1 - 0.3, 0.6, 1.0, cab_at, None, _DARK)
            for edge in (x0 + 0.15, x1 - 0.5):
                canvas.upright(edge, edge + 0.35, 0.7, 0.92, cab_at, None, (250, 246, 214))

    def draw_cargo() -> None:
        canvas.box(x0, x1, 0.8, 3.4, cargo_at, cargo_at + 6.0, Label.TRUCK, cargo)
        canvas.along(side, 1.5, 2.1, cargo_at, cargo_at + 6.0, None, cab, canvas.side_light(x))
        canvas.upright(x0, x1, 1.5, 2.1, cargo_at, None, cab, 0.92)
        canvas.box(x0, x1, 0.45, 0.8, cargo_at, cargo_at + 6.0, Label.TRUCK, _DARK)

    for at in (z + 7.0, z + 5.8, z + 1.0):
        canvas.wheel(side, at, 0.48, Label.TRUCK)
    for edge in (x0, x1 - 0.4):
        canvas.upright(edge, edge + 0.4, 0.0, 0.6, z + 0.2, Label.TRUCK, _DARK)
    for draw in (draw_cargo, draw_cab) if is_facing else (draw_cab, draw_cargo):
        draw()


def draw_bus(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a bus: a long yellow box with a band of windows."""
    colour = BUS_COLOURS[rng.integers(len(BUS_COLOURS))]
    _long_box(canvas, Label.BUS, x, z, length=10.5, height=3.0, colours=(colour, colour))
    canvas.upright(x - 0.8, x + 0.8, 2.62, 2.9, z, None, _DARK)
    canvas.upright(x - 0.6, x + 0.6, 2.67, 2.85, z, None, (250, 170, 40))
    for at in (z + 8.4, z + 2.0):
        canvas.wheel(x - 1.2 if x > 0 else x + 1.2, at, 0.46, Label.BUS)


def draw_tram(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a tram: green below, cream above, with one lamp and a bow to a wire."""
    colour = TRAM_COLOURS[rng.integers(len(TRAM_COLOURS))]
    _long_box(canvas, Label.TRAM, x, z, length=15.0, height=3.4, colours=(colour, (238, 230, 204)))
    canvas.ellipse(x, 0.95, z, 0.17, 0.17, None, (252, 248, 220))
    bow = [(x - 0.8, 4.3, z + 4), (x + 0.8, 4.3, z + 4), (x + 0.2, 3.4, z + 4), (x - 0.2, 3.4, z + 4)]
    canvas.polygon(bow, Label.TRAM, (70, 70, 74))


def _long_box(
    canvas: Canvas, label: Label, x: float, z: float, *, length: float, height: float, colours: tuple[Colour, Colour]
) -> None:
    """Draw a bus or a tram: colours are of the lower and the upper half."""
    x0, x1 = x - 1.2, x + 1.2
    canvas.box(x0, x1, 0.0, 0.4, z + 0.2, z + length, label, _DARK)
    side = canvas.box(x0, x1, 0.35, height, z, z + length, label, colours[1])
    canvas.along(side, 0.35, 1.25, z, z + length, None, colours[0], canvas.side_light(x))
    canvas.upright(x0, x1, 0.35, 1.25, z, None, colours[0], 0.92)
    for step in range(int(length // 1.5)):
        at = z + 0.4 + 1.5 * step
        canvas.along(side, 1.4, 2.4, at, at + 1.25, None, _GLASS, canvas.side_light(x))
    canvas.upright(x0 + 0.15, x1 - 0.15, 1.2, 2.5, z, None, _GLASS, 1.1)
    for edge in (x0 + 0.12, x1 - 0.5):
        canvas.upright(edge, edge + 0.38, 0.6, 0.85, z, None, (250, 246, 214))


def _between(quad: list[tuple[float, float, float]], u: float, v: float) -> tuple[float, float, float]:
    """The point of a quadrilateral at the shares u of its first edge and v of its height."""
    a, b, c, d = (np.asarray(corner) for corner in quad)
    x, y, z = (a * (1 - u) + b * u) * (1 - v) + (d * (1 - u) + c * u) * v
    return float(x), float(y), float(z)
