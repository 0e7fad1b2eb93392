"""What stands still along a street: houses, walls, fences, stairs, bridges, tunnels and the end of the view.

A facade is drawn through a `Wall`: a function from (along, up) in metres to the street, so that one code draws the
side of a house and its front.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unet_dist.scenes.camera import Point
from unet_dist.scenes.canvas import Canvas
from unet_dist.scenes.classes import Label
from unet_dist.scenes.light import Colour, scaled
from unet_dist.scenes.street import between, chance, pick
from unet_dist.scenes.textures import Texture

Wall = Callable[[float, float], Point]

_PLASTER: list[Colour] = [
    (214, 200, 172),
    (226, 218, 202),
    (198, 178, 150),
    (186, 190, 188),
    (220, 190, 160),
    (178, 158, 138),
    (204, 208, 204),
    (190, 150, 126),
    (160, 170, 176),
    (222, 206, 150),
]
_BRICK: list[Colour] = [(158, 88, 70), (138, 78, 64), (176, 112, 84), (122, 84, 72), (172, 140, 112), (196, 176, 148)]
_STONE: list[Colour] = [(176, 166, 148), (150, 146, 140), (190, 182, 168)]
_ROOF: list[Colour] = [(150, 78, 56), (92, 90, 94), (112, 80, 68), (76, 80, 86)]
_DOORS: list[Colour] = [
    (96, 58, 38),
    (54, 74, 60),
    (58, 66, 88),
    (132, 44, 38),
    (70, 62, 58),
    (160, 150, 136),
    (44, 44, 46),
]
_AWNING: list[Colour] = [(168, 52, 44), (52, 92, 74), (64, 84, 128), (200, 170, 110), (196, 196, 190)]


@dataclass(frozen=True)
class Style:
    """How a house looks; metres."""

    wall: Colour
    texture: Texture
    trim: Colour
    roof: Colour
    door: Colour
    floors: int
    floor_height: float
    bay: float
    window: tuple[float, float]  # height, width
    has_shop: bool
    has_gable: bool
    has_shutters: bool
    awning: Colour

    @property
    def height(self) -> float:
        """From the ground to the eaves."""
        return self.floors * self.floor_height + 0.9


def sample_style(rng: np.random.Generator) -> Style:
    """Draw a house."""
    kind = rng.random()
    if kind < 0.5:
        wall, texture = pick(rng, _PLASTER), Texture.PLASTER
    elif kind < 0.82:
        wall, texture = pick(rng, _BRICK), Texture.BRICK
    else:
        wall, texture = pick(rng, _STONE), pick(rng, [Texture.STONE, Texture.CONCRETE])
    trim = pick(rng, [(232, 228, 220), (196, 186, 170), (88, 84, 82), (240, 240, 238)])
    bay = between(rng, 2.0, 3.4)
    return Style(
        wall=wall,
        texture=texture,
        trim=trim,
        roof=pick(rng, _ROOF),
        door=pick(rng, _DOORS),
        floors=int(rng.integers(2, 6)),
        floor_height=between(rng, 2.8, 3.5),
        bay=bay,
        window=(between(rng, 1.3, 2.0), bay * between(rng, 0.36, 0.58)),
        has_shop=chance(rng, 0.33),
        has_gable=chance(rng, 0.5),
        has_shutters=chance(rng, 0.2),
        awning=pick(rng, _AWNING),
    )


def draw_house(
    canvas: Canvas, x: float, outward: int, z0: float, z1: float, style: Style, rng: np.random.Generator
) -> None:
    """A house whose street side lies at x; `outward` (-1 or 1) points away from the street."""
    depth = 9.0
    height = style.height
    roof = between(rng, 1.6, 3.2) if style.has_gable else 0.0
    edge = x + outward * depth
    facing = "right" if outward * canvas.camera.mirror < 0 else "left"
    gable = [
        (x, 0.0, z0),
        (x, height, z0),
        (x + outward * depth / 2, height + roof, z0),
        (edge, height, z0),
        (edge, 0.0, z0),
    ]
    canvas.polygon(gable, Label.BUILDING, style.wall, "front", style.texture)
    if min(abs(x), abs(edge)) / max(z0, 1) < 1.2:
        _windows(canvas, lambda u, y: (x + outward * u, y, z0), 0.0, depth, style, rng, facing="front", has_door=False)
    if roof:
        slope = [(x, height, z0), (x, height, z1), (x + outward * depth / 2, height + roof, z1)]
        slope.append((x + outward * depth / 2, height + roof, z0))
        canvas.polygon(slope, Label.BUILDING, style.roof, facing, Texture.SLABS)
    bays = max(1, round((z1 - z0) / style.bay))
    step = (z1 - z0) / bays
    for i in reversed(range(bays)):  # in pieces, so that the air thickens along the wall
        near, far = z0 + i * step, z0 + (i + 1) * step
        corners = [(x, 0.0, near), (x, 0.0, far), (x, height, far), (x, height, near)]
        canvas.polygon(corners, Label.BUILDING, style.wall, facing, style.texture)
    _windows(canvas, lambda u, y: (x, y, z0 + u), 0.0, z1 - z0, style, rng, facing=facing, has_door=True)
    _band(canvas, lambda u, y: (x, y, z0 + u), z1 - z0, height - 0.35, height, style.trim, facing)
    _band(canvas, lambda u, y: (x, y, z0 + u), z1 - z0, 0.0, 0.45, scaled(style.wall, 0.62), facing)
    if style.has_shop:
        _awning(canvas, x, outward, z0, z1, style)


def _band(canvas: Canvas, wall: Wall, length: float, y0: float, y1: float, colour: Colour, facing: str) -> None:
    corners = [wall(0, y0), wall(length, y0), wall(length, y1), wall(0, y1)]
    canvas.polygon(corners, Label.BUILDING, colour, facing, Texture.PLASTER)


def _awning(canvas: Canvas, x: float, outward: int, z0: float, z1: float, style: Style) -> None:
    top, low, reach = style.floor_height - 0.25, style.floor_height - 0.85, 1.0
    if z0 < 1.5:
        return
    stripes = max(2, int((z1 - z0 - 0.8) / 0.5))
    step = (z1 - z0 - 0.8) / stripes
    for i in reversed(range(stripes)):
        near, far = z0 + 0.4 + i * step, z0 + 0.4 + (i + 1) * step
        colour = style.awning if i % 2 else (226, 222, 214)
        edge = x - outward * reach
        corners = [(x, top, near), (x, top, far), (edge, low, far), (edge, low, near)]
        canvas.polygon(corners, Label.BUILDING, scaled(colour, 0.8), "front")
        hem = [(edge, low, near), (edge, low, far), (edge, low - 0.2, far), (edge, low - 0.2, near)]
        canvas.polygon(hem, Label.BUILDING, colour, "front")


def _windows(
    canvas: Canvas,
    wall: Wall,
    u0: float,
    u1: float,
    style: Style,
    rng: np.random.Generator,
    *,
    facing: str,
    has_door: bool,
) -> None:
    """Paint the bays of a facade: windows, a door, a shop's glass."""
    bays = max(1, round((u1 - u0) / style.bay))
    bay = (u1 - u0) / bays
    door_bay = int(rng.integers(bays)) if has_door else -1
    seed = int(rng.integers(1 << 30))
    height, width = style.window
    width = min(width, 0.75 * bay)
    for i in reversed(range(bays)):
        middle = u0 + (i + 0.5) * bay
        scale = canvas.camera.px_per_m(wall(middle, 1)[2])
        if scale * width < 1.5:
            continue
        for floor in range(style.floors):
            base = floor * style.floor_height
            mood = (seed >> ((i * 5 + floor * 3) % 27)) & 7
            if floor == 0 and i == door_bay:
                _door(canvas, wall, middle, style, facing, scale)
            elif floor == 0 and style.has_shop:
                box = (middle - 0.44 * bay, middle + 0.44 * bay, 0.5, style.floor_height - 0.9)
                _window(canvas, wall, box, style, facing, scale, mood | 4)
            else:
                sill = base + 0.95
                box = (middle - width / 2, middle + width / 2, sill, sill + height)
                _window(canvas, wall, box, style, facing, scale, mood)


