"""The plan of a street: what lies where across it, and its painted ground.

Owns the cross-section (strips from the left building line to the right one), the side street and the ground's markings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from unet_dist.scenes.canvas import Canvas, Plane
from unet_dist.scenes.classes import Label
from unet_dist.scenes.light import Colour
from unet_dist.scenes.textures import Texture

T = TypeVar("T")
FAR_M = 260.0

_ASPHALT: list[Colour] = [(104, 104, 107), (88, 89, 93), (120, 118, 114), (97, 94, 92)]
_WALK: list[tuple[Colour, Texture]] = [
    ((168, 165, 160), Texture.PAVING),
    ((152, 148, 146), Texture.SLABS),
    ((176, 160, 138), Texture.PAVING),
    ((156, 116, 102), Texture.BRICK),
    ((136, 134, 131), Texture.COBBLES),
    ((122, 120, 119), Texture.ASPHALT),
    ((184, 176, 164), Texture.SLABS),
]
_CYCLE: list[tuple[Colour, Texture]] = [
    ((158, 92, 78), Texture.ASPHALT),
    ((150, 98, 88), Texture.PAVING),
    ((112, 112, 113), Texture.ASPHALT),
    ((96, 132, 108), Texture.ASPHALT),
]
_PARKING: list[tuple[Colour, Texture]] = [
    ((126, 122, 118), Texture.COBBLES),
    ((108, 106, 106), Texture.ASPHALT),
    ((146, 124, 114), Texture.BRICK),
    ((150, 146, 140), Texture.PAVING),
]
GRASS: list[Colour] = [(104, 122, 62), (122, 128, 70), (92, 112, 58), (134, 120, 82)]
WHITE: Colour = (216, 216, 210)


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, evenly."""
    return options[int(rng.integers(len(options)))]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A float, evenly."""
    return low + (high - low) * float(rng.random())


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with a probability."""
    return bool(rng.random() < probability)


@dataclass(frozen=True)
class Strip:
    """A band of ground along the street between two X."""

    name: str
    x0: float
    x1: float
    label: Label
    colour: Colour
    texture: Texture

    @property
    def centre(self) -> float:
        """The middle, in metres."""
        return (self.x0 + self.x1) / 2

    def across(self, share: float) -> float:
        """The X at a share of the width."""
        return self.x0 + (self.x1 - self.x0) * share


@dataclass(frozen=True)
class Street:
    """A street from the left building line to the right one; all in metres."""

    strips: list[Strip]
    left: float
    right: float
    end: float  # depth at which something closes the view
    side_street: tuple[float, float] | None  # depths between which another street crosses
    crosswalk: tuple[float, float] | None  # depths of a crosswalk over the road
    asphalt: Colour
    extra: dict[str, float] = field(default_factory=dict)

    def band(self, name: str) -> Strip | None:
        """The strip of a name, where the street has one."""
        return next((s for s in self.strips if s.name == name), None)

    def is_crossed(self, z: float, *, margin: float = 0.0) -> bool:
        """Whether the side street passes at this depth."""
        return self.side_street is not None and self.side_street[0] - margin < z < self.side_street[1] + margin


