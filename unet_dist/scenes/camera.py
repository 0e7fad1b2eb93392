"""From metres in the street to pixels.

Owns the projection and the clipping at the near plane. The street runs along +Z, X points to the road, Y up; the ground
is Y = 0 and the eye stands at (0, eye, 0). The camera looks along the street and its picture is shifted, not turned, so
that a row of pixels sees the ground at one depth and a column sees a wall along the street at one depth: textures then
cost one look-up per row or column instead of a division per pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float, float]
Pixel = tuple[int, int]

NEAR_M = 0.35


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with a shifted picture.

    fx and fy differ unless the picture is 16:9: another shape is the same composition, squeezed.
    """

    height: int  # pixels
    width: int  # pixels
    cx: float  # column of the vanishing point
    cy: float  # row of the horizon
    fx: float  # pixels
    fy: float  # pixels
    eye: float  # metres above the ground
    mirror: int = 1  # -1 puts the road on the left

    def project(self, points: Sequence[Point]) -> list[Pixel]:
        """Project a polygon (metres) to pixels (column, row); empty where it lies behind the near plane."""
        for point in points:
            if point[2] < NEAR_M:
                points = _clip_near(points)
                break
        fx, fy, cx, cy = self.fx * self.mirror, self.fy, self.cx + 0.5, self.cy + 0.5
        eye = self.eye
        return [(int(cx + fx * x / z), int(cy + fy * (eye - y) / z)) for x, y, z in points]

    def px_per_m(self, z: float) -> float:
        """The height in pixels of one metre at depth z."""
        return self.fy / max(z, NEAR_M)


def _clip_near(points: Sequence[Point]) -> list[Point]:
    """Cut a polygon at the near plane (Sutherland and Hodgman 1974, one plane)."""
    kept: list[Point] = []
    previous = points[-1]
    for point in points:
        if (point[2] >= NEAR_M) != (previous[2] >= NEAR_M):
            t = (NEAR_M - previous[2]) / (point[2] - previous[2])
            kept.append(
                (previous[0] + t * (point[0] - previous[0]), previous[1] + t * (point[1] - previous[1]), NEAR_M)
            )
        if point[2] >= NEAR_M:
            kept.append(point)
        previous = point
    return kept
