"""Puts a street together: samples it, orders what it holds from far to near, and draws.

The order is exact for a street: a transversal thing (a bridge, a crossing street's traffic) cuts the depth into zones,
drawn from the farthest; in a zone the lanes are drawn from the outermost inwards, for on any line of sight |X| grows
with depth; in a lane things are drawn from the farthest to the nearest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from unet_dist.scenes import buildings, furniture, people, vehicles
from unet_dist.scenes.bodywork import Pose
from unet_dist.scenes.camera import Camera
from unet_dist.scenes.canvas import Canvas
from unet_dist.scenes.classes import Label
from unet_dist.scenes.develop import develop
from unet_dist.scenes.light import sample_light
from unet_dist.scenes.street import Street, Strip, between, chance, paint_ground, pick, sample_street
from unet_dist.scenes.textures import Texture

_ASPECT = 16 / 9
_FRONTAGE = 90.0  # the lane of what lies outside the pavement; its lots keep their own order, by their near end


def render_scene(rng: np.random.Generator, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw the scene that `rng` holds: the picture (height, width, 3) and the label map (height, width), uint8."""
    zoom = between(rng, 0.95, 1.3)
    camera = Camera(
        height=height,
        width=width,
        cx=width * between(rng, 0.3, 0.62),
        cy=height * between(rng, 0.36, 0.52),
        fx=zoom * width / _ASPECT,
        fy=zoom * height,
        eye=between(rng, 1.15, 1.75),
        mirror=-1 if chance(rng, 0.5) else 1,
    )
    if camera.mirror < 0:
        camera = Camera(**{**camera.__dict__, "cx": width - camera.cx})
    canvas = Canvas(camera, sample_light(rng))
    scene = _Scene(canvas, sample_street(rng), rng)
    scene.draw()
    return develop(canvas, rng)


