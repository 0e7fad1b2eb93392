"""Puts a street together: samples its strips and what stands on them, and draws it from far to near.

Strips run along the street. What stands on them is drawn from the outermost strip inwards and there from the farthest to the
nearest: on any line of sight the distance from the eye's plane grows with depth, so that nearer things cover farther ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unet_dist.scenes import buildings, furniture, people, vehicles
from unet_dist.scenes.canvas import Canvas, Colour, Point
from unet_dist.scenes.classes import Label

_NEAR = 0.3
_FAR = 400.0
_GROUND: dict[Label, Colour] = {
    Label.ROAD: (92, 94, 100),
    Label.SIDEWALK: (188, 180, 170),
    Label.CURB: (232, 230, 224),
    Label.CYCLING_LANE: (176, 84, 70),
    Label.PARKING: (126, 120, 138),
    Label.RAIL_TRACK: (122, 98, 74),
    Label.TERRAIN: (140, 150, 78),
}
_CROWD_M = (4.5, 21.0)
"""Depths at which walkers stand: 20 px and more of a picture with 270 rows."""

Draw = Callable[[Canvas, np.random.Generator, float, float], None]


def render_scene(rng: np.random.Generator, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw the scene that `rng` holds: the picture (height, width, 3) and the label map (height, width), uint8."""
    canvas = Canvas(
        height, width, zoom=rng.uniform(1.0, 1.3), horizon=rng.uniform(0.38, 0.5), middle=rng.uniform(0.4, 0.6),
        eye=rng.uniform(1.4, 1.9), sun=int(rng.choice([-1, 1])),
    )  # fmt: skip
    street = _sample_street(rng)
    is_mirrored = bool(rng.random() < 0.5)
    _draw_sky(canvas, rng)
    _draw_ground(canvas, rng, street)
    things = _Things(street, rng)
    canvas.shade(things.shadows(canvas.sun))
    _draw_end(canvas, rng, street)
    things.draw(canvas)
    return canvas.finish(rng, is_mirrored=is_mirrored)


@dataclass(frozen=True)
class Strip:
    """A part of the ground along the street, metres; side -1 lies beyond the road, 1 at the eye's side, 0 is the road."""

    label: Label
    x0: float
    x1: float
    side: int

    @property
    def middle(self) -> float:
        """The column halfway between the sides."""
        return (self.x0 + self.x1) / 2


@dataclass(frozen=True)
class Street:
    """Strips from left to right, the depth where the street ends, and a crosswalk's depth, if there is one."""

    strips: list[Strip]
    end: float
    crosswalk: float | None

    @property
    def left(self) -> float:
        """The column where the street begins."""
        return self.strips[0].x0

    @property
    def right(self) -> float:
        """The column where the street ends."""
        return self.strips[-1].x1

    def of(self, label: Label) -> list[Strip]:
        """The strips of a class."""
        return [strip for strip in self.strips if strip.label == label]


def _sample_street(rng: np.random.Generator) -> Street:
    def maybe(probability: float, label: Label, width: float, side: int) -> list[tuple[Label, float, int]]:
        return [(label, width, side)] if rng.random() < probability else []

    def curb(side: int) -> tuple[Label, float, int]:
        return Label.CURB, 0.4, side

    parts = [
        (Label.SIDEWALK, rng.uniform(2.6, 4.2), -1), *maybe(0.4, Label.TERRAIN, 1.5, -1), curb(-1),
        *maybe(0.45, Label.PARKING, 2.3, -1), (Label.ROAD, rng.uniform(6.2, 7.4), 0), *maybe(0.3, Label.RAIL_TRACK, 2.8, 0),
        *maybe(0.35, Label.PARKING, 2.3, 1), *maybe(0.5, Label.CYCLING_LANE, 1.9, 1), curb(1),
        *maybe(0.4, Label.TERRAIN, 1.5, 1), (Label.SIDEWALK, rng.uniform(3.0, 4.6), 1),
    ]  # fmt: skip
    total, road_end = sum(width for _, width, _ in parts), sum(width for _, width, side in parts if side < 1)
    edge = -rng.uniform(road_end - 2.5, total - 1.8)  # the eye stands between the near lane and the houses
    strips = []
    for label, width, side in parts:
        strips.append(Strip(label, edge, edge + width, side))
        edge += width
    return Street(strips, rng.uniform(45, 75), rng.uniform(4.5, 13) if rng.random() < 0.45 else None)