def sample_street(rng: np.random.Generator) -> Street:
    """Draw a cross-section, a side street and what is painted where."""
    asphalt = pick(rng, _ASPHALT)
    walk, walk_texture = pick(rng, _WALK)
    cycle, cycle_texture = pick(rng, _CYCLE)
    parking, parking_texture = pick(rng, _PARKING)
    grass = pick(rng, GRASS)
    has_rails = chance(rng, 0.13)
    curb: Colour = pick(rng, [(176, 174, 170), (142, 140, 138), (190, 184, 172)])
    left = -between(rng, 1.3, 4.2)
    strips: list[Strip] = []
    x = left

    def lay(name: str, width: float, label: Label, colour: Colour, texture: Texture) -> None:
        nonlocal x
        strips.append(Strip(name, x, x + width, label, colour, texture))
        x += width

    if left < -2.6 and chance(rng, 0.3):
        lay("garden", between(rng, 0.7, 1.3), Label.TERRAIN, grass, Texture.GRASS)
    lay("walk", between(rng, 0.7, 2.4) - x, Label.SIDEWALK, walk, walk_texture)
    if chance(rng, 0.4):
        lay("verge", between(rng, 0.9, 1.8), Label.TERRAIN, grass, Texture.GRASS)
    if chance(rng, 0.38):
        lay("cycle", between(rng, 1.4, 2.1), Label.CYCLING_LANE, cycle, cycle_texture)
    lay("curb", 0.2, Label.CURB, curb, Texture.CONCRETE)
    if chance(rng, 0.6):
        lay("parking", 2.15, Label.PARKING, parking, parking_texture)
    if has_rails and chance(rng, 0.4):
        lay("road", between(rng, 3.4, 6.0), Label.ROAD, asphalt, Texture.ASPHALT)
        lay("rails", 3.0, Label.RAIL_TRACK, (128, 122, 114), pick(rng, [Texture.GRAVEL, Texture.COBBLES]))
        lay("road_far", 3.2, Label.ROAD, asphalt, Texture.ASPHALT)
    else:
        lay("road", between(rng, 5.6, 9.5), Label.ROAD, asphalt, Texture.ASPHALT)
    if chance(rng, 0.55):
        lay("parking_far", 2.15, Label.PARKING, parking, parking_texture)
    lay("curb_far", 0.3, Label.CURB, curb, Texture.CONCRETE)
    if chance(rng, 0.3):
        lay("verge_far", between(rng, 1.0, 2.4), Label.TERRAIN, grass, Texture.GRASS)
    lay("walk_far", between(rng, 1.8, 3.6), Label.SIDEWALK, walk, walk_texture)
    side_street = crosswalk = None
    if chance(rng, 0.42):
        start = between(rng, 5, 42)
        side_street = (start, start + between(rng, 5.5, 9))
        if chance(rng, 0.75):
            crosswalk = (start - 3.8, start - 0.8) if start > 8 else (side_street[1] + 0.8, side_street[1] + 3.8)
    elif chance(rng, 0.25):
        start = between(rng, 7, 26)
        crosswalk = (start, start + between(rng, 2.5, 4))
    return Street(
        strips=strips,
        left=left,
        right=x,
        end=between(rng, 48, 150),
        side_street=side_street,
        crosswalk=crosswalk,
        asphalt=asphalt,
        extra={"rails_in_road": float(has_rails and all(s.name != "rails" for s in strips))},
    )


def paint_ground(canvas: Canvas, street: Street, rng: np.random.Generator) -> None:
    """Paint strips, side street, crosswalks, driveways, markings and patches."""
    first, last = street.strips[0], street.strips[-1]
    canvas.ground(-FAR_M, FAR_M, 0.4, FAR_M, Label.TERRAIN, pick(rng, GRASS), Texture.GRASS)
    canvas.ground(first.x0 - 4, first.x1, 0.4, FAR_M, first.label, first.colour, first.texture)
    canvas.ground(last.x0, last.x1 + 4, 0.4, FAR_M, last.label, last.colour, last.texture)
    for strip in street.strips:
        canvas.ground(strip.x0, strip.x1, 0.4, FAR_M, strip.label, strip.colour, strip.texture)
    _markings(canvas, street, rng)
    _rails(canvas, street)
    _driveways(canvas, street, rng)
    if street.side_street is not None:
        _side_street(canvas, street, street.side_street, rng)
    road = street.band("road")
    assert road is not None
    if street.crosswalk is not None:
        far = street.band("road_far") or road
        _zebra_over_road(canvas, road.x0, far.x1, street.crosswalk, street.asphalt)
    _patches(canvas, street, rng)


