"""Trees, hedges, lamps, signs, traffic lights, fences and walls."""

from __future__ import annotations

import math

import numpy as np

from unet_dist.scenes.canvas import Canvas, Colour
from unet_dist.scenes.classes import Label

_BARK: Colour = (86, 64, 46)
_STEEL: Colour = (70, 76, 84)
_GREENS: tuple[Colour, ...] = ((62, 104, 44), (84, 118, 50), (48, 92, 58))


def draw_tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a tree, 5 to 8 m tall."""
    size, green = rng.uniform(1.3, 2.1), _GREENS[rng.integers(len(_GREENS))]
    top = 2.2 + size
    canvas.polygon(
        [(x - 0.17, 0, z), (x + 0.17, 0, z), (x + 0.11, top, z), (x - 0.11, top, z)], Label.VEGETATION, _BARK, 0.9
    )
    _leaves(canvas, rng, x, top + 0.3, z, size, size * 1.05, green)


def draw_bush(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a bush of a metre or two."""
    size = rng.uniform(0.5, 1.0)
    _leaves(canvas, rng, x, size * 0.8, z, size * 1.2, size, _GREENS[rng.integers(len(_GREENS))])


def _leaves(
    canvas: Canvas, rng: np.random.Generator, x: float, y: float, z: float, across: float, up: float, green: Colour
) -> None:
    """Draw a heap of tufts, dark below and light above."""
    for light, lift, reach in ((0.62, -0.12, 1.0), (0.9, 0.05, 0.86), (1.25, 0.28, 0.6)):
        for turn, far, wide, bright in rng.random((9, 4)).tolist():
            angle, share = 2 * math.pi * turn, reach * math.sqrt(0.1 + 0.9 * far) * 0.68
            u, v = x + across * share * math.cos(angle), y + up * (share * math.sin(angle) + lift)
            tuft = (0.2 + 0.22 * wide) * reach
            canvas.ellipse(u, v, z, across * tuft, up * tuft, Label.VEGETATION, green, light * (0.9 + 0.2 * bright))


def draw_hedge(canvas: Canvas, rng: np.random.Generator, x: float, z0: float, z1: float) -> None:
    """Draw a clipped hedge along the street."""
    height = rng.uniform(0.9, 1.6)
    outward = math.copysign(0.8, x)
    canvas.box(min(x, x + outward), max(x, x + outward), 0, height, z0, z1, Label.VEGETATION, (66, 104, 48))
    for along, up, bright in rng.random((int((z1 - z0) * 5), 3)).tolist():
        light = canvas.side_light(x) * (0.7 + 0.6 * bright)
        canvas.ellipse(
            x, 0.1 + up * (height - 0.1), z0 + along * (z1 - z0), 0.16, 0.14, Label.VEGETATION, (66, 104, 48), light
        )


def draw_lamp(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a street lamp, its arm over the road."""
    height, inward = rng.uniform(4.8, 6.0), -math.copysign(1.0, x)
    _post(canvas, x, z, height, 0.12)
    canvas.upright(min(x, x + inward), max(x, x + inward), height - 0.16, height, z, Label.POLE, _STEEL, 0.9)
    canvas.upright(x + inward - 0.4, x + inward + 0.4, height - 0.3, height - 0.1, z, Label.POLE, (222, 222, 200))


def draw_sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a traffic sign: a disc, a triangle or a square with a rim."""
    y, size, kind = rng.uniform(2.2, 2.6), rng.uniform(0.42, 0.52), rng.integers(3)
    _post(canvas, x, z, y, 0.07)
    sign = Label.TRAFFIC_SIGN
    if kind == 0:
        for share, colour in ((1.0, (208, 20, 28)), (0.68, (244, 244, 240))):
            canvas.ellipse(x, y, z, size * share, size * share, sign, colour)
    elif kind == 1:
        for share, colour in ((1.2, (208, 20, 28)), (0.66, (244, 244, 240))):
            low, top = y - size * share * 0.5, y + size * share
            canvas.polygon([(x - size * share, low, z), (x + size * share, low, z), (x, top, z)], sign, colour)
    else:
        for share, colour in ((1.0, (240, 242, 244)), (0.86, (16, 78, 190))):
            canvas.upright(x - size * share, x + size * share, y - size * share, y + size * share, z, sign, colour)
        canvas.upright(x - size * 0.2, x + size * 0.2, y - size * 0.5, y + size * 0.5, z, sign, (240, 242, 244))


def draw_traffic_light(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a traffic light on its mast: a black box with a white rim and three lamps."""
    _post(canvas, x, z, 2.4, 0.09)
    canvas.upright(x - 0.32, x + 0.32, 2.2, 3.5, z, Label.TRAFFIC_LIGHT, (236, 236, 232))
    canvas.upright(x - 0.26, x + 0.26, 2.26, 3.44, z, Label.TRAFFIC_LIGHT, (20, 22, 24))
    burning = rng.integers(3)
    for lamp, colour in enumerate(((30, 230, 90), (250, 190, 20), (250, 40, 30))):
        shown = colour if lamp == burning else (56, 54, 52)
        canvas.ellipse(x, 2.47 + 0.38 * lamp, z, 0.16, 0.16, Label.TRAFFIC_LIGHT, shown)


def _post(canvas: Canvas, x: float, z: float, height: float, radius: float) -> None:
    canvas.upright(x - radius, x + radius, 0, height, z, Label.POLE, _STEEL, 0.75)
    canvas.upright(x - radius, x - radius * 0.2, 0, height, z, None, _STEEL, 1.25)


def draw_fence(canvas: Canvas, rng: np.random.Generator, x: float, z0: float, z1: float) -> None:
    """Draw a fence of pickets along the street; its gaps count as fence."""
    height = rng.uniform(1.0, 1.5)
    colour: Colour = ((226, 222, 210), (158, 112, 66))[rng.integers(2)]
    light = canvas.side_light(x)
    canvas.along(x, 0, height, z0, z1, Label.FENCE, (92, 96, 70), light)
    step = 0.42
    for number in range(int((z1 - z0) / step)):
        at = z0 + number * step
        canvas.along(x, 0, height, at, at + step * 0.6, None, colour, light)
    for up in (0.25, 0.75):
        canvas.along(x, up * height, up * height + 0.1, z0, z1, None, colour, light * 0.85)


def draw_wall(canvas: Canvas, rng: np.random.Generator, x: float, z0: float, z1: float) -> None:
    """Draw a wall of red bricks with a light coping along the street."""
    height, outward = rng.uniform(1.2, 2.2), math.copysign(0.35, x)
    x0, x1, light = min(x, x + outward), max(x, x + outward), canvas.side_light(x)
    canvas.box(x0, x1, 0, height, z0, z1, Label.WALL, (158, 74, 56))
    for row in range(1, int(height / 0.22)):
        canvas.along(x, row * 0.22, row * 0.22 + 0.04, z0, z1, None, (196, 150, 130), light)
        canvas.upright(x0, x1, row * 0.22, row * 0.22 + 0.04, z0, None, (196, 150, 130), 0.92)
    canvas.box(x0, x1, height, height + 0.14, z0, z1, Label.WALL, (206, 200, 190))