def _draw_sky(canvas: Canvas, rng: np.random.Generator) -> None:
    """Fill the picture with a sky that is lighter at the horizon, and a few clouds."""
    top, low = np.array(((64, 130, 214), (110, 164, 222), (168, 184, 200))[rng.integers(3)]), np.array((222, 232, 240))
    rows = np.clip(np.arange(canvas.height) / canvas.camera.cy, 0, 1)[:, None, None]
    gradient = (top * (1 - rows) + low * rows).astype(np.uint8)
    canvas.image.paste(Image.fromarray(gradient).resize(canvas.image.size))
    canvas.labels.paste(int(Label.SKY), (0, 0, canvas.width, canvas.height))
    for _ in range(rng.integers(2, 7)):
        x, y, long = rng.uniform(-190, 190), rng.uniform(40, 130), rng.uniform(10, 26)
        for part in range(5):
            at, size = x + (part - 2) * long * 0.45, rng.uniform(0.5, 1.0) * (1.2 - 0.3 * abs(part - 2))
            canvas.ellipse(at, y + size * 2, 200, long * 0.5 * size, 6.5 * size, None, (255, 255, 255), 1.0)


def _draw_ground(canvas: Canvas, rng: np.random.Generator, street: Street) -> None:
    canvas.ground(-_FAR, _FAR, _NEAR, _FAR, Label.TERRAIN, _GROUND[Label.TERRAIN], 0.92)
    for strip in street.strips:
        colour = _GROUND[strip.label]
        canvas.ground(strip.x0, strip.x1, _NEAR, street.end, strip.label, colour)
        if strip.label == Label.SIDEWALK:  # slabs
            for z in np.arange(1.0, 26.0, 0.9):
                canvas.ground(strip.x0, strip.x1, z, z + 0.03 + 0.002 * z, None, colour, 0.82)
            for x in np.arange(strip.x0 + 0.9, strip.x1, 0.9):
                canvas.ground(x, x + 0.04, _NEAR, 26, None, colour, 0.82)
        elif strip.label == Label.ROAD:
            for z in np.arange(rng.uniform(0, 6), street.end, 6.0):
                canvas.ground(strip.middle - 0.09, strip.middle + 0.09, z, z + 3, None, (236, 236, 230))
            for _ in range(4):  # patches of newer asphalt
                x, z = rng.uniform(strip.x0, strip.x1 - 1.5), rng.uniform(1, 25)
                canvas.ground(
                    x, x + rng.uniform(0.6, 1.5), z, z + rng.uniform(1, 4), None, colour, rng.uniform(0.82, 0.94)
                )
        elif strip.label == Label.CYCLING_LANE:
            canvas.ground(strip.x0, strip.x0 + 0.14, _NEAR, street.end, None, (240, 240, 236))
        elif strip.label == Label.PARKING:
            for z in np.arange(1.0, street.end, 5.6):
                canvas.ground(strip.x0, strip.x1, z, z + 0.16, None, (236, 236, 230))
        elif strip.label == Label.RAIL_TRACK:
            for z in np.arange(0.5, 40.0, 0.8):
                canvas.ground(strip.x0 + 0.2, strip.x1 - 0.2, z, z + 0.28, None, (78, 62, 52))
            for x in (strip.middle - 0.75, strip.middle + 0.67):
                canvas.ground(x, x + 0.1, _NEAR, street.end, None, (206, 208, 214))
        elif strip.label == Label.TERRAIN:
            _draw_grass(canvas, rng, strip.x0, strip.x1, street.end)
    for x0, x1 in ((street.left - 12, street.left), (street.right, street.right + 12)):
        _draw_grass(canvas, rng, x0, x1, street.end)
    if street.crosswalk is not None:
        for road in street.of(Label.ROAD):
            z0, z1 = street.crosswalk, street.crosswalk + 3.2
            canvas.ground(road.x0, road.x1, z0, z1, Label.CROSSWALK, _GROUND[Label.ROAD])
            for x in np.arange(road.x0 + 0.2, road.x1 - 0.3, 1.0):
                canvas.ground(x, x + 0.55, z0, z1, None, (244, 244, 240))