class _Scene:
    """The things of one street, waiting for their turn."""

    def __init__(self, canvas: Canvas, street: Street, rng: np.random.Generator) -> None:
        self.canvas, self.street, self.rng = canvas, street, rng
        self.cuts = [*(street.side_street or ())]
        self.bridge_z = between(rng, 22, min(50, street.end - 12)) if chance(rng, 0.07) and street.end > 55 else None
        if self.bridge_z is not None:
            self.cuts.append(self.bridge_z)
        self.cuts.sort()
        self.waiting: list[tuple[tuple[float, float, float, int], Callable[[], object]]] = []

    def add(self, lane_x: float, z: float, draw: Callable[..., object], *where: object, **how: object) -> None:
        """Let `draw(canvas, *where, rng, **how)` have its turn; z is the nearest depth of what it draws.

        `lane_x` is the middle of the lane; 0 for what spans the street, which comes after all else in its zone.
        """
        zone = sum(z >= cut for cut in self.cuts)
        later = partial(draw, self.canvas, *where, self.rng, **how)
        self.waiting.append(((-zone, -abs(lane_x), -z, len(self.waiting)), later))

    def draw(self) -> None:
        """Draw ground, end and everything else, from far to near."""
        rng, street = self.rng, self.street
        paint_ground(self.canvas, street, rng)
        self._end()
        for outward in (-1, 1):
            self._frontage(outward)
        self._parked()
        self._traffic()
        self._pavement()
        if self.bridge_z is not None:
            z = self.bridge_z
            self.add(0.0, z, buildings.draw_bridge, street.left, street.right, z)
        for _, draw in sorted(self.waiting, key=lambda item: item[0]):
            draw()
        self._foreground()

    def _end(self) -> None:
        """What closes the view: a far skyline, then houses, trees or a tunnel."""
        canvas, street, rng = self.canvas, self.street, self.rng
        x = -170.0
        far = 240.0
        while x < 170:  # a skyline in the haze
            wide, high = between(rng, 9, 34), between(rng, 9, 34)
            label = pick(rng, [Label.BUILDING, Label.BUILDING, Label.VEGETATION, Label.VOID_UNCLEAR])
            if label is Label.BUILDING:
                corners = [(x, 0.0, far), (x + wide, 0.0, far), (x + wide, high, far), (x, high, far)]
                canvas.polygon(corners, label, (150, 144, 140), "front", Texture.CONCRETE)
            elif label is Label.VOID_UNCLEAR:
                corners = [
                    (x, 0.0, far),
                    (x + wide, 0.0, far),
                    (x + wide * 0.8, high * 0.4, far),
                    (x + wide * 0.3, high * 0.5, far),
                ]
                canvas.polygon(corners, label, (132, 128, 122), "front")
            else:
                canvas.crown(
                    x + wide / 2, high * 0.25, far, wide * 1.6, high * 0.9, (96, 116, 76), int(wide), int(high)
                )
            x += wide * 0.8
        kind = rng.random()
        if kind < 0.06:
            buildings.draw_tunnel(canvas, street.left, street.right, min(street.end, between(rng, 35, 70)), rng)
        elif kind < 0.55:
            buildings.draw_end_house(canvas, street.left, street.right, street.end, rng)
        elif kind < 0.85:
            for _ in range(int(rng.integers(8, 18))):
                x = between(rng, street.left - 12, street.right + 12)
                furniture.draw_tree(canvas, x, street.end + between(rng, 0, 8), rng, size=between(rng, 0.9, 1.6))

    def _frontage(self, outward: int) -> None:
        """Lots along one side of the street: houses, gardens behind a fence or a wall, hedges."""
        street, rng, canvas = self.street, self.rng, self.canvas
        x = street.left if outward < 0 else street.right
        z = between(rng, -6, 0.2)
        greenness = pick(rng, [0.08, 0.25, 0.7])
        while z < street.end:
            if street.is_crossed(z + 0.1):
                assert street.side_street is not None
                z = street.side_street[1] + 0.4
            length = between(rng, 7, 20)
            for cut in self.cuts:
                if z < cut - 0.5 < z + length:
                    length = cut - 0.4 - z
            z0, z1 = z, min(z + length, street.end)
            z += length + (0.0 if chance(rng, 0.85) else between(rng, 0.5, 2.0))
            if z1 - z0 < 1.5 or z1 < 0.6:
                continue
            if chance(rng, greenness) or z1 - z0 < 4:
                self._garden(x, outward, z0, z1)
            else:
                style = buildings.sample_style(rng)
                front = x + outward * (0.0 if chance(rng, 0.75) else between(rng, 0.3, 2.0))
                self.add(outward * _FRONTAGE, z0, buildings.draw_house, front, outward, z0, z1, style)
                if canvas.light.sun_side * canvas.camera.mirror == outward:
                    reach = min(style.height * 0.75, 9.0)
                    shadow = [(x, 0.0, max(z0, 0.4)), (x - outward * reach, 0.0, max(z0, 0.4) + 1)]
                    shadow += [(x - outward * reach, 0.0, z1 + 1), (x, 0.0, z1)]
                    canvas.cast(shadow, canvas.light.shadow)
                if chance(rng, 0.16) and z1 - z0 > 6 and z0 > 2:
                    middle = between(rng, z0 + 1.5, z1 - 1.5)
                    self.add(outward * _FRONTAGE, z0, buildings.draw_stairs, x, outward, middle)

    def _garden(self, x: float, outward: int, z0: float, z1: float) -> None:
        """An open lot: a fence, a wall or a hedge at the pavement, trees and perhaps a house behind."""
        rng, _canvas = self.rng, self.canvas
        behind = x + outward * between(rng, 6, 14)
        if chance(rng, 0.6):
            style = buildings.sample_style(rng)
            self.add(outward * _FRONTAGE, z0, buildings.draw_house, behind, outward, z0, z1, style)
        z = z1
        while z > max(z0, 1.5):
            if chance(rng, 0.7):
                draw = furniture.draw_tree if chance(rng, 0.7) else furniture.draw_bush
                self.add(outward * _FRONTAGE, z0, draw, x + outward * between(rng, 1.6, 5), z)
            z -= between(rng, 2, 5)
        kind = rng.random()
        near = max(z0, 0.5)
        edge = x + outward * 0.1
        if kind < 0.34:
            self.add(outward * _FRONTAGE, z0, buildings.draw_fence, edge, near, z1)
        elif kind < 0.62:
            height = between(rng, 0.6, 2.2)
            self.add(outward * _FRONTAGE, z0, buildings.draw_wall, edge, outward, near, z1, height=height)
        elif kind < 0.85:
            height = between(rng, 0.8, 1.9)
            self.add(outward * _FRONTAGE, z0, furniture.draw_hedge, x + outward * 0.35, near, z1, height)

    def _parked(self) -> None:
        rng, street, _canvas = self.rng, self.street, self.canvas
        for name in ("parking", "parking_far"):
            strip = street.band(name)
            if strip is None:
                continue
            z = between(rng, 1.2, 7)
            faces = chance(rng, 0.5)
            crowd = pick(rng, [0.4, 0.75, 0.92])
            while z < min(street.end - 6, 70):
                if street.is_crossed(z, margin=6.5) or not chance(rng, crowd):
                    z += 5.6
                    continue
                draw = _pick_vehicle(rng)
                is_facing = faces if chance(rng, 0.85) else not faces
                pose = Pose(strip.centre + between(rng, -0.12, 0.12), z, is_facing=is_facing)
                self.add(strip.centre, z, draw, pose)
                z += between(rng, 5.2, 6.6) + (2.6 if draw is not vehicles.draw_car else 0.0)

    def _traffic(self) -> None:
        rng, street, _canvas = self.rng, self.street, self.canvas
        road = street.band("road")
        assert road is not None
        for share, faces in ((0.27, True), (0.75, False)):  # the near lane comes towards us or goes: either country
            lane = road.across(share)
            z = between(rng, 4, 22)
            while z < min(street.end - 12, 95):
                kind = rng.random()
                if street.is_crossed(z, margin=9):
                    z += 9
                    continue
                if kind < 0.1:
                    self._rider(lane, z)
                else:
                    draw = (
                        vehicles.draw_bus if kind < 0.17 else vehicles.draw_truck if kind < 0.28 else vehicles.draw_car
                    )
                    pose = Pose(lane, z, is_facing=faces)
                    self.add(lane, z, draw, pose)
                z += between(rng, 13, 45)
        rails = street.band("rails")
        if (rails is not None or street.extra["rails_in_road"]) and chance(rng, 0.7):
            x = rails.centre if rails is not None else road.across(0.6)
            z = between(rng, 9, 30)
            if not street.is_crossed(z, margin=20):
                if rails is None:
                    self.waiting = [w for w in self.waiting if not (abs(-w[0][1] - abs(x)) < 2.4)]
                pose = Pose(x, z, is_facing=chance(rng, 0.5))
                self.add(x, z, vehicles.draw_tram, pose)
        if street.side_street is not None and chance(rng, 0.6):
            z = (street.side_street[0] + street.side_street[1]) / 2
            crossing = _pick_vehicle(rng)
            pose = Pose(between(rng, street.left - 8, street.right), z, across=True, is_facing=chance(rng, 0.5))
            self.add(0.0, z, crossing, pose)

    def _pavement(self) -> None:
        """Trees, lamps, signs, people and things on both pavements."""
        rng, street, _canvas = self.rng, self.street, self.canvas
        near, far = street.band("walk"), street.band("walk_far")
        curb, curb_far = street.band("curb"), street.band("curb_far")
        assert near is not None
        assert far is not None
        assert curb is not None
        assert curb_far is not None
        verge, verge_far = street.band("verge"), street.band("verge_far")
        for strip, edge, inward in ((verge, curb.x0 - 0.35, 1), (verge_far, curb_far.x1 + 0.35, -1)):
            self._row_of_trees(strip, edge)
            self._row_of_poles(edge, inward)
        self._people(near, 2.6, 0.75)
        self._people(far, 4.0, 1.0)
        cycle = street.band("cycle")
        if cycle is not None and chance(rng, 0.45):
            self._rider(cycle.centre, between(rng, 4, 22))
        road = street.band("road")
        if road is not None and chance(rng, 0.15):
            self._rider(road.across(0.14), between(rng, 4.5, 22))
        things: list[tuple[Callable[..., None], float]] = [
            (furniture.draw_bin, 0.5),
            (furniture.draw_bench, 0.2),
            (furniture.draw_cart, 0.22),
            (people.draw_dog, 0.14),
            (furniture.draw_bush, 0.2),
        ]
        for edge in (near.x0 + 0.6, far.x1 - 0.6):
            for draw, probability in things:
                if chance(rng, probability):
                    z = between(rng, 3.2, 26)
                    if not street.is_crossed(z, margin=1):
                        self.add(edge, z, draw, edge, z)
            for _ in range(int(rng.integers(0, 3)) if chance(rng, 0.3) else 0):
                z = between(rng, 3.5, 18)
                park = people.draw_bicycle if chance(rng, 0.75) else people.draw_motorcycle
                if not street.is_crossed(z, margin=1):
                    self.add(edge, z, park, edge, z, has_rider=False)

    def _row_of_trees(self, strip: Strip | None, edge: float) -> None:
        rng, street, canvas = self.rng, self.street, self.canvas
        if not chance(rng, 0.75 if strip is not None else 0.22):
            return
        x = strip.centre if strip is not None else edge
        z, step = between(rng, 2.5, 9), between(rng, 6, 11)
        size = between(rng, 0.55, 1.1)
        while z < street.end - 3:
            if not street.is_crossed(z, margin=1.5):
                if strip is None:
                    canvas.ground(x - 0.6, x + 0.6, z - 0.6, z + 0.6, Label.TERRAIN, (108, 92, 74), Texture.GRAVEL)
                self.add(x, z, furniture.draw_tree, x, z, size=size)
            z += step

    def _row_of_poles(self, edge: float, inward: int) -> None:
        rng, street, _canvas = self.rng, self.street, self.canvas
        z, step = between(rng, 5, 20), between(rng, 16, 28)
        while z < street.end - 5:
            if not street.is_crossed(z, margin=0.5):
                self.add(edge, z, furniture.draw_lamp, edge, z, inward * 1.6)
            z += step
        for draw, most in ((furniture.draw_sign, 3), (furniture.draw_pole, 3)):
            for _ in range(int(rng.integers(0, most))):
                z = between(rng, 4, 34)
                if not street.is_crossed(z, margin=0.3):
                    self.add(edge, z, draw, edge, z)
        if street.crosswalk is not None and chance(rng, 0.65):
            z = street.crosswalk[0] - 0.3
            self.add(edge, z, furniture.draw_traffic_light, edge, z, inward * between(rng, 2, 3.5))

    def _people(self, strip: Strip, nearest: float, many: float) -> None:
        rng, _canvas = self.rng, self.canvas
        for _ in range(int(rng.integers(0, 2 + int(4 * many)))):
            x, z = (
                strip.across(between(rng, 0.15, 0.85)),
                between(rng, nearest, 10) if chance(rng, 0.4) else between(rng, 8, 45),
            )
            if abs(x) < 0.35 and z < 4:  # nobody right in front of the lens
                z += 4
            self.add(strip.centre, z, people.draw_person, x, z)

    def _rider(self, x: float, z: float) -> None:
        rng, _canvas = self.rng, self.canvas
        kind = rng.random()
        if kind < 0.5:
            self.add(x, z, people.draw_cyclist_along, x, z)
        elif kind < 0.75:
            self.add(x, z, people.draw_bicycle, x, z, has_rider=True)
        else:
            self.add(x, z, people.draw_motorcycle, x, z, has_rider=True)

    def _foreground(self) -> None:
        """Now and then the carrier's own edge shows at the bottom (unlabeled), or an unclear thing by the lens."""
        rng, canvas = self.rng, self.canvas
        kind = rng.random()
        camera = canvas.camera
        z = 0.6
        bottom = camera.eye - (camera.height - camera.cy) / camera.fy * z
        reach = camera.width / camera.fx * z
        if kind < 0.08:
            middle = between(rng, -0.3, 0.3) * reach
            hump = [(middle + reach * 0.22 * c, bottom + 0.045 * max(s, 0) - 0.01, z) for c, s in people.CIRCLE]
            canvas.polygon(hump, Label.UNLABELED, (40, 42, 46), "front")
        elif kind < 0.15:
            side = -1 if chance(rng, 0.5) else 1
            edge = (0 - camera.cx if side < 0 else camera.width - camera.cx) / camera.fx * z * camera.mirror
            inward = -side * camera.mirror * reach * between(rng, 0.04, 0.1)
            colour = pick(rng, [(70, 62, 58), (120, 116, 110), (60, 76, 52)])
            shape = [
                (edge, bottom - 0.1, z),
                (edge + inward, bottom - 0.1, z),
                (edge + inward * 0.7, bottom + 0.45, z),
                (edge, bottom + 0.6, z),
            ]
            canvas.polygon(shape, Label.VOID_UNCLEAR, colour, "front")


def _pick_vehicle(rng: np.random.Generator) -> vehicles.Vehicle:
    kind = rng.random()
    if kind < 0.84:
        return vehicles.draw_car
    if kind < 0.94:
        return vehicles.draw_truck
    if kind < 0.97:
        return vehicles.draw_caravan
    return vehicles.draw_trailer