def _markings(canvas: Canvas, street: Street, rng: np.random.Generator) -> None:
    road = street.band("road")
    assert road is not None
    style = rng.integers(4)
    start = between(rng, 0.4, 6)
    if style < 3 and road.x1 - road.x0 > 5.2:
        x = road.centre
        if style == 0:
            canvas.ground(x - 0.07, x + 0.07, 0.5, FAR_M, Label.ROAD, WHITE, Texture.ASPHALT)
        else:
            for i in range(12):
                z = start + 6.0 * i
                canvas.ground(x - 0.07, x + 0.07, z, z + 3.0, Label.ROAD, WHITE, Texture.ASPHALT)
    for name in ("parking", "parking_far"):
        strip = street.band(name)
        if strip is None or not chance(rng, 0.6):
            continue
        edge = strip.x1 if name == "parking" else strip.x0
        canvas.ground(edge - 0.05, edge + 0.05, 0.5, FAR_M, strip.label, WHITE, Texture.ASPHALT)
        for i in range(9):
            z = start + 5.6 * i
            canvas.ground(strip.x0, strip.x1, z, z + 0.1, strip.label, WHITE, Texture.ASPHALT)
    cycle = street.band("cycle")
    if cycle is not None:
        for edge in (cycle.x0 + 0.06, cycle.x1 - 0.16):
            canvas.ground(edge, edge + 0.1, 0.5, FAR_M, Label.CYCLING_LANE, WHITE, Texture.ASPHALT)
    elif chance(rng, 0.22) and road.x1 - road.x0 > 6.8:  # a lane on the road, told from it by its lines alone
        colour = pick(rng, [street.asphalt, street.asphalt, (158, 92, 78)])
        canvas.ground(road.x0, road.x0 + 1.5, 0.5, FAR_M, Label.CYCLING_LANE, colour, Texture.ASPHALT)
        canvas.ground(road.x0 + 1.5, road.x0 + 1.64, 0.5, FAR_M, Label.CYCLING_LANE, WHITE, Texture.ASPHALT)
    for name in ("curb", "curb_far"):
        strip = street.band(name)
        assert strip is not None
        r, g, b = strip.colour
        if name == "curb":  # its drop lies on the far side: a dark seam
            seam = (strip.x1 - 0.05, strip.x1)
            canvas.ground(*seam, 0.4, FAR_M, Label.CURB, (r * 0.5, g * 0.5, b * 0.5), Texture.CONCRETE)
        else:  # its face looks at us
            canvas.ground(
                strip.x0, strip.x0 + 0.14, 0.4, FAR_M, Label.CURB, (r * 0.62, g * 0.62, b * 0.62), Texture.CONCRETE
            )


def _rails(canvas: Canvas, street: Street) -> None:
    bed = street.band("rails")
    road = street.band("road")
    assert road is not None
    if bed is None and not street.extra["rails_in_road"]:
        return
    centre = bed.centre if bed is not None else road.across(0.6)
    if bed is None:  # set in the road's asphalt: a slightly other grey
        r, g, b = street.asphalt
        canvas.ground(centre - 1.2, centre + 1.2, 0.4, FAR_M, Label.RAIL_TRACK, (r + 12, g + 9, b + 4), Texture.SLABS)
    for x in (centre - 0.72, centre + 0.72):
        canvas.ground(x - 0.09, x + 0.09, 0.4, FAR_M, Label.RAIL_TRACK, (58, 54, 52))
        canvas.ground(x - 0.035, x + 0.035, 0.4, FAR_M, Label.RAIL_TRACK, (186, 186, 192))


def _driveways(canvas: Canvas, street: Street, rng: np.random.Generator) -> None:
    if not chance(rng, 0.4):
        return
    walk, curb = street.band("walk"), street.band("curb")
    assert walk is not None
    assert curb is not None
    colour, texture = pick(rng, _PARKING)
    z = between(rng, 3.5, 18)
    canvas.ground(street.left - 3, curb.x1, z, z + between(rng, 2.8, 4.2), Label.PARKING, colour, texture)


