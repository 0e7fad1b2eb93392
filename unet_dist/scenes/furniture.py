"""What stands on the pavement: poles, lamps, signs, traffic lights, trees, hedges, bins and benches."""

from __future__ import annotations

import numpy as np

from unet_dist.scenes.canvas import Canvas
from unet_dist.scenes.classes import Label
from unet_dist.scenes.light import Colour
from unet_dist.scenes.street import CIRCLE, between, chance, pick
from unet_dist.scenes.textures import Texture

_STEEL: list[Colour] = [(96, 100, 102), (58, 64, 62), (140, 144, 146), (72, 86, 76)]
_LEAVES: list[Colour] = [(96, 124, 58), (80, 112, 60), (124, 138, 64), (70, 100, 66), (150, 132, 58), (168, 108, 50)]


def draw_lamp(canvas: Canvas, x: float, z: float, reach: float, rng: np.random.Generator) -> None:
    """A street lamp whose arm reaches over the road."""
    colour, height = pick(rng, _STEEL), between(rng, 5, 8)
    canvas.post(x, 0, 1.1, z, 0.2, Label.POLE, colour)
    canvas.post(x, 1.0, height, z, 0.12, Label.POLE, colour)
    thick = max(0.08, 1.2 / canvas.camera.px_per_m(z))
    arm = [
        (x, height - 0.05, z),
        (x + reach, height + 0.35, z),
        (x + reach, height + 0.35 + thick, z),
        (x, height + thick, z),
    ]
    canvas.polygon(arm, Label.POLE, colour, "front")
    head = [(x + reach * 0.75, height + 0.25, z), (x + reach * 1.25, height + 0.28, z)]
    head += [(x + reach * 1.25, height + 0.42, z), (x + reach * 0.75, height + 0.48, z)]
    canvas.polygon(head, Label.POLE, (206, 204, 190) if not canvas.light.is_dusk else (255, 226, 160), "front")
    _pole_shadow(canvas, x, z, height)


def draw_pole(canvas: Canvas, x: float, z: float, rng: np.random.Generator) -> None:
    """A plain pole or a bollard."""
    is_bollard = chance(rng, 0.5)
    height = 0.95 if is_bollard else between(rng, 2.5, 7)
    colour = pick(rng, [*_STEEL, (124, 96, 70)])
    canvas.post(x, 0, height, z, 0.13 if is_bollard else between(rng, 0.1, 0.24), Label.POLE, colour)
    if is_bollard:
        canvas.post(x, height - 0.2, height - 0.08, z, 0.13, Label.POLE, (220, 220, 214))
    _pole_shadow(canvas, x, z, height)


def draw_sign(canvas: Canvas, x: float, z: float, rng: np.random.Generator) -> None:
    """A traffic sign, or two, on a thin pole."""
    height, label = between(rng, 2.1, 2.8), Label.TRAFFIC_SIGN
    canvas.post(x, 0, height + 0.3, z, 0.07, Label.POLE, pick(rng, _STEEL))
    _pole_shadow(canvas, x, z, height)
    red: Colour = (190, 36, 34)
    blue: Colour = (38, 84, 160)
    white: Colour = (232, 232, 228)

    def disc(y: float, radius: float, colour: Colour) -> None:
        canvas.polygon([(x + radius * c, y + radius * s, z) for c, s in CIRCLE], label, colour, "front")

    def box(y: float, half: float, high: float, colour: Colour) -> None:
        corners = [(x - half, y - high, z), (x + half, y - high, z), (x + half, y + high, z), (x - half, y + high, z)]
        canvas.polygon(corners, label, colour, "front")

    kind = int(rng.integers(6))
    if kind == 0:
        disc(height, 0.33, red)
        disc(height, 0.24, white)
    elif kind == 1:
        for grow, colour in ((0.42, red), (0.28, white)):
            canvas.polygon(
                [(x - grow, height - grow * 0.7, z), (x + grow, height - grow * 0.7, z), (x, height + grow, z)],
                label,
                colour,
            )
    elif kind == 2:
        disc(height, 0.33, blue)
        canvas.polygon(
            [
                (x - 0.05, height - 0.2, z),
                (x + 0.05, height - 0.2, z),
                (x + 0.05, height + 0.2, z),
                (x - 0.05, height + 0.2, z),
            ],
            label,
            white,
        )
    elif kind == 3:
        box(height, 0.32, 0.32, white)
        box(height, 0.29, 0.29, blue)
        canvas.polygon([(x - 0.16, height - 0.2, z), (x + 0.16, height - 0.2, z), (x, height + 0.2, z)], label, white)
    elif kind == 4:
        disc(height, 0.34, white)
        disc(height, 0.31, red)
        box(height, 0.22, 0.055, white)
    else:
        box(height, 0.62, 0.22, white)
        box(height, 0.58, 0.18, pick(rng, [blue, (44, 120, 80), (214, 176, 44)]))
    if chance(rng, 0.3):
        box(height - 0.55, 0.28, 0.14, white)


