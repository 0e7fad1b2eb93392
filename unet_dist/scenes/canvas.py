"""The one buffer that a scene is drawn into.

Owns the visibility buffer: an integer per pixel that names the surface seen there. Label and picture are both looked up
from it (develop.py), so an object's outline in the label is its outline in the picture, to the pixel. Nothing here
knows what a car is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import IntEnum

import numpy as np
from PIL import Image, ImageDraw

from unet_dist.scenes.camera import Camera, Pixel, Point
from unet_dist.scenes.classes import Label
from unet_dist.scenes.light import Colour, Light
from unet_dist.scenes.textures import NUM_LEVELS, TEXEL_M, TILE, Texture, crowns, leaf_noise

Place = Callable[[float, float, float], Point]  # (along, up, across) in metres -> a point in the street


class Plane(IntEnum):
    """How a surface's texture is laid on the picture."""

    NONE = 0
    GROUND = 1
    SIDE = 2  # a wall along the street
    FRONT = 3  # faces the camera
    SKY = 4


Surface = tuple[int, tuple[int, int, int], int, int, float]  # label, colour, plane, texture, depth or |X| in metres

_SHADE_SCALE = 4  # the ground's shadows are soft: a quarter of the resolution holds them


class Canvas:
    """Draws polygons, in metres, from far to near."""

    def __init__(self, camera: Camera, light: Light) -> None:
        self.camera = camera
        self.light = light
        self.surfaces: list[Surface] = [(int(Label.SKY), (0, 0, 0), Plane.SKY, Texture.FLAT, 0.0)]
        self._known: dict[Surface, int] = {self.surfaces[0]: 0}
        self._mixed: dict[tuple[Label, Colour, str, Texture, Plane, float, float], int] = {}
        self.visible = Image.new("I", (camera.width, camera.height), 0)
        self._draw = ImageDraw.Draw(self.visible)
        shade_size = (-(-camera.width // _SHADE_SCALE), -(-camera.height // _SHADE_SCALE))
        self.shade = Image.new("L", shade_size, 255)
        self._shade_draw = ImageDraw.Draw(self.shade)

    def surface(self, label: Label, colour: tuple[int, int, int], plane: Plane, texture: Texture, at_m: float) -> int:
        """The id of a surface in the buffer."""
        if texture is Texture.FLAT and plane is not Plane.GROUND:
            plane, at_m = Plane.NONE, 0.0
        key = (int(label), colour, plane, texture, round(at_m, 1))
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = len(self.surfaces)
            self.surfaces.append(key)
        return known

    def polygon(
        self,
        points: Sequence[Point],
        label: Label,
        colour: Colour,
        facing: str = "front",
        texture: Texture = Texture.FLAT,
        plane: Plane | None = None,
    ) -> None:
        """Paint a polygon in the street (metres); `facing` picks its light and, unless `plane` says, its texture's plane."""
        pixels = self.camera.project(points)
        if len(pixels) < 3 or not self._is_seen(pixels):
            return
        z = round(sum([p[2] for p in points]) / len(points), 1 if points[0][2] < 20 else 0)
        if plane is None:
            plane = Plane.SIDE if facing in ("left", "right") else Plane.FRONT
        at_m = round(abs(points[0][0]), 1) if plane is Plane.SIDE else z
        key = (label, colour, facing, texture, plane, z, at_m)
        surface = self._mixed.get(key)
        if surface is None:
            if plane is Plane.GROUND:  # its haze depends on the row: develop.py adds it
                z = at_m = 0.0
            surface = self._mixed[key] = self.surface(label, self.light.shade(colour, facing, z), plane, texture, at_m)
        self._draw.polygon(pixels, fill=surface)

    def _is_seen(self, pixels: Sequence[Pixel]) -> bool:
        columns, rows = [p[0] for p in pixels], [p[1] for p in pixels]
        camera = self.camera
        left, right, top, bottom = min(columns), max(columns), min(rows), max(rows)
        if left == right and top == bottom:  # a pixel at most: a detail of something larger
            return False
        return right >= 0 and left < camera.width and bottom >= 0 and top < camera.height

    def ground(
        self, x0: float, x1: float, z0: float, z1: float, label: Label, colour: Colour, texture: Texture = Texture.FLAT
    ) -> None:
        """Paint a rectangle of the ground."""
        corners = [(x0, 0.0, z0), (x1, 0.0, z0), (x1, 0.0, z1), (x0, 0.0, z1)]
        self.polygon(corners, label, colour, "up", texture, Plane.GROUND)

    def post(self, x: float, y0: float, y1: float, z: float, width_m: float, label: Label, colour: Colour) -> None:
        """Paint an upright round bar, at least one pixel wide: light on one side, dark on the other."""
        (column, bottom), (_, top) = self.camera.project([(x, y0, z), (x, y1, z)])
        width = max(1, round(width_m * self.camera.fx / z))
        if top > bottom or column + width < 0 or column - width > self.camera.width:
            return
        left = column - width // 2
        tones = [(0.0, 1.0)] if width < 3 else [(0.0, 0.8), (0.2, 1.1), (0.55, 0.8), (0.8, 0.6)]
        for start, gain in tones:
            shaded = self.light.shade((colour[0] * gain, colour[1] * gain, colour[2] * gain), "front", z)
            box = (left + int(start * width), top, left + width - 1, bottom)
            self._draw.rectangle(box, fill=self.surface(label, shaded, Plane.NONE, Texture.FLAT, 0.0))

    def crown(
        self, x: float, y: float, z: float, width_m: float, height_m: float, colour: Colour, kind: int, where: int
    ) -> None:
        """Paint a tree's crown or a bush around (x, y): `kind` picks the template, `where` its fraying."""
        camera = self.camera
        scale_x, scale_y = camera.fx / z, camera.fy / z
        size = (max(2, int(width_m * scale_x)), max(2, int(height_m * scale_y)))
        column = int(camera.cx + camera.mirror * x * scale_x) - size[0] // 2
        row = int(camera.cy + (camera.eye - y) * scale_y) - size[1] // 2
        left, top = max(column, 0), max(row, 0)
        right, bottom = min(column + size[0], camera.width), min(row + size[1], camera.height)
        if right <= left or bottom <= top or z < 0.8:
            return
        sizes = crowns()[kind % len(crowns())]
        template = next((t for t in reversed(sizes) if t.width >= size[0]), sizes[0])
        across, down = template.width / size[0], template.height / size[1]
        box = ((left - column) * across, (top - row) * down, (right - column) * across, (bottom - row) * down)
        tufts = template.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=box)
        noise = leaf_noise()
        step = max(1, round(size[1] and TILE / (8 * size[1])))  # small crowns fray as much as large ones
        rows = (np.arange(bottom - top) * step + where) % TILE
        columns = (np.arange(right - left) * step + 7 * where) % TILE
        lit = np.asarray(tufts, dtype=np.int16)
        lit = np.where(lit > 8, lit + noise[rows[:, None], columns[None, :]], 0)
        for threshold, gain in ((38, 0.48), (92, 0.72), (140, 0.98), (186, 1.2)):
            shaded = self.light.shade((colour[0] * gain, colour[1] * gain, colour[2] * gain), "up", z)
            surface = self.surface(Label.VEGETATION, shaded, Plane.FRONT, Texture.FOLIAGE, z)
            self.visible.paste(surface, (left, top), Image.fromarray(lit > threshold))

    def cast(self, points: Sequence[Point], gain: float) -> None:
        """Set the light on a polygon of the ground; what is cast last counts, so cast wide shadows first."""
        pixels = self.camera.project(points)
        if len(pixels) >= 3:
            small = [(column // _SHADE_SCALE, row // _SHADE_SCALE) for column, row in pixels]
            self._shade_draw.polygon(small, fill=int(255 * gain))

    def prism(
        self,
        place: Place,
        profile: Sequence[tuple[float, float]],
        half_width: float,
        label: Label,
        colours: Sequence[Colour],
        side_colour: Colour,
        texture: Texture = Texture.FLAT,
    ) -> None:
        """Paint a profile (along, up), counter-clockwise seen from across > 0, drawn out across: edges, then sides.

        `colours[i]` is that of the edge from point i to point i + 1. Faces turned away are left out, so a convex
        profile needs no sorting.
        """
        for i, (a0, u0) in enumerate(profile):
            a1, u1 = profile[(i + 1) % len(profile)]
            normal = (u1 - u0, a0 - a1)
            corners = [place(a0, u0, -half_width), place(a1, u1, -half_width), place(a1, u1, half_width)]
            corners.append(place(a0, u0, half_width))
            self.face(corners, _difference(place(normal[0], normal[1], 0), place(0, 0, 0)), label, colours[i], texture)
        for across in (-half_width, half_width):
            corners = [place(a, u, across) for a, u in profile]
            self.face(corners, _difference(place(0, 0, across), place(0, 0, 0)), label, side_colour, texture)

    def face(
        self, corners: Sequence[Point], normal: Point, label: Label, colour: Colour, texture: Texture = Texture.FLAT
    ) -> bool:
        """Paint a flat face if its normal looks at the eye; say whether it did."""
        x, y, z = corners[0]
        if -x * normal[0] + (self.camera.eye - y) * normal[1] - z * normal[2] <= 0:
            return False
        self.polygon(corners, label, colour, facing_of(normal, self.camera.mirror), texture)
        return True


def facing_of(normal: Point, mirror: int) -> str:
    """The name of the direction a normal mostly points to, as seen in the picture."""
    x, y, z = normal
    if abs(y) > max(abs(x), abs(z)) * 0.8:
        return "up" if y > 0 else "down"
    if abs(z) >= abs(x):
        return "front"
    return "right" if x * mirror > 0 else "left"


def _difference(a: Point, b: Point) -> Point:
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2])


def mip_level(texels_per_px: float) -> float:
    """The mip level whose texels are about a pixel."""
    return min(max(math.log2(max(texels_per_px, 1e-6)), 0.0), NUM_LEVELS - 1.0)


def front_level(camera: Camera, z: float) -> int:
    """The mip level of a surface that faces the camera at depth z."""
    return round(mip_level(z / camera.fy / TEXEL_M))
