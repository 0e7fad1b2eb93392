"""Scale, rotation, bending and mirroring of training crops: one look-up by whole numbers, on the device.

Owns the random draw for a sample, where a window's pixels and labels come from, and the look-up of batches of windows. Every place
is a sum of products of whole numbers, exact in float64 in any order of summation; weights have 7 bits. So tiles of one crop see one
transform, and a CPU, a GPU, one process and several make the same bytes. Must not know how crops are cut into tiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unet_dist.data.decoded.labels import Label, ignored_in
from unet_dist.imaging.image import ImageReader

_BITS, _PART = 20, 10  # of a place's fraction, and of each factor of a bending
_ONE = 2**_BITS
_WEIGHT_BITS = 7
_NODES = 3  # of the bending, along an axis
_TERMS = 2 + _NODES  # of a place: what follows from the row, what from the column, and the bending's


@dataclass(frozen=True)
class Geometry:
    """What may happen to the geometry of a crop.

    Attributes:
        scale: range of the magnification, above 0; drawn evenly in its logarithm, so that halves are as frequent as doubles.
        rotation_deg: range of the angle, degrees.
        displacement_px: standard deviation of the displacements on a 3x3 grid over the window, px; cubic between its points.
        p: probability of any of this; mirroring is apart from it.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    rotation_deg: tuple[float, float] = (0.0, 0.0)
    displacement_px: float = 0.0
    p: float = 1.0


class Places(NamedTuple):
    """Where pixels come from: the sum over k of rows[a, i, k] * cols[a, k, j] is the place of (i, j) on axis a, in 2^-20 px.

    Attributes:
        rows: (2, h, 5) float64, whole numbers.
        cols: (2, 5, w) likewise.
    """

    rows: np.ndarray
    cols: np.ndarray

    def spans(self) -> list[tuple[int, int]]:
        """On each axis the first and the last pixel that may be read, interpolation included; not all of them need be."""
        spans = []
        for rows, cols in zip(self.rows, self.cols, strict=True):
            bend = float((abs(rows[:, 2:]).max(0) * abs(cols[2:]).max(1)).sum())
            low = rows[:, 0].min() + cols[1].min() - bend
            high = rows[:, 0].max() + cols[1].max() + bend
            spans.append((math.floor(low / _ONE), math.floor(high / _ONE) + 1))
        return spans

    def nearest(self) -> np.ndarray:
        """The nearest pixel to each place: (2, h, w) int64."""
        nearest: np.ndarray = np.floor((self.rows @ self.cols) / _ONE + 0.5).astype(np.int64)
        return nearest


@dataclass(frozen=True)
class Warp:
    """Where each pixel of one crop comes from.

    Attributes:
        middle: of the crop's output, in pixels from its first one.
        centre: the pixel of the image that is seen there.
        matrix: (2, 2), steps in the image by steps in the crop.
        bend: (2, 3, 3) displacements, px.
        first, shape: of the crop's window, over which the bending lies: its first row and column, counted from the output's first
            pixel, and its height and width.
    """

    middle: tuple[float, float]
    centre: tuple[float, float]
    matrix: np.ndarray
    bend: np.ndarray
    first: tuple[int, int]
    shape: tuple[int, int]

    def places(self, row: int, col: int, height: int, width: int) -> Places:
        """The places of a rectangle of the crop, (row, col) counted from the output's first pixel."""
        starts, sides = (row, col), (height, width)
        steps = [
            start + np.arange(side) - middle for start, side, middle in zip(starts, sides, self.middle, strict=True)
        ]
        nodes = [
            _cubic(start + np.arange(side) - first, whole)
            for start, side, first, whole in zip(starts, sides, self.first, self.shape, strict=True)
        ]
        rows, cols = np.ones((2, height, _TERMS)), np.ones((2, _TERMS, width))
        for axis in (0, 1):
            rows[axis, :, 0] = np.rint((self.centre[axis] + self.matrix[axis, 0] * steps[0]) * _ONE)
            cols[axis, 1] = np.rint(self.matrix[axis, 1] * steps[1] * _ONE)
            # Node by node: the order of a matrix product's sums is its library's affair.
            bent = sum(nodes[0][:, [k]] * self.bend[axis, k] for k in range(_NODES))
            rows[axis, :, 2:] = np.rint(bent * 2**_PART)
            cols[axis, 2:] = np.rint(nodes[1].T * 2**_PART)
        return Places(rows, cols)


