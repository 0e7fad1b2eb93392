"""The parts that vehicles share: where one stands, its wheels, lamps, glass and shadow."""

from __future__ import annotations

from dataclasses import dataclass

from unet_dist.scenes.camera import Point
from unet_dist.scenes.canvas import Canvas, Place
from unet_dist.scenes.classes import Label
from unet_dist.scenes.light import Colour
from unet_dist.scenes.street import CIRCLE

Outline = list[tuple[float, float]]  # (along, up) in metres

_TYRE: Colour = (30, 30, 32)


@dataclass(frozen=True)
class Pose:
    """Where a vehicle stands: the middle of its near end, and the way it points."""

    x: float
    z: float
    across: bool = False  # drives across the street instead of along it
    is_facing: bool = False  # shows its front: along the street, comes towards us


def place_of(pose: Pose, length: float) -> Place:
    """Vehicle coordinates (0 at the tail, `length` at the nose) to the street."""
    if pose.across:
        sign = -1 if pose.is_facing else 1
        start = pose.x + (length if pose.is_facing else 0)
        return lambda a, u, w: (start + sign * a, u, pose.z - w * sign)
    if pose.is_facing:
        return lambda a, u, w: (pose.x + w, u, pose.z + length - a)
    return lambda a, u, w: (pose.x + w, u, pose.z + a)


def cast_under(canvas: Canvas, place: Place, length: float, half: float) -> None:
    """Darken the ground below and a little around."""
    for grow, gain in ((0.25, 0.62), (0.0, 0.34)):
        ring = [place(-grow, 0, -half - grow), place(length + grow, 0, -half - grow)]
        ring += [place(length + grow, 0, half + grow), place(-grow, 0, half + grow)]
        canvas.cast(ring, gain)


def wheels(canvas: Canvas, place: Place, where: tuple[float, ...], radius: float, w: float, label: Label) -> None:
    """Paint wheels at these lengths on the side at w, if that side is seen."""
    for a in where:
        for grow, colour in (
            (1.16, (24, 24, 26)),
            (1.0, _TYRE),
            (0.62, (150, 152, 156)),
            (0.5, (112, 114, 118)),
            (0.16, (60, 60, 62)),
        ):
            rim: Outline = [(a + radius * grow * c, radius + radius * grow * s) for c, s in CIRCLE]
            if grow > 1:  # the wheel's arch ends at the sill
                rim = [(p, max(q, 0.28)) for p, q in rim]
            if not on_side(canvas, place, rim, w, label, colour):
                return


def on_side(canvas: Canvas, place: Place, outline: Outline, w: float, label: Label, colour: Colour) -> bool:
    """Paint an outline on the side at w; say whether that side is seen."""
    corners = [place(a, u, w) for a, u in outline]
    x0, y0, z0 = place(0, 0, 0)
    x1, y1, z1 = place(0, 0, w)
    return canvas.face(corners, (x1 - x0, y1 - y0, z1 - z0), label, colour)


def away(place: Place, end: int) -> Point:
    """The normal of the tail (-1) or the nose (1)."""
    x0, y0, z0 = place(0, 0, 0)
    x1, y1, z1 = place(float(end), 0, 0)
    return (x1 - x0, y1 - y0, z1 - z0)


def ends(
    canvas: Canvas,
    place: Place,
    length: float,
    half: float,
    belt: float,
    label: Label,
    *,
    only_front: bool = False,
    only_rear: bool = False,
) -> None:
    """Lamps, plates and bumpers at both ends."""
    for end in (-1, 1):
        if (only_front and end < 0) or (only_rear and end > 0):
            continue
        a, normal = (0.0, away(place, -1)) if end < 0 else (length, away(place, 1))
        lamps(canvas, place, a, half, belt * 0.72, normal, label, is_front=end > 0)
        quad = end_quad(place, a, -half + 0.03, half - 0.03, 0.3, 0.44)
        canvas.face(quad, normal, label, (44, 44, 47))
        canvas.face(end_quad(place, a, -0.26, 0.26, 0.46, 0.57), normal, label, (222, 222, 214))
        if end > 0:
            canvas.face(end_quad(place, a, -0.45, 0.45, 0.6, belt * 0.72), normal, label, (32, 32, 34))


def lamps(
    canvas: Canvas, place: Place, a: float, half: float, up: float, normal: Point, label: Label, *, is_front: bool
) -> None:
    """Paint a lamp at either edge of the end at length a."""
    colour: Colour = (240, 238, 222) if is_front else (176, 28, 26)
    for side in (-1, 1):
        w0, w1 = side * (half - 0.34), side * (half - 0.05)
        canvas.face(end_quad(place, a, w0, w1, up - 0.09, up + 0.09), normal, label, colour)


def end_quad(place: Place, a: float, w0: float, w1: float, u0: float, u1: float) -> list[Point]:
    """A rectangle across the vehicle at length a."""
    return [place(a, u0, w0), place(a, u0, w1), place(a, u1, w1), place(a, u1, w0)]


def reflecting(canvas: Canvas, glass: Colour) -> Colour:
    """Glass with a little sky in it."""
    sky = canvas.light.horizon
    return (glass[0] + 0.12 * sky[0], glass[1] + 0.12 * sky[1], glass[2] + 0.12 * sky[2])
