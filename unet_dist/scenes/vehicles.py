"""What has four wheels or more: cars, trucks, buses, trams, caravans and trailers.

A vehicle is a profile (metres along, metres up) drawn out over its width, plus glass, wheels and lamps on its faces.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unet_dist.scenes.bodywork import (
    Outline,
    Pose,
    away,
    cast_under,
    ends,
    lamps,
    on_side,
    place_of,
    reflecting,
    wheels,
)
from unet_dist.scenes.camera import Point
from unet_dist.scenes.canvas import Canvas
from unet_dist.scenes.classes import Label
from unet_dist.scenes.light import Colour, scaled
from unet_dist.scenes.street import between, chance, pick
from unet_dist.scenes.textures import Texture

PAINT: list[Colour] = [
    (196, 198, 202),
    (58, 60, 66),
    (34, 35, 38),
    (232, 232, 230),
    (128, 132, 138),
    (156, 36, 36),
    (42, 70, 128),
    (66, 98, 82),
    (190, 172, 140),
    (86, 110, 140),
    (206, 160, 52),
]
_GLASS: Colour = (52, 62, 72)
_BUS: list[Colour] = [(206, 52, 44), (240, 196, 60), (52, 108, 170), (226, 226, 222), (70, 140, 92)]


def draw_car(canvas: Canvas, pose: Pose, rng: np.random.Generator) -> float:
    """Draw a car; return its length in metres."""
    kind = int(rng.integers(4))
    paint = pick(rng, PAINT)
    length, height, belt, half = [
        (4.45, 1.45, 0.93, 0.88),
        (3.95, 1.5, 0.95, 0.86),
        (4.6, 1.7, 1.05, 0.93),
        (4.7, 1.5, 0.94, 0.9),
    ][kind]
    nose = 0.78 * belt
    back = [0.95, 0.12, 0.1, 0.1][kind]  # how far the rear window starts from the tail
    roof0, roof1 = [1.55, 0.62, 0.5, 0.55][kind], [2.75, 2.3, 2.75, 2.8][kind]
    hood = roof1 + 0.85
    body: Outline = [
        (0.05, 0.28),
        (length - 0.04, 0.28),
        (length, 0.5),
        (length - 0.06, nose),
        (hood, belt),
        (back, belt),
        (0.02, belt - 0.08),
        (0.0, 0.5),
    ]
    place = place_of(pose, length)
    dark = scaled(paint, 0.55)
    cast_under(canvas, place, length, half)
    tones = [
        dark,
        scaled(paint, 0.8),
        scaled(paint, 0.95),
        scaled(paint, 1.1),
        scaled(paint, 1.05),
        scaled(paint, 1.05),
        paint,
        scaled(paint, 0.75),
    ]
    canvas.prism(place, body, half, Label.CAR, tones, scaled(paint, 0.92))
    cabin: Outline = [
        (back, belt),
        (hood, belt),
        (roof1, height - 0.04),
        ((roof0 + roof1) / 2, height),
        (roof0, height - 0.03),
    ]
    inset = 0.1
    glass = reflecting(canvas, _GLASS)
    canvas.prism(
        place,
        cabin,
        half - inset,
        Label.CAR,
        [dark, glass, scaled(paint, 1.15), scaled(paint, 1.12), scaled(glass, 0.9)],
        paint,
    )
    for side in (-1, 1):
        w = side * (half - inset)
        pillar = (roof0 + roof1) / 2 + 0.15
        front: Outline = [
            (pillar + 0.06, belt + 0.03),
            (hood - 0.22, belt + 0.03),
            (roof1 - 0.03, height - 0.12),
            (pillar + 0.06, height - 0.1),
        ]
        rear: Outline = [
            (back + 0.28, belt + 0.03),
            (pillar - 0.05, belt + 0.03),
            (pillar - 0.05, height - 0.1),
            (roof0 + 0.08, height - 0.12),
        ]
        for window in (rear, front):
            on_side(canvas, place, window, w, Label.CAR, glass)
        belt_line: Outline = [
            (0.1, belt * 0.66),
            (length - 0.1, belt * 0.62),
            (length - 0.1, belt * 0.62 + 0.035),
            (0.1, belt * 0.66 + 0.035),
        ]
        on_side(canvas, place, belt_line, side * half, Label.CAR, scaled(paint, 1.2))
        sill: Outline = [(0.1, 0.28), (length - 0.1, 0.28), (length - 0.1, 0.38), (0.1, 0.38)]
        on_side(canvas, place, sill, side * half, Label.CAR, (38, 38, 40))
        door: Outline = [(pillar - 0.015, 0.42), (pillar + 0.015, 0.42), (pillar + 0.015, belt), (pillar - 0.015, belt)]
        on_side(canvas, place, door, side * half, Label.CAR, scaled(paint, 0.6))
        wheels(canvas, place, (0.82, length - 0.85), 0.33, side * half, Label.CAR)
    ends(canvas, place, length, half, belt, Label.CAR)
    return length


def draw_truck(canvas: Canvas, pose: Pose, rng: np.random.Generator) -> float:
    """Draw a van, a box truck or a flat-bed; return its length in metres."""
    paint = pick(rng, PAINT)
    if chance(rng, 0.45):
        return _draw_van(canvas, pose, paint)
    load = pick(rng, [(226, 226, 222), (198, 60, 48), (60, 96, 150), (210, 180, 70), (150, 152, 150)])
    length, half, top = between(rng, 6.5, 9.0), 1.2, between(rng, 2.9, 3.5)
    place = place_of(pose, length)
    cast_under(canvas, place, length, half)
    cab: Outline = [(length - 1.9, 0.4), (length, 0.4), (length, 1.3), (length - 0.25, 2.45), (length - 1.9, 2.45)]
    box: Outline = [(0.0, 0.95), (length - 2.05, 0.95), (length - 2.05, top), (0.0, top)]
    frame: Outline = [(0.1, 0.5), (length - 1.8, 0.5), (length - 1.8, 0.95), (0.1, 0.95)]
    glass = reflecting(canvas, _GLASS)

    def draw_cab() -> None:
        tones = [scaled(paint, 0.5), paint, glass, scaled(paint, 1.1), paint]
        canvas.prism(place, cab, half - 0.08, Label.TRUCK, tones, scaled(paint, 0.95))
        window: Outline = [(length - 1.5, 1.4), (length - 0.25, 1.4), (length - 0.45, 2.2), (length - 1.5, 2.2)]
        for side in (-1, 1):
            on_side(canvas, place, window, side * (half - 0.08), Label.TRUCK, glass)
        ends(canvas, place, length, half, 1.1, Label.TRUCK, only_front=True)

    def draw_box() -> None:
        canvas.prism(place, frame, half - 0.15, Label.TRUCK, [(40, 40, 42)] * 4, (46, 46, 48))
        canvas.prism(
            place, box, half, Label.TRUCK, [scaled(load, 0.5), load, load, scaled(load, 0.95)], load, Texture.METAL
        )
        ends(canvas, place, length, half, 1.0, Label.TRUCK, only_rear=True)
        seam: Outline = [(0.0, 0.95), (0.0, top)]
        for w in (-0.04, half - 0.1, -half + 0.04):
            corners = [place(seam[0][0], 0.95, w), place(0, 0.95, w + 0.06), place(0, top, w + 0.06), place(0, top, w)]
            canvas.face(corners, away(place, -1), Label.TRUCK, scaled(load, 0.7))

    near_first = pose.is_facing and not pose.across
    for part in (draw_box, draw_cab) if near_first else (draw_cab, draw_box):
        part()
    for side in (-1, 1):
        wheels(canvas, place, (1.4, 2.4, length - 1.0), 0.48, side * half, Label.TRUCK)
    return length


def _draw_van(canvas: Canvas, pose: Pose, paint: Colour) -> float:
    length, half, top = 5.4, 1.0, 2.35
    place = place_of(pose, length)
    cast_under(canvas, place, length, half)
    glass = reflecting(canvas, _GLASS)
    body: Outline = [
        (0.04, 0.35),
        (length - 0.02, 0.35),
        (length, 0.95),
        (length - 0.75, 1.22),
        (length - 1.55, top - 0.08),
        (length - 2.0, top),
        (0.05, top),
    ]
    tones = [
        scaled(paint, 0.5),
        scaled(paint, 0.85),
        scaled(paint, 1.08),
        glass,
        paint,
        scaled(paint, 1.1),
        scaled(paint, 0.95),
    ]
    canvas.prism(place, body, half, Label.TRUCK, tones, scaled(paint, 0.93), Texture.METAL)
    for side in (-1, 1):
        window: Outline = [
            (length - 2.1, 1.3),
            (length - 0.85, 1.3),
            (length - 1.6, top - 0.25),
            (length - 2.1, top - 0.25),
        ]
        on_side(canvas, place, window, side * half, Label.TRUCK, glass)
        for a in (length - 2.25, 2.0):
            seam: Outline = [(a, 0.45), (a + 0.03, 0.45), (a + 0.03, top - 0.2), (a, top - 0.2)]
            on_side(canvas, place, seam, side * half, Label.TRUCK, scaled(paint, 0.6))
        wheels(canvas, place, (1.0, length - 1.0), 0.36, side * half, Label.TRUCK)
    ends(canvas, place, length, half, 1.15, Label.TRUCK)
    for w0, w1 in ((-half + 0.2, -0.06), (0.06, half - 0.2)):
        pane = [place(0.05, 1.4, w0), place(0.05, 1.4, w1), place(0.05, 2.05, w1), place(0.05, 2.05, w0)]
        canvas.face(pane, away(place, -1), Label.TRUCK, glass)
    return length


def draw_bus(canvas: Canvas, pose: Pose, rng: np.random.Generator) -> float:
    """Draw a city bus; return its length in metres."""
    return _coach(canvas, pose, rng, Label.BUS, length=between(rng, 10, 12.5), half=1.27, top=3.05)


def draw_tram(canvas: Canvas, pose: Pose, rng: np.random.Generator) -> float:
    """Draw a tram; return its length in metres."""
    return _coach(canvas, pose, rng, Label.TRAM, length=between(rng, 16, 26), half=1.2, top=3.4)


def _coach(
    canvas: Canvas, pose: Pose, rng: np.random.Generator, label: Label, *, length: float, half: float, top: float
) -> float:
    paint = pick(rng, _BUS)
    second = pick(rng, [(236, 234, 228), (60, 62, 66), paint])
    place = place_of(pose, length)
    cast_under(canvas, place, length, half)
    glass = reflecting(canvas, (46, 54, 62))
    slant = 0.5 if label is Label.TRAM else 0.12
    low = 0.22 if label is Label.TRAM else 0.34
    body: Outline = [
        (slant, low),
        (length - slant, low),
        (length, 1.15),
        (length - slant, top),
        (slant, top),
        (0.0, 1.15),
    ]
    tones = [(30, 30, 32), paint, scaled(paint, 1.05), second, scaled(paint, 1.05), paint]
    canvas.prism(place, body, half, label, tones, paint)
    for side in (-1, 1):
        w = side * half
        on_side(
            canvas,
            place,
            [(0.15, 1.2), (length - 0.15, 1.2), (length - 0.4, top - 0.45), (0.4, top - 0.45)],
            w,
            label,
            glass,
        )
        on_side(
            canvas,
            place,
            [(0.3, low), (length - 0.3, low), (length - 0.2, low + 0.35), (0.2, low + 0.35)],
            w,
            label,
            second,
        )
        posts = int(length / 1.7)
        for i in range(1, posts):
            a = length * i / posts
            is_joint = label is Label.TRAM and i % 4 == 0
            wide = 0.3 if is_joint else 0.05
            colour: Colour = (44, 44, 48) if is_joint else paint
            bottom, up = (low + 0.1, top) if is_joint else (1.2, top - 0.45)
            on_side(
                canvas,
                place,
                [(a - wide, bottom), (a + wide, bottom), (a + wide, up), (a - wide, up)],
                w,
                label,
                colour,
            )
        for share in (0.3, 0.62, 0.9):
            a = length * share
            on_side(
                canvas,
                place,
                [(a - 0.6, low + 0.1), (a + 0.6, low + 0.1), (a + 0.6, top - 0.5), (a - 0.6, top - 0.5)],
                w,
                label,
                scaled(glass, 0.8),
            )
            on_side(
                canvas,
                place,
                [(a - 0.03, low + 0.1), (a + 0.03, low + 0.1), (a + 0.03, top - 0.5), (a - 0.03, top - 0.5)],
                w,
                label,
                second,
            )
        if label is Label.BUS:
            wheels(canvas, place, (2.6, length - 2.4), 0.48, w, label)
    for end, a0, a1 in ((-1, 0.0, slant), (1, length, length - slant)):
        rise = top - 1.15

        def at(u: float, w: float, a0: float = a0, a1: float = a1, rise: float = rise, end: int = end) -> Point:
            return place(a0 + (a1 - a0) * (u - 1.15) / rise + 0.01 * end, u, w)

        normal = away(place, end)
        pane = [
            at(1.25, -half + 0.12),
            at(1.25, half - 0.12),
            at(top - 0.55, half - 0.12),
            at(top - 0.55, -half + 0.12),
        ]
        canvas.face(pane, normal, label, glass)
        sign = [at(top - 0.42, -0.7), at(top - 0.42, 0.7), at(top - 0.12, 0.7), at(top - 0.12, -0.7)]
        canvas.face(sign, normal, label, (34, 32, 28))
        text = [at(top - 0.34, -0.5), at(top - 0.34, 0.4), at(top - 0.2, 0.4), at(top - 0.2, -0.5)]
        canvas.face(text, normal, label, (240, 170, 60))
        lamps(canvas, place, a0, half, 0.75, normal, label, is_front=end > 0)
    return length


def draw_caravan(canvas: Canvas, pose: Pose, rng: np.random.Generator) -> float:
    """Draw a caravan; return its length in metres."""
    length, half, top = between(rng, 4.6, 6.0), 1.1, 2.5
    paint: Colour = pick(rng, [(228, 224, 214), (216, 218, 218), (206, 196, 176)])
    stripe = pick(rng, [(150, 60, 50), (60, 90, 130), (120, 108, 90)])
    place = place_of(pose, length)
    cast_under(canvas, place, length, half)
    body: Outline = [
        (0.15, 0.4),
        (length - 0.3, 0.4),
        (length, 1.2),
        (length - 0.5, top - 0.1),
        (length - 1.0, top),
        (0.5, top),
        (0.05, top - 0.3),
        (0.0, 0.8),
    ]
    tones = [
        scaled(paint, 0.5),
        scaled(paint, 0.85),
        paint,
        scaled(paint, 1.05),
        scaled(paint, 1.1),
        scaled(paint, 1.05),
        paint,
        scaled(paint, 0.9),
    ]
    canvas.prism(place, body, half, Label.CARAVAN, tones, scaled(paint, 0.95), Texture.METAL)
    glass = reflecting(canvas, _GLASS)
    for side in (-1, 1):
        w = side * half
        for a in (0.6, length - 1.9):
            on_side(canvas, place, [(a, 1.35), (a + 1.1, 1.35), (a + 1.1, 2.0), (a, 2.0)], w, Label.CARAVAN, glass)
        on_side(
            canvas,
            place,
            [(0.1, 0.95), (length - 0.1, 0.95), (length - 0.05, 1.12), (0.1, 1.12)],
            w,
            Label.CARAVAN,
            stripe,
        )
        wheels(canvas, place, (length * 0.48,), 0.33, w, Label.CARAVAN)
    pane = [place(0.02, 1.35, -0.7), place(0.02, 1.35, 0.7), place(0.05, 2.0, 0.7), place(0.05, 2.0, -0.7)]
    canvas.face(pane, away(place, -1), Label.CARAVAN, glass)
    lamps(canvas, place, 0.05, half, 0.75, away(place, -1), Label.CARAVAN, is_front=False)
    return length


def draw_trailer(canvas: Canvas, pose: Pose, rng: np.random.Generator) -> float:
    """Draw a car trailer, open or covered; return its length in metres."""
    length, half = between(rng, 2.4, 3.4), 0.8
    top = pick(rng, [0.95, 1.6])
    paint: Colour = pick(rng, [(150, 152, 154), (112, 90, 66), (70, 82, 92)])
    cover = pick(rng, [(64, 84, 116), (88, 96, 84), (170, 172, 170)])
    place = place_of(pose, length)
    cast_under(canvas, place, length, half)
    shaft: Outline = [(length, 0.42), (length + 1.1, 0.42), (length + 1.1, 0.5), (length, 0.5)]
    box: Outline = [(0.0, 0.45), (length, 0.45), (length, 0.95), (0.0, 0.95)]
    canvas.prism(place, shaft, 0.08, Label.TRAILER, [(60, 60, 62)] * 4, (60, 60, 62))
    canvas.prism(
        place, box, half, Label.TRAILER, [scaled(paint, 0.5), paint, (52, 48, 44), paint], paint, Texture.PLANKS
    )
    if top > 1:
        canvas.prism(
            place,
            [(0.0, 0.95), (length, 0.95), (length, top), (0.0, top)],
            half,
            Label.TRAILER,
            [cover] * 4,
            cover,
            Texture.PLASTER,
        )
    for side in (-1, 1):
        wheels(canvas, place, (length * 0.45,), 0.3, side * half, Label.TRAILER)
    lamps(canvas, place, 0.0, half, 0.62, away(place, -1), Label.TRAILER, is_front=False)
    return length


Vehicle = Callable[[Canvas, Pose, np.random.Generator], float]