def _window(
    canvas: Canvas,
    wall: Wall,
    box: tuple[float, float, float, float],
    style: Style,
    facing: str,
    scale: float,
    mood: int,
) -> None:
    """A window: frame, glass, what is behind or mirrored in it; fewer parts where they would be less than a pixel."""
    u0, u1, y0, y1 = box
    light = canvas.light
    glass: Colour = (52 + 5 * mood, 60 + 6 * mood, 70 + 6 * mood)
    if light.is_dusk and mood in (1, 3, 6):
        glass = (250, 206, 128)

    def quad(a0: float, a1: float, b0: float, b1: float, colour: Colour) -> None:
        corners = [wall(a0, b0), wall(a1, b0), wall(a1, b1), wall(a0, b1)]
        canvas.polygon(corners, Label.BUILDING, colour, facing)

    if scale < 12:
        quad(u0, u1, y0, y1, glass)
        return
    quad(u0 - 0.1, u1 + 0.1, y0 - 0.12, y1 + 0.1, style.trim)
    quad(u0, u1, y0, y1, glass)
    if scale < 36:
        return
    sky = light.horizon
    mirrored = (glass[0] * 0.6 + sky[0] * 0.3, glass[1] * 0.6 + sky[1] * 0.3, glass[2] * 0.6 + sky[2] * 0.3)
    quad(u0, u1, y1 - (y1 - y0) * (0.28 + 0.06 * mood), y1, mirrored)
    if mood in (2, 5):  # curtains
        for a0, a1 in ((u0, u0 + 0.24 * (u1 - u0)), (u1 - 0.24 * (u1 - u0), u1)):
            quad(a0, a1, y0, y1, (196, 190, 178))
    bar = 0.035
    middle = (u0 + u1) / 2
    quad(middle - bar, middle + bar, y0, y1, style.trim)
    quad(u0, u1, y0 + 0.62 * (y1 - y0) - bar, y0 + 0.62 * (y1 - y0) + bar, style.trim)
    quad(u0 - 0.16, u1 + 0.16, y0 - 0.2, y0 - 0.08, scaled(style.trim, 0.8))
    if style.has_shutters:
        leaf = 0.42 * (u1 - u0)
        for a0, a1 in ((u0 - 0.1 - leaf, u0 - 0.1), (u1 + 0.1, u1 + 0.1 + leaf)):
            quad(a0, a1, y0 - 0.1, y1 + 0.1, style.door)


