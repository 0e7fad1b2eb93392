"""Colours for class ids: told apart by most eyes, the same on every machine.

Owns which colour a class id gets. Knows no class names: a name stands in text wherever a colour must be read for sure.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

IGNORED_COLOUR = (0, 0, 0)
"""Pixels without a class; no class is ever black."""

# Source: Okabe and Ito 2008, "Color Universal Design", without its black.
_OKABE_ITO = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
)

_CHOSEN = 255
"""Colours that are chosen one by one, far from each other. Ids beyond them get any colour of their own."""

# Source: Machado, Oliveira and Fernandes 2009, "A physiologically-based model for simulation of color vision
# deficiency", severity 1.0; they act on linear RGB.
_PROTANOPIA = ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998))
_DEUTERANOPIA = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881))
_TRITANOPIA = ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900))
_VISIONS = np.array([np.eye(3), _PROTANOPIA, _DEUTERANOPIA, _TRITANOPIA])

# Source: Ottosson 2020, "A perceptual color space for image processing" (OKLab).
_RGB_TO_LMS = np.array(
    (
        (0.4122214708, 0.5363325363, 0.0514459929),
        (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005),
    )
)
_LMS_TO_OKLAB = np.array(
    (
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    )
)


@lru_cache(maxsize=8)
def class_palette(num_classes: int) -> np.ndarray:
    """Choose a colour for each class id.

    The first seven are Okabe and Ito's set. Each further colour is the one farthest from all before it (and from black
    and white), where the distance of two colours is the smallest that normal sight, protanopia, deuteranopia and
    tritanopia see between them. A larger palette begins with the smaller one.

    Args:
        num_classes: 1 to 65535. Beyond 255 classes colours are chosen for being different, not for looking so.

    Returns:
        (num_classes, 3) uint8 RGB, read-only; all rows differ and none is black.
    """
    assert 1 <= num_classes <= 65535, f"a palette holds 1 to 65535 classes, not {num_classes}"
    colours: list[tuple[int, ...]] = list(_OKABE_ITO[:num_classes])
    if num_classes > len(colours):
        axis = np.arange(0, 256, 15)  # 18 steps per axis: 5,832 candidates, 0.2 s for 255 classes
        candidates = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
        seen = _as_seen(candidates)  # (visions, candidates, 3)
        # OKLab spreads the darks wide: without a floor a third of the colours would look black on a screen.
        candidates, seen = candidates[seen[0, :, 0] > 0.4], seen[:, seen[0, :, 0] > 0.4]
        nearest = np.full(len(candidates), np.inf)
        for colour in (IGNORED_COLOUR, (255, 255, 255), *colours):
            nearest = np.minimum(nearest, _distance(seen, colour))
        while len(colours) < min(num_classes, _CHOSEN):
            # Rounding breaks ties by order rather than by the last bit, which differs between machines.
            best = int(np.argmax(np.round(nearest, 6)))
            colours.append(tuple(int(value) for value in candidates[best]))
            nearest = np.minimum(nearest, _distance(seen, colours[-1]))
            nearest[best] = -1.0  # far into a long palette all distances near zero: still never the same colour twice
    palette = np.array(colours, dtype=np.uint8)
    if num_classes > _CHOSEN:
        palette = np.concatenate([palette, _further(num_classes - _CHOSEN, palette)])
    palette.setflags(write=False)
    return palette


def colour_table(palette: np.ndarray) -> np.ndarray:
    """Give every id a colour, IGNORED_COLOUR beyond the palette: (256, 3) uint8, or (65536, 3) for 16 bits."""
    table = np.full((256 if len(palette) <= 255 else 65536, 3), IGNORED_COLOUR, dtype=np.uint8)
    table[: len(palette)] = palette
    return table


def _further(count: int, taken: np.ndarray) -> np.ndarray:
    """Colours beyond those that an eye tells apart: (count, 3) uint8, all different, none of those that are taken, none dark."""
    # An odd factor permutes the 24-bit numbers; this one (2^32 over the golden ratio) leaps far from one to the next.
    packed = (np.arange(1, 4 * count + 4 * len(taken), dtype=np.uint64) * 0x9E3779B1) & 0xFFFFFF
    colours = np.stack([packed >> 16, packed >> 8 & 0xFF, packed & 0xFF], axis=1).astype(np.uint8)
    used = (taken.astype(np.uint64) << np.array([16, 8, 0], dtype=np.uint64)).sum(axis=1)
    return colours[(colours.max(axis=1) >= 96) & ~np.isin(packed, used)][:count]


def _as_seen(colours: np.ndarray) -> np.ndarray:
    """Place (n, 3) sRGB colours of 0..255 in OKLab for each kind of vision: (visions, n, 3)."""
    encoded = np.asarray(colours, dtype=np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    simulated = np.clip(np.einsum("vij,nj->vni", _VISIONS, linear), 0, 1)
    return np.cbrt(simulated @ _RGB_TO_LMS.T) @ _LMS_TO_OKLAB.T


def _distance(seen: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    """Measure how far one colour is from each of (visions, n, 3), by the vision that tells them apart least."""
    return np.linalg.norm(seen - _as_seen(np.array([colour])), axis=-1).min(axis=0)