def _draw_grass(canvas: Canvas, rng: np.random.Generator, x0: float, x1: float, end: float) -> None:
    """Roughen grass by tufts of other greens."""
    for _ in range(70):
        x, z = rng.uniform(x0, x1), 1.2 + (end - 1.2) * rng.uniform(0, 1) ** 2
        wide = min(rng.uniform(0.1, 0.5), (x1 - x0) / 4)
        canvas.ground(
            max(x - wide, x0),
            min(x + wide, x1),
            z,
            z + 0.12 + 0.02 * z,
            None,
            _GROUND[Label.TERRAIN],
            rng.uniform(0.75, 1.2),
        )


def _draw_end(canvas: Canvas, rng: np.random.Generator, street: Street) -> None:
    """Close the view: a house across the street, or trees; far roofs rise behind."""
    for x in np.arange(-150, 150, 22.0):
        if rng.random() < 0.7:
            height = rng.uniform(8, 26)
            canvas.upright(x, x + rng.uniform(14, 24), 0, height, 150, Label.BUILDING, (150, 146, 150), 0.9)
    if rng.random() < 0.55:
        buildings.draw_house_across(canvas, rng, street.left - 14, street.right + 14, street.end)
    else:
        for x in rng.uniform(street.left - 14, street.right + 14, 14):
            furniture.draw_tree(canvas, rng, x, street.end + 1)


@dataclass(order=True)
class _Thing:
    """What waits for its turn: those with the lowest key come first."""

    key: tuple[float, float, int]
    draw: Callable[[Canvas], None] = field(compare=False)