def _door(canvas: Canvas, wall: Wall, middle: float, style: Style, facing: str, scale: float) -> None:
    width, height = 1.1, 2.25

    def quad(a0: float, a1: float, b0: float, b1: float, label: Label, colour: Colour) -> None:
        corners = [wall(a0, b0), wall(a1, b0), wall(a1, b1), wall(a0, b1)]
        canvas.polygon(corners, label, colour, facing, Texture.PLANKS if label is Label.DOOR else Texture.FLAT)

    quad(middle - width / 2 - 0.14, middle + width / 2 + 0.14, 0, height + 0.5, Label.BUILDING, style.trim)
    quad(middle - width / 2, middle + width / 2, height, height + 0.36, Label.BUILDING, (66, 74, 84))
    quad(middle - width / 2, middle + width / 2, 0.08, height, Label.DOOR, style.door)
    if scale > 22:
        quad(middle - 0.3, middle + 0.3, 1.3, 2.0, Label.DOOR, scaled(style.door, 0.6))
        quad(middle - 0.42, middle + 0.42, 0.3, 1.05, Label.DOOR, scaled(style.door, 1.18))
        quad(middle + 0.38, middle + 0.46, 1.0, 1.22, Label.DOOR, (208, 190, 120))
    quad(middle - 0.75, middle + 0.75, 0, 0.1, Label.BUILDING, (150, 146, 140))


def draw_wall(
    canvas: Canvas, x: float, outward: int, z0: float, z1: float, rng: np.random.Generator, *, height: float
) -> None:
    """A garden wall with coping along the street."""
    kind = rng.random()
    colour, texture = (
        (pick(rng, _BRICK), Texture.BRICK)
        if kind < 0.45
        else (pick(rng, _STONE), Texture.STONE)
        if kind < 0.75
        else (pick(rng, _PLASTER), Texture.CONCRETE)
    )
    profile = [(z0, 0.0), (z1, 0.0), (z1, height), (z0, height)]
    colours: list[Colour] = [colour, colour, scaled(colour, 1.1), colour]
    canvas.prism(lambda a, u, w: (x + outward * 0.15 - w, u, a), profile, 0.15, Label.WALL, colours, colour, texture)
    cap = [(z0 - 0.05, height), (z1, height), (z1, height + 0.1), (z0 - 0.05, height + 0.1)]
    tone = scaled(colour, 0.85)
    canvas.prism(
        lambda a, u, w: (x + outward * 0.15 - w, u, a), cap, 0.2, Label.WALL, [tone] * 4, tone, Texture.CONCRETE
    )


