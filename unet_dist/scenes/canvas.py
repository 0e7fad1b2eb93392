"""The picture and the label map of a scene, drawn together: a polygon in metres becomes the same pixels of both.

Owns projection, shading and shadows. Must not know what a street holds. X points right, Y up, Z along the street; the ground
is Y = 0 and the eye is at (0, eye, 0), looking along Z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from unet_dist.scenes.classes import Label

Point = tuple[float, float, float]
Pixel = tuple[float, float]
Colour = tuple[int, int, int]

NEAR_M = 0.4
_SHADED = 0.62
"""Share of the light that reaches the ground in a shadow."""
_HAZE: Colour = (196, 206, 216)
_HAZE_M = 170.0
_SMOOTHED_PIXELS = 540 * 960
"""Up to this size a picture is drawn at twice its sides and halved, for smooth outlines; larger ones are as they come."""


@dataclass(frozen=True)
class Camera:
    """Where the picture's centre of projection lies.

    fx and fy differ unless the picture is 16:9: another shape is the same composition, squeezed.
    """

    cx: float  # column of the vanishing point, px
    cy: float  # row of the horizon, px
    fx: float  # px
    fy: float  # px
    eye: float  # metres above the ground

    def project(self, points: Sequence[Point]) -> list[Pixel]:
        """Project a polygon (metres) to (column, row); empty where it lies behind the near plane."""
        if any(point[2] < NEAR_M for point in points):
            points = _clip_near(points)
        return [(self.cx + self.fx * x / z, self.cy + self.fy * (self.eye - y) / z) for x, y, z in points]


class Canvas:
    """A picture and a label map in the making.

    Args:
        height, width: of the finished picture, px.
        zoom: focal length over the picture's height.
        horizon, middle: of the vanishing point, shares of height and width.
        eye: metres above the ground.
        sun: -1 where it stands at the left, 1 at the right.
    """

    def __init__(
        self, height: int, width: int, *, zoom: float, horizon: float, middle: float, eye: float, sun: int
    ) -> None:
        self._halving = 2 if height * width <= _SMOOTHED_PIXELS else 1
        self.height, self.width, self.sun = height * self._halving, width * self._halving, sun
        self.camera = Camera(
            self.width * middle, self.height * horizon, zoom * self.width * 9 / 16, zoom * self.height, eye
        )
        self.image = Image.new("RGB", (self.width, self.height))
        self.labels = Image.new("L", (self.width, self.height))
        self._paint, self._mark = ImageDraw.Draw(self.image), ImageDraw.Draw(self.labels)

    def polygon(self, points: Sequence[Point], label: Label | None, colour: Colour, light: float = 1.0) -> None:
        """Draw a polygon in metres; `label` None leaves the labels below as they are, for details of a thing."""
        pixels = self.camera.project(points)
        if len(pixels) >= 3:
            self.outline(pixels, label, self.lit(colour, light, min(point[2] for point in points)))

    def outline(self, pixels: Sequence[Pixel], label: Label | None, colour: Colour) -> None:
        """Draw a polygon of (column, row)."""
        columns, rows = [column for column, _ in pixels], [row for _, row in pixels]
        if max(columns) < 0 or min(columns) >= self.width or max(rows) < 0 or min(rows) >= self.height:
            return
        self._paint.polygon(pixels, fill=colour)
        if label is not None:
            self._mark.polygon(pixels, fill=int(label))

    def lit(self, colour: Colour, light: float, z: float) -> Colour:
        """A colour in this light, in the haze of its distance."""
        haze = min(max(z, 0.0) / _HAZE_M, 0.6)
        gain = light * (1 - haze)
        return tuple(min(int(c * gain + h * haze), 255) for c, h in zip(colour, _HAZE, strict=True))  # type: ignore[return-value]

    def side_light(self, outward: float) -> float:
        """The light on a wall that stands right (outward > 0) or left of the street and faces it."""
        return 0.74 if outward * self.sun > 0 else 1.06

    def ground(
        self, x0: float, x1: float, z0: float, z1: float, label: Label | None, colour: Colour, light: float = 1.0
    ) -> None:
        """Draw a rectangle of the ground."""
        self.polygon([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)], label, colour, light)

    def upright(
        self,
        x0: float,
        x1: float,
        y0: float,
        y1: float,
        z: float,
        label: Label | None,
        colour: Colour,
        light: float = 1.0,
    ) -> None:
        """Draw a rectangle that faces the eye."""
        self.polygon([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], label, colour, light)

    def along(
        self,
        x: float,
        y0: float,
        y1: float,
        z0: float,
        z1: float,
        label: Label | None,
        colour: Colour,
        light: float = 1.0,
    ) -> None:
        """Draw a rectangle that stands along the street."""
        self.polygon([(x, y0, z0), (x, y0, z1), (x, y1, z1), (x, y1, z0)], label, colour, light)

    def box(
        self, x0: float, x1: float, y0: float, y1: float, z0: float, z1: float, label: Label, colour: Colour
    ) -> float:
        """Draw the faces of a box that the eye sees; return the x of the one along the street."""
        if y1 < self.camera.eye:
            self.polygon([(x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)], label, colour, 1.16)
        side = x0 if x0 + x1 > 0 else x1
        if side * (x0 + x1) > 0:
            self.along(side, y0, y1, z0, z1, label, colour, self.side_light(side))
        self.upright(x0, x1, y0, y1, z0, label, colour, 0.92)
        return side

    def ellipse(
        self,
        x: float,
        y: float,
        z: float,
        across: float,
        up: float,
        label: Label | None,
        colour: Colour,
        light: float = 1.0,
    ) -> None:
        """Draw an ellipse that faces the eye, of the half axes `across` and `up` metres."""
        if z < NEAR_M:
            return
        camera = self.camera
        column, row = camera.cx + camera.fx * x / z, camera.cy + camera.fy * (camera.eye - y) / z
        half, rise = max(camera.fx * across / z, 0.5), max(camera.fy * up / z, 0.5)
        box = (column - half, row - rise, column + half, row + rise)
        if box[2] < 0 or box[0] >= self.width or box[3] < 0 or box[1] >= self.height:
            return
        self._paint.ellipse(box, fill=self.lit(colour, light, z))
        if label is not None:
            self._mark.ellipse(box, fill=int(label))

    def wheel(self, x: float, z: float, radius: float, label: Label) -> None:
        """Draw a wheel on the ground, in a plane along the street."""
        for share, colour in ((1.0, (28, 28, 30)), (0.55, (150, 152, 156))):
            angles = [2 * math.pi * step / 12 for step in range(12)]
            rim = [(x, radius * (1 + share * math.sin(a)), z + share * radius * math.cos(a)) for a in angles]
            self.polygon(rim, label, colour)

    def shade(self, patches: Sequence[Sequence[Point]]) -> None:
        """Darken polygons of the ground, each spot once: drawn after the ground and before what stands on it."""
        mask = Image.new("L", (self.width, self.height))
        draw = ImageDraw.Draw(mask)
        for patch in patches:
            pixels = self.camera.project(patch)
            if len(pixels) >= 3:
                draw.polygon(pixels, fill=255)
        self.image.paste(self.image.point([int(value * _SHADED) for value in range(256)] * 3), (0, 0), mask)

    def finish(self, rng: np.random.Generator, *, is_mirrored: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Halve, tint and roughen: the picture (height, width, 3) and the label map (height, width), uint8."""
        step = self._halving
        image = self.image.reduce(step) if step > 1 else self.image
        blotches = Image.fromarray(rng.integers(0, 255, (18, 32), dtype=np.uint8)).resize(
            image.size, Image.Resampling.BICUBIC
        )
        tint = rng.uniform(0.84, 1.08) * rng.uniform(0.97, 1.03, 3)
        pixels = np.asarray(image)
        grain = rng.integers(-7, 8, image.size[::-1], dtype=np.int16) + np.asarray(blotches, dtype=np.int16) // 20 - 6
        gains = (tint * 256).astype(np.int32)
        toned = np.clip((pixels * gains >> 8) + grain[:, :, None], 0, 255).astype(np.uint8)
        marks = np.asarray(self.labels)[step - 1 :: step, step - 1 :: step]
        if is_mirrored:
            toned, marks = toned[:, ::-1], marks[:, ::-1]
        return np.ascontiguousarray(toned), np.array(marks)


def _clip_near(points: Sequence[Point]) -> list[Point]:
    """Cut a polygon at the near plane (Sutherland and Hodgman 1974, one plane)."""
    kept: list[Point] = []
    previous = points[-1]
    for point in points:
        if (point[2] >= NEAR_M) != (previous[2] >= NEAR_M):
            t = (NEAR_M - previous[2]) / (point[2] - previous[2])
            x, y = (a + t * (b - a) for a, b in zip(previous[:2], point[:2], strict=True))
            kept.append((x, y, NEAR_M))
        if point[2] >= NEAR_M:
            kept.append(point)
        previous = point
    return kept