def draw_traffic_light(canvas: Canvas, x: float, z: float, reach: float, rng: np.random.Generator) -> None:
    """A traffic light on a pole, sometimes with a second one over the road."""
    height, label = between(rng, 2.6, 3.2), Label.TRAFFIC_LIGHT
    has_arm = chance(rng, 0.4)
    colour = pick(rng, _STEEL)
    canvas.post(x, 0, 5.6 if has_arm else height + 0.6, z, 0.13, Label.POLE, colour)
    _pole_shadow(canvas, x, z, height)
    places = [(x, height)]
    if has_arm:
        thick = max(0.09, 1.2 / canvas.camera.px_per_m(z))
        arm = [(x, 5.45, z), (x + reach, 5.6, z), (x + reach, 5.6 + thick, z), (x, 5.45 + thick, z)]
        canvas.polygon(arm, Label.POLE, colour, "front")
        places.append((x + reach, 5.35))
    lit = int(rng.integers(3))
    for px, py in places:
        half, high = 0.17, 0.5
        corners = [
            (px - half, py - high, z),
            (px + half, py - high, z),
            (px + half, py + high, z),
            (px - half, py + high, z),
        ]
        canvas.polygon(corners, label, (34, 36, 36), "front")
        lamps: list[tuple[Colour, Colour]] = [
            ((70, 26, 24), (255, 60, 48)),
            ((72, 56, 24), (255, 190, 60)),
            ((24, 58, 40), (70, 240, 150)),
        ]
        for i, (off, on) in enumerate(lamps):
            y = py + 0.31 - 0.31 * i
            points = [(px + 0.115 * c, y + 0.115 * s, z) for c, s in CIRCLE]
            canvas.polygon(points, label, on if i == lit else off, "front")


def draw_tree(canvas: Canvas, x: float, z: float, rng: np.random.Generator, *, size: float = 1.0) -> None:
    """A tree: a trunk, some branches and a crown of a few tufts."""
    height = between(rng, 4.8, 9.5) * size
    wide = height * between(rng, 0.5, 0.75)
    stem = between(rng, 1.9, 2.9) * min(size, 1.0)
    bark: Colour = pick(rng, [(92, 74, 58), (112, 98, 84), (74, 66, 60)])
    girth = 0.045 * height
    leaves, where = pick(rng, _LEAVES), int(rng.integers(1024))
    kind = int(rng.integers(12))
    flare = [
        (x - girth * 0.8, 0, z),
        (x + girth * 0.8, 0, z),
        (x + girth * 0.45, 0.5, z),
        (x + girth * 0.32, height * 0.6, z),
    ]
    flare += [(x - girth * 0.32, height * 0.6, z), (x - girth * 0.45, 0.5, z)]
    canvas.polygon(flare, Label.VEGETATION, bark, "front", Texture.PLANKS)
    shine = [
        (x, 0, z),
        (x + girth * 0.7, 0, z),
        (x + girth * 0.4, 0.5, z),
        (x + girth * 0.3, height * 0.6, z),
        (x, height * 0.6, z),
    ]
    canvas.polygon(shine, Label.VEGETATION, (bark[0] * 0.72, bark[1] * 0.72, bark[2] * 0.72), "front", Texture.PLANKS)
    middle = stem + (height - stem) / 2
    canvas.crown(x, middle, z, wide, height - stem, leaves, kind, where)
    side = canvas.light.sun_side * canvas.camera.mirror
    reach = -side * 3.0
    gain = canvas.light.shadow
    for _ in range(14):  # patches of light between the leaves
        along, across = between(rng, -0.4, 0.4) * wide, between(rng, -0.35, 0.35) * wide
        radius = between(rng, 0.08, 0.24) * wide
        points = [(x + reach + along + radius * c, 0.0, z + across + 0.7 * radius * s) for c, s in CIRCLE]
        canvas.cast(points, gain if side else 0.9)


