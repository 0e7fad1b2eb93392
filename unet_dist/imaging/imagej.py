"""What ImageJ says in the description of a TIFF about its values: the density calibration.

Owns these words. Source: ImageJ 1.54, FileOpener.decodeDescriptionString and setCalibration, Calibration.getCValue.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unet_dist.errors import RefusedError
from unet_dist.imaging.values import Scaling, scaling_of

_STRAIGHT_LINE, _LAST_CURVE, _UNCALIBRATED_OD = 0, 13, 21
_SIGNED_ORIGIN = 32_768
"""ImageJ adds it to signed values of 16 bits before anything else."""


def calibration_of(file: Any, samples: int, name: str) -> Scaling | None:
    """Read the quantity that the values stand for: c0 + c1 * value, in every channel.

    As in ImageJ it counts with its unit (vunit) only, and not for 32 bits nor for colour.

    Raises:
        RefusedError: another function than a line, coefficients that are no numbers, or values below 0 that it clips.
    """
    page, said = file.series[0].keyframe, file.imagej_metadata or {}
    dtype = np.dtype(page.dtype)
    is_colour = samples in (3, 4) and dtype.itemsize == 1 and int(page.photometric) == 2
    if "vunit" not in said or dtype.itemsize > 2 or dtype.kind not in "ui" or is_colour:
        return None
    function = _whole(said.get("cf", _STRAIGHT_LINE))
    coefficients = [said[key] for key in ("c0", "c1") if key in said]
    if function == _UNCALIBRATED_OD or (
        _STRAIGHT_LINE < function <= _LAST_CURVE and len(coefficients) == 2  # else ImageJ leaves it out
    ):
        raise RefusedError(
            f"{name} has ImageJ's calibration number {function} (cf), which is no line",
            "Write the values that are meant: in ImageJ Image > Type > 32-bit, and save it.",
        )
    if function != _STRAIGHT_LINE or len(coefficients) < 2:
        return None
    scaling = scaling_of([coefficients[1]], [coefficients[0]], 1, name)
    if scaling is None:
        return None
    (factor,), (offset,) = scaling.factors, scaling.offsets
    if dtype == np.int16:
        offset += factor * _SIGNED_ORIGIN
    limits = np.iinfo(dtype)
    if str(said.get("zeroclip", "")).lower() == "true" and min(factor * limits.min, factor * limits.max) + offset < 0:
        raise RefusedError(
            f"{name} has ImageJ's calibration with zeroclip", "Write the values that are meant: Image > Type > 32-bit."
        )
    return None if (factor, offset) == (1.0, 0.0) else Scaling((factor,) * samples, (offset,) * samples)


def _whole(number: object) -> int:
    try:
        return int(float(str(number)))
    except (ValueError, OverflowError):
        return -1