class _Things:
    """What stands on a street's strips and along its sides."""

    def __init__(self, street: Street, rng: np.random.Generator) -> None:
        self._street, self._rng = street, rng
        self._things: list[_Thing] = []
        self._shadows: list[tuple[float, float, float, float, float]] = []  # x0, x1, z0, z1 and height, metres
        for side in (-1, 1):
            self._add_frontage(side)
            self._add_sidewalk(side)
        for strip in street.of(Label.PARKING):
            self._add_row(strip.middle, [(vehicles.draw_car, 0.94), (vehicles.draw_truck, 0.06)], gap=(0.9, 8.0))
        self._add_traffic()

    def draw(self, canvas: Canvas) -> None:
        """Draw everything, the hidden first."""
        for thing in sorted(self._things):
            thing.draw(canvas)

    def shadows(self, sun: int) -> list[Sequence[Point]]:
        """The shadows on the ground, away from the sun."""
        found: list[Sequence[Point]] = []
        for x0, x1, z0, z1, height in self._shadows:
            reach = -sun * 0.55 * height
            low, high = min(x0, x0 + reach), max(x1, x1 + reach)
            found.append([(low, 0, z0), (high, 0, z0), (high, 0, z1), (low, 0, z1)])
        return found

    def _add(
        self, lane: float, z: float, draw: Draw, x: float, *, shadow: tuple[float, float, float] | None = None
    ) -> None:
        """Let `draw(canvas, rng, x, z)` have its turn; its shadow is given by half its width, length and height, metres."""
        self._wait(lane, z, lambda canvas: draw(canvas, self._rng, x, z))
        if shadow is not None:
            half, length, height = shadow
            self._shadows.append((x - half, x + half, z - 0.1, z + length, height))

    def _wait(self, lane: float, z: float, draw: Callable[[Canvas], None]) -> None:
        self._things.append(_Thing((-abs(lane), -z, len(self._things)), draw))

    def _add_frontage(self, side: int) -> None:
        """Lots along one side: houses wall to wall, or gardens behind a fence, a wall or a hedge."""
        rng, street = self._rng, self._street
        x, z = street.left if side < 0 else street.right, rng.uniform(-6, 0)
        green = rng.choice([0.15, 0.4, 0.75])
        while z < street.end - 3:
            z0, z1 = z, min(z + rng.uniform(8, 15), street.end)
            z = z1
            if rng.random() < green:
                self._add_garden(x, side, z0, z1)
            else:
                self._wait(side * 60, z0, lambda canvas, z0=z0, z1=z1: buildings.draw_house(canvas, rng, x, z0, z1))  # type: ignore[misc]
                self._shadows.append((x, x, max(z0, 0.5), z1, 9.0))

    def _add_garden(self, x: float, side: int, z0: float, z1: float) -> None:
        rng = self._rng
        if rng.random() < 0.5:
            behind = x + side * rng.uniform(7, 10)
            self._wait(side * 80, z0, lambda canvas: buildings.draw_house(canvas, rng, behind, z0, z1))
        for at in np.arange(max(z0, 2.0) + 1, z1, 3.2):
            draw = furniture.draw_tree if rng.random() < 0.6 else furniture.draw_bush
            self._add(side * 60, at, draw, x + side * rng.uniform(2.0, 4.5), shadow=(0.7, 0.7, 2.0))
        edge = (furniture.draw_fence, furniture.draw_wall, furniture.draw_hedge)[rng.integers(3)]
        self._wait(side * 59, z0, lambda canvas: edge(canvas, rng, x + side * 0.05, z0, z1))

    def _add_sidewalk(self, side: int) -> None:
        """Trees, lamps, signs and lights near the curb; people and bicycles on the slabs."""
        rng, street = self._rng, self._street
        walk = next(strip for strip in street.of(Label.SIDEWALK) if strip.side == side)
        curb = next(strip for strip in street.of(Label.CURB) if strip.side == side)
        edge = curb.middle + side * 0.75
        verge = [strip for strip in street.of(Label.TERRAIN) if strip.side == side]
        if verge or rng.random() < 0.25:
            for z in np.arange(rng.uniform(5, 11), street.end - 4, rng.uniform(8, 12)):
                self._add(edge, z, furniture.draw_tree, edge, shadow=(0.8, 0.8, 3.0))
        for draw, most, nearest, farthest in (
            (furniture.draw_lamp, 3, 6, 40), (furniture.draw_sign, 2, 5, 17), (furniture.draw_traffic_light, 1, 5, 15),
        ):  # fmt: skip
            for _ in range(rng.integers(0, most + 1)):
                self._add(
                    edge, rng.uniform(nearest, farthest), draw, edge + rng.uniform(-0.1, 0.1), shadow=(0.1, 0.15, 4)
                )
        for _ in range(rng.integers(0, 4)):
            x, z = rng.uniform(walk.x0 + 0.4, walk.x1 - 0.4), rng.uniform(*_CROWD_M)
            self._add(x, z, people.draw_person, x, shadow=(0.25, 0.3, 1.7))
        if rng.random() < 0.3:
            x, z = walk.x1 - 0.9 if side > 0 else walk.x0 + 0.9, rng.uniform(4, 13)
            self._add(x, z, people.draw_bicycle, x, shadow=(0.9, 0.2, 0.6))

    def _add_traffic(self) -> None:
        """Vehicles in both lanes, a tram on the rails; a rider and walkers who cross."""
        rng, street = self._rng, self._street
        road = street.of(Label.ROAD)[0]
        kinds = [(vehicles.draw_car, 0.64), (vehicles.draw_truck, 0.18), (vehicles.draw_bus, 0.18)]
        for share in (0.26, 0.74):
            self._add_row(road.x0 + share * (road.x1 - road.x0), kinds, gap=(6, 30))
        for rails in street.of(Label.RAIL_TRACK):
            if rng.random() < 0.7:
                self._add(rails.middle, rng.uniform(6, 18), vehicles.draw_tram, rails.middle, shadow=(1.3, 15, 3.4))
        for lane in [*street.of(Label.CYCLING_LANE), *([road] if rng.random() < 0.3 else [])]:
            if rng.random() < 0.6:
                x, z = lane.middle if lane is not road else road.x1 - 1.0, rng.uniform(4.5, 13)
                self._add(x, z, people.draw_rider, x, shadow=(0.9, 0.2, 1.2))
        if street.crosswalk is not None:
            for _ in range(rng.integers(0, 3)):
                x, z = rng.uniform(road.x0, road.x1), street.crosswalk + rng.uniform(0.6, 2.6)
                self._add(x, z, people.draw_person, x, shadow=(0.25, 0.3, 1.7))

    def _add_row(self, x: float, kinds: Sequence[tuple[Draw, float]], gap: tuple[float, float]) -> None:
        """Vehicles one behind the other; none stands on the crosswalk."""
        rng, crosswalk = self._rng, self._street.crosswalk
        z = rng.uniform(5, 14)
        while z < self._street.end - 12:
            draw = kinds[rng.choice(len(kinds), p=[share for _, share in kinds])][0]
            length = 8.2 if draw is vehicles.draw_truck else 10.5 if draw is vehicles.draw_bus else 4.2
            if crosswalk is not None and z < crosswalk + 3.6 and z + length > crosswalk - 0.4:
                z = crosswalk + 4.0
                continue
            self._add(x, z, draw, x + rng.uniform(-0.12, 0.12), shadow=(1.0, length, 1.5))
            z += length + rng.uniform(*gap)