def _side_street(canvas: Canvas, street: Street, depth: tuple[float, float], rng: np.random.Generator) -> None:
    """Paint a crossing street, its curbs and, often, the crosswalk on which the pavement goes on."""
    z0, z1 = depth
    colour = street.asphalt if chance(rng, 0.7) else pick(rng, _ASPHALT)
    curb = street.band("curb")
    walk = street.band("walk")
    assert curb is not None
    assert walk is not None
    canvas.ground(street.left - 60, street.right + 60, z0, z1, Label.ROAD, colour, Texture.ASPHALT)
    curb_far = street.band("curb_far")
    assert curb_far is not None
    for x0, x1 in ((street.left - 60, curb.x1), (curb_far.x0, street.right + 60)):
        canvas.ground(x0, x1, z0 - 0.25, z0, Label.CURB, curb.colour, Texture.CONCRETE)
        canvas.ground(x0, x1, z1, z1 + 0.35, Label.CURB, curb.colour, Texture.CONCRETE)
    if chance(rng, 0.7):
        x0, x1 = max(walk.x0, -1.8) + 0.2, walk.x1 - 0.1
        canvas.ground(x0, x1, z0, z1, Label.CROSSWALK, colour, Texture.ASPHALT)
        for i in range(int((z1 - z0) / 1.0)):
            z = z0 + 0.3 + i
            canvas.ground(x0, x1, z, z + 0.5, Label.CROSSWALK, WHITE, Texture.ASPHALT)


def _zebra_over_road(canvas: Canvas, x0: float, x1: float, depth: tuple[float, float], asphalt: Colour) -> None:
    canvas.ground(x0, x1, *depth, Label.CROSSWALK, asphalt, Texture.ASPHALT)
    for i in range(int(x1 - x0)):
        canvas.ground(x0 + i + 0.25, x0 + i + 0.75, *depth, Label.CROSSWALK, WHITE, Texture.ASPHALT)


def _patches(canvas: Canvas, street: Street, rng: np.random.Generator) -> None:
    """Repairs in the asphalt (still road), and now and then a plate, sand or a tarpaulin (void-ground)."""
    road, walk = street.band("road"), street.band("walk")
    assert road is not None
    assert walk is not None
    for _ in range(int(rng.integers(0, 4))):
        x, z = road.across(between(rng, 0.05, 0.7)), between(rng, 4, 40)
        r, g, b = street.asphalt
        tone = between(rng, 0.78, 1.12)
        size = (between(rng, 0.6, 1.6), between(rng, 1, 5))
        canvas.ground(x, x + size[0], z, z + size[1], Label.ROAD, (r * tone, g * tone, b * tone), Texture.ASPHALT)
    for _ in range(int(rng.integers(0, 3))):
        strip = pick(rng, [road, walk])
        x, z = strip.across(between(rng, 0.15, 0.75)), between(rng, 3, 22)
        _disc(canvas, x, z, 0.32, strip.label, (70, 68, 66), Texture.COBBLES)
    if chance(rng, 0.22):
        strip = pick(rng, [walk, walk, road])
        colour, texture = pick(
            rng,
            [
                ((120, 116, 112), Texture.METAL),
                ((176, 152, 112), Texture.GRAVEL),
                ((88, 106, 128), Texture.PLASTER),
                ((138, 128, 116), Texture.GRAVEL),
            ],
        )
        x, z = strip.across(between(rng, 0.1, 0.55)), between(rng, 3, 14)
        if texture is Texture.GRAVEL:
            _disc(canvas, x + 0.6, z + 1, between(rng, 0.6, 1.3), Label.VOID_GROUND, colour, texture)
        else:
            size = (between(rng, 0.9, 1.6), between(rng, 1.2, 2.6))
            canvas.ground(x, x + size[0], z, z + size[1], Label.VOID_GROUND, colour, texture)


def _disc(canvas: Canvas, x: float, z: float, radius: float, label: Label, colour: Colour, texture: Texture) -> None:
    points = [(x + radius * c, 0.0, z + radius * s) for c, s in CIRCLE]
    canvas.polygon(points, label, colour, "up", texture, Plane.GROUND)


CIRCLE: list[tuple[float, float]] = [
    (float(np.round(np.cos(t), 6)), float(np.round(np.sin(t), 6))) for t in np.arange(18) * (2 * np.pi / 18)
]