def draw_fence(canvas: Canvas, x: float, z0: float, z1: float, rng: np.random.Generator) -> None:
    """A fence or a guard rail along the street: pickets, bars, boards or a rail on posts; one sees through it."""
    kind = int(rng.integers(4))
    colour: Colour = pick(rng, [(70, 74, 70), (52, 56, 60), (176, 170, 158), (124, 94, 66), (146, 150, 152)])
    facing = "right" if x * canvas.camera.mirror < 0 else "left"

    def board(a0: float, a1: float, y0: float, y1: float, tone: float, texture: Texture = Texture.FLAT) -> None:
        corners = [(x, y0, a0), (x, y0, a1), (x, y1, a1), (x, y1, a0)]
        canvas.polygon(corners, Label.FENCE, scaled(colour, tone), facing, texture)

    if kind == 0:  # boards, closed
        height = between(rng, 1.2, 1.9)
        z = z1
        while z > z0:
            near = max(z - 2.0, z0)
            board(near, z, 0.05, height, 1.0, Texture.PLANKS)
            board(near, near + 0.1, 0.0, height + 0.08, 0.75)
            z = near
        return
    if kind == 3:  # a guard rail
        colour = (166, 170, 174)
        z = z1
        while z > z0:
            near = max(z - 2.0, z0)
            board(near, near + 0.12, 0.0, 0.62, 0.6)
            for y0, y1, tone in ((0.42, 0.5, 0.8), (0.5, 0.6, 1.12), (0.6, 0.66, 0.7), (0.66, 0.74, 1.05)):
                board(near, z, y0, y1, tone)
            z = near
        return
    height, spacing, thickness = (1.0, 0.18, 0.09) if kind == 1 else (between(rng, 1.2, 1.8), 0.14, 0.028)
    for y in (0.22, height - 0.15):
        board(z0, z1, y, y + 0.07, 0.85)
    z = z1
    while z > z0:
        px = canvas.camera.fx * abs(x) / z**2  # pixels a metre of fence takes
        step = spacing if px * spacing > 2.5 else spacing * max(1, round(3.0 / max(px * spacing, 1e-3)))
        board(z, z + thickness * max(1.0, step / spacing * 0.7), 0.05, height, 1.0)
        z -= min(step, 3.0)


def draw_stairs(canvas: Canvas, x: float, outward: int, z: float, rng: np.random.Generator) -> None:
    """Steps up to a house, seen from the side or from below, with a hand rail."""
    steps = int(rng.integers(3, 8))
    tread, rise, half = 0.3, 0.17, between(rng, 0.7, 1.3)
    colour: Colour = pick(rng, [(168, 164, 158), (150, 140, 128), (186, 180, 170)])
    for i in range(steps):  # the highest, at the wall, comes first
        level = steps - i
        depth = (i + 1) * tread
        profile = [(0.0, 0.0), (depth, 0.0), (depth, level * rise), (0.0, level * rise)]
        tones = [colour, scaled(colour, 0.72), scaled(colour, 1.12), colour]
        canvas.prism(
            lambda a, u, w: (x - outward * a, u, z - w), profile, half, Label.STAIRS, tones, scaled(colour, 0.82)
        )
        near, top = z - half, level * rise
        edge = [
            (x, top, near),
            (x - outward * depth, top, near),
            (x - outward * depth, top - 0.035, near),
            (x, top - 0.035, near),
        ]
        canvas.polygon(edge, Label.STAIRS, scaled(colour, 1.15), "front")


