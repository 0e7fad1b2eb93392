"""Which level of a pyramid is read: by number, or by the size of a pixel on the specimen or the ground."""

from __future__ import annotations

from collections.abc import Sequence

from unet_dist.errors import ConfigError, DataError

_MPP_TOLERANCE = 0.1
"""Relative. Scanners sold as 0.25 µm/px measure 0.2462 to 0.2628; the next level is at least a factor 2 away."""


def choose_level(
    shapes: Sequence[tuple[int, int]],
    microns_per_px: float | None,
    *,
    level: int | None,
    mpp: float | None,
    name: str,
) -> int:
    """Choose a level, level 0 unless the user asked for another.

    Args:
        shapes: (height, width) of each level, the finest first.
        microns_per_px: width of a pixel of level 0 in micrometres, None where the file does not say.
        level: the number of the level.
        mpp: micrometres per pixel; the level of this size, within 10 %, is taken, and none is resampled to it.
        name: what an error calls the file.

    Raises:
        ConfigError: both level and mpp.
        DataError: no such level, or no level of that size, or the file does not state the size of its pixels.
    """
    if level is not None and mpp is not None:
        raise ConfigError(f"level is {level} and mpp is {mpp}. Expected one of them: leave the other out.")
    if mpp is None:
        chosen = level or 0
        if not 0 <= chosen < len(shapes):
            raise DataError(f"{name} has no level {chosen}. Choose one of: {_listing(shapes, microns_per_px)}.")
        return chosen
    if microns_per_px is None:
        raise DataError(
            f"{name} does not state the size of its pixels, so mpp {mpp} finds no level. Choose a level: "
            f"{_listing(shapes, None)}."
        )
    errors = [abs(microns_per_px * shapes[0][1] / width / mpp - 1) for _, width in shapes]
    chosen = errors.index(min(errors))
    if errors[chosen] > _MPP_TOLERANCE:
        raise DataError(
            f"{name} has no level of {mpp} µm/px (within 10 %). Choose one of: {_listing(shapes, microns_per_px)}; or "
            "resample the image first."
        )
    return chosen


def _listing(shapes: Sequence[tuple[int, int]], microns_per_px: float | None) -> str:
    lines = []
    for number, (height, width) in enumerate(shapes):
        size = "" if microns_per_px is None else f", {microns_per_px * shapes[0][1] / width:.4g} µm/px"
        lines.append(f"{number} ({height} x {width} px{size})")
    return ", ".join(lines)