def draw_warp(
    geometry: Geometry,
    random: np.random.Generator,
    *,
    image_shape: tuple[int, int],
    output_shape: tuple[int, int],
    halo: int,
    mirrors: bool,
    pixel: tuple[int, int] | None = None,
) -> Warp:
    """Draw one crop.

    The part of the image that its output shows lies inside the image, or covers it where it is larger, so that magnified crops
    reach into the corners and reduced ones have as much of the image as there is. Beyond the image it is mirrored.

    Args:
        mirrors: whether half of the crops are turned left to right.
        pixel: what the crop is centred on, as near as the image's border lets it; None: anything.
    """
    is_changed = random.random() < geometry.p
    low, high = (math.log(limit) for limit in geometry.scale)
    scale = math.exp(random.uniform(low, high)) if is_changed else 1.0
    angle = math.radians(random.uniform(*geometry.rotation_deg)) if is_changed else 0.0
    bend = random.normal(0.0, 1.0, (2, _NODES, _NODES)) * (geometry.displacement_px if is_changed else 0.0)
    sign = -1 if mirrors and random.integers(2) else 1
    centre = []
    for axis, (size, side) in enumerate(zip(image_shape, output_shape, strict=True)):
        shown = math.ceil(side / scale)
        first, last = min(0, size - shown), max(0, size - shown)
        origin = int(random.integers(first, last + 1))
        if pixel is not None:
            origin = min(max(pixel[axis] - shown // 2, first), last)
        centre.append(origin + (side / scale - 1) / 2)
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    return Warp(
        middle=((output_shape[0] - 1) / 2, (output_shape[1] - 1) / 2),
        centre=(centre[0], centre[1]),
        matrix=np.array([[cosine, sine * sign], [-sine, cosine * sign]]),
        bend=bend,
        first=(-halo, -halo),
        shape=(output_shape[0] + 2 * halo, output_shape[1] + 2 * halo),
    )


def _cubic(steps: np.ndarray, side: int) -> np.ndarray:
    """What each of three nodes, in the middles of thirds of a side, gives to places along it: (n, 3).

    Source: Keys 1981, "Cubic convolution interpolation for digital image processing", equation 15; beyond the outer nodes they are
    repeated.
    """
    at = (steps + 0.5) / side * _NODES - 0.5
    weights = np.zeros((len(steps), _NODES))
    for node in range(-2, _NODES + 3):
        x = abs(at - node)
        near = (1.5 * x - 2.5) * x * x + 1
        far = ((-0.5 * x + 2.5) * x - 4) * x + 2
        weights[:, min(max(node, 0), _NODES - 1)] += np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights


def read_labels(places: Places, label: Label, *, beyond: int | None = None) -> np.ndarray:
    """The label nearest to each place, and a value where the image ends, by default what counts nowhere: (h, w)."""
    beyond = ignored_in(label.dtype) if beyond is None else beyond
    nearest = places.nearest()
    ranges = [
        (max(int(at.min()), 0), min(int(at.max()) + 1, size)) for at, size in zip(nearest, label.shape, strict=True)
    ]
    if any(start >= stop for start, stop in ranges):
        return np.full(nearest.shape[1:], beyond, dtype=label.dtype)
    (top, bottom), (left, right) = ranges
    part = np.asarray(label[top:bottom, left:right])
    row, col = nearest[0] - top, nearest[1] - left
    is_inside = (row >= 0) & (row < part.shape[0]) & (col >= 0) & (col < part.shape[1])
    flat = np.where(is_inside, row * part.shape[1] + col, 0)
    return np.where(is_inside, part.reshape(-1)[flat], part.dtype.type(beyond))


class Sources(NamedTuple):
    """The parts of images that a batch of windows is looked up in, and where.

    Attributes:
        rows, cols: (n, 2, h, 5) and (n, 2, 5, w) float64, the places of each window.
        frames: (n, 6) int64: where a window's part begins among the pixels, its width, its first row and column in the image, and
            the period with which the mirrored image repeats along both.
    """

    rows: Tensor
    cols: Tensor
    frames: Tensor


def read_sources(readers: Sequence[ImageReader], places: Sequence[Places]) -> tuple[Tensor, Sources]:
    """Read what windows are looked up in: pixels (P, C), part after part, and the places.

    Only pixels of the image are read: a mirror is made on the device. So a crop takes no more than its image.
    """
    parts, frames, begin = [], [], 0
    for reader, place in zip(readers, places, strict=True):
        (top, bottom), (left, right) = (
            _seen(low, high, size) for (low, high), size in zip(place.spans(), reader.shape[:2], strict=True)
        )
        part = reader.read(top, bottom, left, right)
        parts.append(part)
        periods = [max(2 * (size - 1), 1) for size in reader.shape[:2]]
        frames.append([begin, right - left, top, left, *periods])
        begin += part.shape[0] * part.shape[1]
    pixels = np.empty((begin, parts[0].shape[2]), dtype=parts[0].dtype)
    for frame, part in zip(frames, parts, strict=True):
        pixels[frame[0] : frame[0] + part.shape[0] * part.shape[1]].reshape(part.shape)[:] = part
    rows, cols = (torch.from_numpy(np.stack(planes)) for planes in zip(*places, strict=True))
    return torch.from_numpy(pixels), Sources(rows, cols, torch.tensor(frames, dtype=torch.int64))


def _seen(low: int, high: int, size: int) -> tuple[int, int]:
    """The pixels of [0, size) that the mirrored image shows from low to high: from, and up to but not including."""
    first, last = max(low, 0), min(high, size - 1)
    if low < 0:
        first, last = 0, max(last, min(-low, size - 1))
    if high > size - 1:
        first, last = max(min(first, 2 * (size - 1) - high), 0), size - 1
    return first, last + 1


def look_up(pixels: Tensor, sources: Sources) -> Tensor:
    """Interpolate windows (n, h, w, C) of the pixels' type, bilinearly, all on one device.

    Args:
        pixels, sources: as read_sources gives them.
    """
    at = torch.matmul(sources.rows, sources.cols).long()  # (n, 2, h, w)
    part = (at >> (_BITS - _WEIGHT_BITS)).int()
    frames = sources.frames.int()[:, :, None, None, None]
    tap = torch.stack([part >> _WEIGHT_BITS, (part >> _WEIGHT_BITS) + 1])  # (2, n, 2, h, w)
    phase = tap.remainder(frames[None, :, 4:, 0])
    place = torch.minimum(phase, frames[None, :, 4:, 0] - phase) - frames[None, :, 2:4, 0]
    row, col = place[:, None, :, 0] * frames[:, 1, 0], place[None, :, :, 1] + frames[:, 0, 0]
    index = row + col  # (2, 2, n, h, w): the upper and the lower row, of each the left and the right pixel
    is_uint16 = pixels.dtype == torch.uint16  # of which torch looks nothing up: its bits are read as int16
    found = (pixels.view(torch.int16) if is_uint16 else pixels).index_select(0, index.flatten())
    found = found.to(torch.int32).bitwise_and_(0xFFFF) if is_uint16 else found
    values = found.view(*index.shape, pixels.shape[1]).float()
    second = (part & (2**_WEIGHT_BITS - 1)).float()
    weight = torch.stack([2**_WEIGHT_BITS - second, second])  # (2, n, 2, h, w)
    values = values * (weight[:, None, :, 0] * weight[None, :, :, 1])[..., None]
    # One after the other: every kind of processor then rounds alike; of uint8 nothing is rounded at all.
    total = ((values[0, 0] + values[0, 1]) + (values[1, 0] + values[1, 1])) / 4**_WEIGHT_BITS
    if pixels.dtype.is_floating_point:
        return total
    rounded = (total + 0.5).floor()
    return rounded.to(torch.int32).to(torch.int16).view(torch.uint16) if is_uint16 else rounded.to(pixels.dtype)