def draw_bush(canvas: Canvas, x: float, z: float, rng: np.random.Generator) -> None:
    """A bush on the ground."""
    wide, high = between(rng, 0.8, 2.2), between(rng, 0.7, 1.6)
    canvas.cast([(x + 0.55 * wide * c, 0.0, z + 0.3 * s) for c, s in CIRCLE], 0.55)
    canvas.crown(
        x, high * 0.42, z, wide * 1.25, high * 1.25, pick(rng, _LEAVES), int(rng.integers(12)), int(rng.integers(1024))
    )


def draw_hedge(canvas: Canvas, x: float, z0: float, z1: float, height: float, rng: np.random.Generator) -> None:
    """A cut hedge along the street."""
    leaves = pick(rng, _LEAVES[:4])
    dark: Colour = (leaves[0] * 0.66, leaves[1] * 0.66, leaves[2] * 0.66)
    z = z1
    while z > z0:
        near = max(z - 1.5, z0)
        profile = [(near, 0.0), (z, 0.0), (z, height), (near, height)]
        canvas.prism(
            lambda a, u, w: (x - w, u, a),
            profile,
            0.3,
            Label.VEGETATION,
            [dark, dark, leaves, dark],
            dark,
            Texture.FOLIAGE,
        )
        if near > 2:
            canvas.crown(x, height, near, 0.9, 0.5, leaves, int(rng.integers(12)), int(rng.integers(1024)))
        z = near


def draw_bin(canvas: Canvas, x: float, z: float, rng: np.random.Generator) -> None:
    """A litter bin, a cabinet, a post box or an advertising column (void-static)."""
    label = Label.VOID_STATIC
    half, height, colour = pick(
        rng,
        [
            (0.28, 1.0, (70, 92, 76)),
            (0.5, 1.25, (150, 152, 148)),
            (0.26, 1.2, (214, 178, 50)),
            (0.62, 2.7, (120, 132, 124)),
            (0.3, 1.05, (60, 62, 66)),
            (0.45, 1.1, (112, 84, 62)),
        ],
    )
    if z < 1.5:
        return
    canvas.cast([(x + (half + 0.15) * c, 0.0, z + 0.3 + 0.4 * s) for c, s in CIRCLE], 0.5)
    profile = [(z, 0.0), (z + 0.6, 0.0), (z + 0.6, height), (z, height)]
    pale: Colour = (colour[0] * 1.15, colour[1] * 1.15, colour[2] * 1.15)
    canvas.prism(
        lambda a, u, w: (x - w, u, a), profile, half, label, [colour, colour, pale, colour], colour, Texture.METAL
    )
    trim: Colour = (colour[0] * 0.6, colour[1] * 0.6, colour[2] * 0.6)
    for y0, y1 in ((height - 0.12, height - 0.06), (0.0, 0.08)):
        canvas.polygon([(x - half, y0, z), (x + half, y0, z), (x + half, y1, z), (x - half, y1, z)], label, trim)
    if height > 2:
        poster = pick(rng, [(206, 90, 70), (230, 206, 120), (80, 130, 170), (226, 222, 214)])
        canvas.polygon(
            [(x - half * 0.8, 0.7, z), (x + half * 0.8, 0.7, z), (x + half * 0.8, 2.4, z), (x - half * 0.8, 2.4, z)],
            label,
            poster,
        )


def draw_bench(canvas: Canvas, x: float, z: float, rng: np.random.Generator) -> None:
    """A bench (void-static)."""
    wood: Colour = pick(rng, [(140, 100, 64), (112, 84, 60), (150, 128, 98)])
    label = Label.VOID_STATIC
    canvas.cast([(x + 0.9 * c, 0.0, z + 0.25 + 0.3 * s) for c, s in CIRCLE], 0.55)
    for side in (-0.55, 0.55):
        canvas.post(x + side, 0, 0.85, z + 0.3, 0.07, label, (60, 62, 62))
        canvas.post(x + side, 0, 0.45, z, 0.07, label, (60, 62, 62))
    for y in (0.55, 0.7, 0.84):
        canvas.polygon(
            [
                (x - 0.7, y, z + 0.3),
                (x + 0.7, y, z + 0.3),
                (x + 0.7, y + 0.1, z + 0.3),
                (x - 0.7, y + 0.1, z + 0.3),
            ],
            label,
            wood,
        )
    seat = [(x - 0.7, 0.46, z), (x + 0.7, 0.46, z), (x + 0.7, 0.46, z + 0.4), (x - 0.7, 0.46, z + 0.4)]
    canvas.polygon(seat, label, wood, "up")
    edge = [(x - 0.7, 0.39, z), (x + 0.7, 0.39, z), (x + 0.7, 0.46, z), (x - 0.7, 0.46, z)]
    canvas.polygon(edge, label, (wood[0] * 0.7, wood[1] * 0.7, wood[2] * 0.7))