def draw_bridge(canvas: Canvas, left: float, right: float, z: float, rng: np.random.Generator) -> None:
    """A bridge over the street with piers and a parapet."""
    colour: Colour = pick(rng, [(158, 154, 148), (132, 130, 128), (150, 98, 80), (116, 128, 122)])
    texture = Texture.BRICK if colour[0] == 150 else pick(rng, [Texture.CONCRETE, Texture.STONE])
    low, high, width = between(rng, 4.4, 5.6), between(rng, 6.4, 7.8), between(rng, 4, 9)
    for x in (left + 0.4, right - 0.6, (left + right) / 2 + 2) if chance(rng, 0.4) else (left + 0.4, right - 0.6):
        profile = [(z, 0.0), (z + width, 0.0), (z + width, low), (z, low)]
        canvas.prism(_along(x), profile, 0.6, Label.BRIDGE, [colour] * 4, scaled(colour, 0.7), texture)
    profile = [(z, low), (z + width, low), (z + width, high), (z, high)]
    tones = [scaled(colour, 0.5), colour, colour, colour]
    canvas.prism(_along((left + right) / 2), profile, (right - left) / 2 + 14, Label.BRIDGE, tones, colour, texture)
    span = (left - 14, right + 14)
    for y0, y1, tone in ((high - 0.25, high, 1.16), (low, low + 0.18, 0.62), (high + 0.85, high + 0.95, 0.6)):
        corners = [(span[0], y0, z), (span[1], y0, z), (span[1], y1, z), (span[0], y1, z)]
        canvas.polygon(corners, Label.BRIDGE, scaled(colour, tone), "front")
    x = span[0]
    while x < span[1]:
        canvas.post(x, high, high + 0.9, z, 0.07, Label.BRIDGE, scaled(colour, 0.6))
        x += 0.9


def draw_tunnel(canvas: Canvas, left: float, right: float, z: float, rng: np.random.Generator) -> None:
    """A hillside or an embankment that closes the street, with a tunnel's mouth and what little shows inside."""
    colour = pick(rng, [*_STONE, *_BRICK[:3]])
    texture = pick(rng, [Texture.STONE, Texture.BRICK])
    height, rise = between(rng, 7.5, 11), between(rng, 4.6, 5.8)
    face = [(left - 40, 0.0, z), (right + 40, 0.0, z), (right + 40, height, z), (left - 40, height, z)]
    canvas.polygon(face, Label.WALL, colour, "front", texture)
    middle, half = (left + right) / 2 + 0.5, (right - left) / 2 - 1.2
    for grow, label, tone in ((0.7, Label.TUNNEL, 0.8), (0.0, Label.TUNNEL, 0.0)):
        arch = [(middle - half - grow, 0.0, z), (middle - half - grow, rise * 0.45, z)]
        for i in range(1, 12):
            t = i / 12
            bend = 4 * t * (1 - t)
            arch.append((middle - half - grow + 2 * (half + grow) * t, rise * (0.45 + 0.55 * bend**0.7) + grow, z))
        arch += [(middle + half + grow, rise * 0.45, z), (middle + half + grow, 0.0, z)]
        canvas.polygon(arch, label, scaled(colour, tone) if tone else (34, 32, 32), "front")
    for i in range(-2, 3):  # lamps inside
        x = middle + i * half * 0.3
        lamp = [
            (x - 0.3, rise * 0.8, z),
            (x + 0.3, rise * 0.8, z),
            (x + 0.3, rise * 0.8 + 0.16, z),
            (x - 0.3, rise * 0.8 + 0.16, z),
        ]
        canvas.polygon(lamp, Label.TUNNEL, (250, 214, 140), "front")


def draw_end_house(canvas: Canvas, left: float, right: float, z: float, rng: np.random.Generator) -> None:
    """Houses across the end of the street."""
    x = left - 30
    while x < right + 30:
        style = sample_style(rng)
        width = between(rng, 8, 18)
        base = x
        roof = between(rng, 1.5, 4) if style.has_gable else 0.0
        top = style.height
        face = [(x, 0.0, z), (x, top, z), (x + width, top, z), (x + width, 0.0, z)]
        if roof:
            slope = [(x - 0.3, top, z), (x + width * 0.2, top + roof, z), (x + width * 0.8, top + roof, z)]
            canvas.polygon([*slope, (x + width + 0.3, top, z)], Label.BUILDING, style.roof, "front", Texture.SLABS)
        canvas.polygon(face, Label.BUILDING, style.wall, "front", style.texture)
        wall = _front_wall(base, z)
        _windows(canvas, wall, 0.0, width, style, rng, facing="front", has_door=True)
        x += width


def _front_wall(x: float, z: float) -> Wall:
    return lambda u, y: (x + u, y, z)


def _along(x: float) -> Callable[[float, float, float], Point]:
    return lambda a, u, w: (x + w, u, a)
