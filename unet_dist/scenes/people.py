"""People and two wheels: persons, riders, bicycles, motorcycles and a dog.

Figures face the camera as flat cut-outs in metres around their feet; `side` mirrors them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unet_dist.scenes.canvas import Canvas
from unet_dist.scenes.classes import Label
from unet_dist.scenes.light import Colour, scaled
from unet_dist.scenes.street import CIRCLE, between, chance, pick

_CLOTHES: list[Colour] = [
    (44, 48, 60),
    (28, 28, 32),
    (120, 122, 126),
    (168, 48, 44),
    (52, 84, 132),
    (96, 104, 72),
    (206, 200, 188),
    (198, 156, 70),
    (120, 80, 100),
    (70, 110, 110),
    (150, 116, 90),
]
_TROUSERS: list[Colour] = [(46, 54, 78), (36, 36, 40), (104, 98, 88), (70, 82, 104), (132, 122, 102)]
_SKIN: list[Colour] = [(224, 184, 158), (196, 148, 118), (142, 98, 74), (92, 64, 50), (236, 200, 176)]
_HAIR: list[Colour] = [(40, 30, 26), (84, 58, 38), (26, 24, 24), (172, 136, 84), (150, 146, 142)]
_BICYCLE_PAINT: list[Colour] = [
    (160, 40, 40),
    (40, 44, 50),
    (50, 90, 140),
    (200, 200, 196),
    (60, 110, 80),
    (214, 150, 50),
]
_HELMETS: list[Colour] = [(226, 226, 222), (40, 40, 44), (170, 46, 42), (50, 92, 140), (74, 52, 38)]

Flat = Sequence[tuple[float, float]]


class _Cutout:
    """Draws flat shapes at one depth."""

    def __init__(self, canvas: Canvas, x: float, z: float, size: float, side: int) -> None:
        self.canvas, self.x, self.z, self.size, self.side = canvas, x, z, size, side

    def shape(self, outline: Flat, label: Label, colour: Colour) -> None:
        points = [(self.x + self.side * self.size * a, self.size * u, self.z) for a, u in outline]
        self.canvas.polygon(points, label, colour, "front")

    def disc(self, a: float, u: float, rx: float, ry: float, label: Label, colour: Colour) -> None:
        self.shape([(a + rx * c, u + ry * s) for c, s in CIRCLE], label, colour)

    def limb(
        self, start: tuple[float, float], end: tuple[float, float], w0: float, w1: float, label: Label, colour: Colour
    ) -> None:
        """A tapered bar between two points; widths in metres."""
        across, along = end[0] - start[0], end[1] - start[1]
        length = max((across**2 + along**2) ** 0.5, 1e-6)
        nx, ny = -along / length / 2, across / length / 2
        outline = [
            (start[0] + nx * w0, start[1] + ny * w0),
            (end[0] + nx * w1, end[1] + ny * w1),
            (end[0] - nx * w1, end[1] - ny * w1),
            (start[0] - nx * w0, start[1] - ny * w0),
        ]
        self.shape(outline, label, colour)

    def ring(self, a: float, u: float, radius: float, thickness: float, label: Label, colour: Colour) -> None:
        """A tyre: a ring one sees through."""
        inner = radius - max(thickness, 1.2 / (self.canvas.camera.px_per_m(self.z) * self.size))
        for i in range(len(CIRCLE)):
            (c0, s0), (c1, s1) = CIRCLE[i], CIRCLE[(i + 1) % len(CIRCLE)]
            quad = [
                (a + radius * c0, u + radius * s0),
                (a + radius * c1, u + radius * s1),
                (a + inner * c1, u + inner * s1),
                (a + inner * c0, u + inner * s0),
            ]
            self.shape(quad, label, colour)


def draw_person(canvas: Canvas, x: float, z: float, rng: np.random.Generator) -> None:
    """A person who stands or walks, 1.1 to 1.95 m tall."""
    size = between(rng, 0.9, 1.1) * (0.7 if chance(rng, 0.12) else 1.0)
    figure = _Cutout(canvas, x, z, size, 1 if chance(rng, 0.5) else -1)
    coat, trousers, skin, hair = pick(rng, _CLOTHES), pick(rng, _TROUSERS), pick(rng, _SKIN), pick(rng, _HAIR)
    stride = between(rng, 0.03, 0.3)
    swing = between(rng, -0.2, 0.25)
    wide = between(rng, 0.85, 1.15)
    label = Label.PERSON
    _figure_shadow(canvas, x, z, 0.35)
    for foot, tone in ((-stride, 0.75), (stride * 0.8, 1.0)):
        knee = (foot * 0.55 + 0.05, 0.47)
        figure.limb((foot * 0.12, 0.9), knee, 0.2, 0.14, label, scaled(trousers, tone))
        figure.limb(knee, (foot, 0.07), 0.14, 0.1, label, scaled(trousers, tone))
        figure.shape(
            [(foot - 0.06, 0.0), (foot + 0.19, 0.0), (foot + 0.17, 0.06), (foot - 0.04, 0.11)], label, (36, 32, 32)
        )
    figure.limb((-0.05, 1.4), (-swing, 0.95), 0.11, 0.08, label, scaled(coat, 0.7))
    if chance(rng, 0.3):
        pack = pick(rng, _CLOTHES)
        figure.shape([(-0.36, 0.98), (-0.1, 0.95), (-0.1, 1.42), (-0.32, 1.4)], label, pack)
    hem = 0.55 if chance(rng, 0.25) else 0.86
    torso = [(-0.18 * wide, hem), (0.18 * wide, hem), (0.2 * wide, 1.2), (0.19 * wide, 1.4), (0.08, 1.48)]
    torso += [(-0.08, 1.48), (-0.19 * wide, 1.4), (-0.2 * wide, 1.2)]
    figure.shape(torso, label, coat)
    figure.shape(
        [(0.05, hem), (0.18 * wide, hem), (0.2 * wide, 1.2), (0.19 * wide, 1.4), (0.1, 1.42)], label, scaled(coat, 1.14)
    )
    figure.limb((0.0, 1.47), (0.0, 1.56), 0.11, 0.1, label, scaled(skin, 0.85))
    figure.limb((0.03, 1.4), (swing * 0.6 + 0.02, 1.15), 0.12, 0.1, label, scaled(coat, 0.88))
    figure.limb((swing * 0.6 + 0.02, 1.16), (swing + 0.1, 0.94), 0.1, 0.08, label, scaled(coat, 0.88))
    figure.disc(swing + 0.11, 0.9, 0.045, 0.06, label, skin)
    _head(figure, 0.02, 1.66, skin, hair, label, rng)
    if chance(rng, 0.2):
        figure.shape(
            [(swing + 0.0, 0.5), (swing + 0.24, 0.5), (swing + 0.22, 0.84), (swing + 0.03, 0.84)],
            label,
            pick(rng, _CLOTHES),
        )


def _head(
    figure: _Cutout, a: float, u: float, skin: Colour, hair: Colour, label: Label, rng: np.random.Generator
) -> None:
    figure.disc(a - 0.015, u + 0.015, 0.105, 0.135, label, hair)
    if chance(rng, 0.65):  # not seen from behind
        figure.disc(a + 0.025, u - 0.02, 0.08, 0.105, label, skin)
        figure.shape(
            [(a - 0.09, u + 0.03), (a + 0.1, u + 0.05), (a + 0.06, u + 0.13), (a - 0.05, u + 0.14)], label, hair
        )
    elif chance(rng, 0.4):
        figure.disc(a - 0.02, u - 0.06, 0.11, 0.16, label, hair)


def draw_bicycle(canvas: Canvas, x: float, z: float, rng: np.random.Generator, *, has_rider: bool) -> None:
    """A bicycle seen from its side, ridden or parked."""
    figure = _Cutout(canvas, x, z, between(rng, 0.95, 1.05), 1 if chance(rng, 0.5) else -1)
    paint = pick(rng, _BICYCLE_PAINT)
    label = Label.BICYCLE
    _figure_shadow(canvas, x, z, 0.8)
    rear, front, crank, seat, head = (-0.52, 0.34), (0.53, 0.34), (-0.08, 0.3), (-0.24, 0.86), (0.36, 0.86)
    if has_rider:
        _rider(figure, crank, seat, (0.36, 1.02), rng, leg_only=True)
    for hub in (rear, front):
        figure.ring(*hub, 0.34, 0.045, label, (30, 30, 32))
        figure.disc(*hub, 0.04, 0.04, label, (120, 120, 124))
        for c, s in CIRCLE[::3]:
            figure.limb(hub, (hub[0] + 0.31 * c, hub[1] + 0.31 * s), 0.008, 0.008, label, (128, 128, 132))
    bars = (
        (rear, crank),
        (rear, seat),
        (seat, crank),
        (seat, head),
        (crank, head),
        (head, front),
        (head, (0.33, 1.02)),
    )
    for start, end in bars:
        figure.limb(start, end, 0.045, 0.045, label, paint)
    figure.shape([(-0.4, 0.9), (-0.12, 0.9), (-0.12, 0.95), (-0.4, 0.97)], label, (32, 30, 30))
    figure.limb((0.24, 1.04), (0.42, 1.02), 0.05, 0.05, label, (34, 34, 36))
    if chance(rng, 0.35):
        figure.shape([(0.4, 0.78), (0.72, 0.8), (0.74, 1.02), (0.4, 1.0)], label, (134, 104, 70))
    if has_rider:
        _rider(figure, crank, (-0.24, 0.95), (0.34, 1.04), rng, leg_only=False)


def draw_cyclist_along(canvas: Canvas, x: float, z: float, rng: np.random.Generator) -> None:
    """A cyclist who rides along the street, seen from behind or from the front."""
    figure = _Cutout(canvas, x, z, between(rng, 0.95, 1.08), 1)
    coat, trousers, skin, hair = pick(rng, _CLOTHES), pick(rng, _TROUSERS), pick(rng, _SKIN), pick(rng, _HAIR)
    paint = pick(rng, _BICYCLE_PAINT)
    bike, rider = Label.BICYCLE, Label.RIDER
    _figure_shadow(canvas, x, z, 0.35)
    high = between(rng, 0.0, 0.2)
    for side in (-1, 1):
        foot = 0.14 + (high if side > 0 else 0.2 - high)
        figure.limb(
            (side * 0.1, 0.95), (side * 0.16, foot + 0.4), 0.19, 0.13, rider, scaled(trousers, 0.8 + 0.1 * side)
        )
        figure.limb(
            (side * 0.16, foot + 0.4), (side * 0.13, foot), 0.13, 0.09, rider, scaled(trousers, 0.8 + 0.1 * side)
        )
        figure.limb((side * 0.09, foot), (side * 0.19, foot), 0.08, 0.08, rider, (34, 32, 32))
    figure.limb((0.0, 0.0), (0.0, 0.7), 0.055, 0.055, bike, (28, 28, 30))
    figure.limb((0.0, 0.62), (0.0, 0.95), 0.05, 0.05, bike, paint)
    figure.disc(0.0, 0.62, 0.035, 0.035, bike, (200, 40, 36))
    figure.limb((-0.29, 1.04), (0.29, 1.04), 0.04, 0.04, bike, (44, 44, 46))
    torso = [(-0.17, 0.9), (0.17, 0.9), (0.21, 1.3), (0.17, 1.45), (-0.17, 1.45), (-0.21, 1.3)]
    figure.shape([(-0.13, 0.9), (0.13, 0.9), (0.15, 1.0), (-0.15, 1.0)], rider, trousers)
    figure.shape(torso, rider, coat)
    for side in (-1, 1):
        figure.limb((side * 0.19, 1.4), (side * 0.31, 1.2), 0.12, 0.1, rider, scaled(coat, 0.8))
        figure.limb((side * 0.31, 1.2), (side * 0.28, 1.05), 0.1, 0.08, rider, scaled(coat, 0.8))
    figure.limb((0.0, 1.43), (0.0, 1.52), 0.11, 0.1, rider, scaled(skin, 0.85))
    _head(figure, 0.0, 1.62, skin, hair, rider, rng)
    if chance(rng, 0.5):
        helmet = pick(rng, _HELMETS)
        figure.shape([(0.12 * c, 1.66 + 0.11 * max(s, 0)) for c, s in CIRCLE], rider, helmet)


def draw_motorcycle(canvas: Canvas, x: float, z: float, rng: np.random.Generator, *, has_rider: bool) -> None:
    """A motorcycle or a scooter seen from its side."""
    figure = _Cutout(canvas, x, z, 1.0, 1 if chance(rng, 0.5) else -1)
    paint = pick(rng, [(170, 40, 36), (36, 38, 42), (60, 110, 130), (212, 208, 196), (44, 66, 120)])
    label = Label.MOTORCYCLE
    _figure_shadow(canvas, x, z, 0.9)
    for hub in ((-0.66, 0.3), (0.68, 0.3)):
        figure.disc(*hub, 0.3, 0.3, label, (28, 28, 30))
        figure.disc(*hub, 0.17, 0.17, label, (120, 122, 126))
        figure.disc(*hub, 0.06, 0.06, label, (60, 60, 62))
    figure.limb((0.68, 0.3), (0.42, 0.98), 0.09, 0.09, label, (130, 130, 134))
    figure.shape([(-0.4, 0.24), (0.3, 0.24), (0.36, 0.56), (-0.36, 0.56)], label, (72, 74, 78))
    figure.shape([(-0.1, 0.55), (0.44, 0.62), (0.46, 0.9), (0.1, 0.92)], label, paint)
    figure.shape([(-0.92, 0.6), (-0.3, 0.5), (-0.1, 0.7), (-0.9, 0.82)], label, scaled(paint, 0.85))
    figure.shape([(-0.86, 0.8), (-0.1, 0.72), (0.04, 0.84), (-0.84, 0.9)], label, (34, 32, 32))
    figure.limb((-0.9, 0.34), (-0.1, 0.3), 0.11, 0.09, label, (168, 168, 172))
    figure.limb((0.3, 1.02), (0.5, 1.0), 0.06, 0.06, label, (34, 34, 36))
    figure.disc(0.56, 0.86, 0.1, 0.11, label, (226, 224, 210))
    figure.shape([(0.4, 0.95), (0.62, 0.94), (0.5, 1.26), (0.42, 1.2)], label, (110, 126, 136))
    if has_rider:
        _rider(figure, (0.0, 0.3), (-0.3, 0.9), (0.38, 1.04), rng, leg_only=False)


def _rider(
    figure: _Cutout,
    foot: tuple[float, float],
    seat: tuple[float, float],
    hand: tuple[float, float],
    rng: np.random.Generator,
    *,
    leg_only: bool,
) -> None:
    """A rider; `leg_only` draws the leg behind the frame."""
    label = Label.RIDER
    coat, trousers, skin = pick(rng, _CLOTHES), pick(rng, _TROUSERS), pick(rng, _SKIN)
    knee = (seat[0] + 0.4, seat[1] - 0.22)
    if leg_only:
        figure.limb(seat, (knee[0] - 0.08, knee[1] - 0.1), 0.17, 0.12, label, scaled(trousers, 0.7))
        figure.limb(
            (knee[0] - 0.08, knee[1] - 0.1), (foot[0] + 0.1, foot[1] - 0.16), 0.12, 0.08, label, scaled(trousers, 0.7)
        )
        return
    shoulder = (seat[0] + 0.26, seat[1] + 0.52)
    figure.limb(seat, knee, 0.2, 0.14, label, trousers)
    figure.limb(knee, (foot[0], foot[1] + 0.08), 0.13, 0.09, label, trousers)
    figure.limb((foot[0] - 0.06, foot[1] + 0.05), (foot[0] + 0.16, foot[1] + 0.04), 0.07, 0.06, label, (34, 32, 32))
    figure.limb(seat, shoulder, 0.3, 0.3, label, coat)
    figure.disc(*shoulder, 0.15, 0.13, label, coat)
    elbow = ((shoulder[0] + hand[0]) / 2, (shoulder[1] + hand[1]) / 2 - 0.08)
    figure.limb(shoulder, elbow, 0.12, 0.1, label, scaled(coat, 0.85))
    figure.limb(elbow, hand, 0.1, 0.07, label, scaled(coat, 0.85))
    head = (shoulder[0] + 0.1, shoulder[1] + 0.25)
    figure.disc(*head, 0.1, 0.13, label, skin)
    helmet = pick(rng, _HELMETS)
    cap = [(head[0] + 0.12 * c, head[1] + 0.03 + 0.12 * max(s, 0)) for c, s in CIRCLE]
    figure.shape(cap, label, helmet)


def draw_dog(canvas: Canvas, x: float, z: float, rng: np.random.Generator) -> None:
    """A dog (void-dynamic)."""
    figure = _Cutout(canvas, x, z, between(rng, 0.7, 1.1), 1 if chance(rng, 0.5) else -1)
    coat: Colour = pick(rng, [(120, 84, 52), (46, 42, 40), (196, 180, 156), (150, 120, 90)])
    label = Label.VOID_DYNAMIC
    _figure_shadow(canvas, x, z, 0.35)
    for a in (-0.3, -0.2, 0.18, 0.27):
        figure.limb((a, 0.35), (a + 0.02, 0.0), 0.09, 0.06, label, scaled(coat, 0.8))
    figure.disc(0.0, 0.42, 0.38, 0.14, label, coat)
    figure.limb((0.26, 0.46), (0.42, 0.64), 0.16, 0.13, label, coat)
    figure.disc(0.47, 0.66, 0.12, 0.09, label, coat)
    figure.limb((-0.34, 0.48), (-0.52, 0.64), 0.05, 0.03, label, coat)


def _figure_shadow(canvas: Canvas, x: float, z: float, half: float) -> None:
    canvas.cast([(x + half * c, 0.0, z + 0.22 * s) for c, s in CIRCLE], 0.55)
    side = canvas.light.sun_side * canvas.camera.mirror
    if side:  # the sun throws it away from its own side
        canvas.cast(
            [
                (x - 0.2, 0, z),
                (x + 0.2, 0, z),
                (x - side * 1.5 + 0.15, 0, z + 0.7),
                (x - side * 1.5 - 0.15, 0, z + 0.7),
            ],
            0.66,
        )