def draw_cart(canvas: Canvas, x: float, z: float, rng: np.random.Generator) -> None:
    """A pram, a bin on wheels or a suitcase (void-dynamic)."""
    label = Label.VOID_DYNAMIC
    kind = int(rng.integers(3))
    canvas.cast([(x + 0.45 * c, 0.0, z + 0.25 * s) for c, s in CIRCLE], 0.5)
    colour: Colour = pick(rng, [(56, 66, 84), (70, 96, 70), (128, 44, 50), (44, 44, 48), (196, 168, 70)])

    def shape(outline: list[tuple[float, float]], tone: Colour) -> None:
        canvas.polygon([(x + a, u, z) for a, u in outline], label, tone)

    pale: Colour = (colour[0] * 1.2, colour[1] * 1.2, colour[2] * 1.2)
    if kind == 0:  # a pram
        for a in (-0.3, 0.3):
            shape([(a + 0.13 * c, 0.13 + 0.13 * s) for c, s in CIRCLE], (36, 36, 38))
        shape([(-0.3, 0.15), (-0.26, 0.15), (0.3, 0.6), (0.26, 0.6)], (120, 120, 124))
        shape([(-0.4, 0.5), (0.35, 0.5), (0.45, 0.8), (-0.45, 0.8)], colour)
        shape([(0.05, 0.8), (0.47, 0.78), (0.42, 1.08), (0.2, 1.14), (0.05, 1.05)], pale)
        shape([(-0.42, 0.78), (-0.38, 0.78), (-0.56, 1.06), (-0.62, 1.04)], (60, 60, 62))
    elif kind == 1:  # a bin on wheels
        shape([(-0.24, 0.08), (0.24, 0.08), (0.29, 0.95), (-0.29, 0.95)], colour)
        shape([(-0.32, 0.95), (0.32, 0.95), (0.28, 1.06), (-0.28, 1.06)], pale)
        shape([(0.1 + 0.1 * c, 0.1 + 0.1 * s) for c, s in CIRCLE], (34, 34, 36))
    else:  # a suitcase
        for a in (-0.17, 0.17):
            shape([(a + 0.05 * c, 0.05 + 0.05 * s) for c, s in CIRCLE], (34, 34, 36))
        shape([(-0.05, 0.7), (-0.02, 0.7), (-0.02, 1.02), (-0.05, 1.02)], (120, 120, 124))
        shape([(0.02, 0.7), (0.05, 0.7), (0.05, 1.02), (0.02, 1.02)], (120, 120, 124))
        shape([(-0.09, 1.0), (0.09, 1.0), (0.09, 1.05), (-0.09, 1.05)], (40, 40, 42))
        shape([(-0.24, 0.07), (0.24, 0.07), (0.24, 0.72), (-0.24, 0.72)], colour)
        for a in (-0.12, 0.0, 0.12):
            shape([(a - 0.02, 0.12), (a + 0.02, 0.12), (a + 0.02, 0.68), (a - 0.02, 0.68)], pale)


def _pole_shadow(canvas: Canvas, x: float, z: float, height: float) -> None:
    canvas.cast([(x + 0.16 * c, 0.0, z + 0.12 * s) for c, s in CIRCLE], 0.6)
    side = canvas.light.sun_side * canvas.camera.mirror
    if side:
        reach = -side * height * 0.8
        points = [
            (x - 0.05, 0.0, z),
            (x + 0.05, 0.0, z),
            (x + reach, 0.0, z + height * 0.25 + 0.08),
            (x + reach, 0.0, z + height * 0.25),
        ]
        canvas.cast(points, canvas.light.shadow)
