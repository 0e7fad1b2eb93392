"""Training crops: from a draw to the windows the network sees and the labels of their outputs.

Owns where a crop lies, how it is flipped and augmented, and what each of its tiles shows and counts. A window is read by the
code that reads a prediction's window, so that training and prediction see the same thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from unet_dist.data.batches import geometry
from unet_dist.data.batches.recipes import Recipe
from unet_dist.data.batches.sampler import ClassBalance, Draw, crop_generator, geometry_generator
from unet_dist.data.decoded.labels import Label, ignored_in
from unet_dist.data.decoded.planes import is_class
from unet_dist.imaging.pixels import filled
from unet_dist.imaging.reader import ArrayReader, ImageReader, read_window, read_window_into
from unet_dist.tiling.geometry import Tile

if TYPE_CHECKING:
    from unet_dist.data.batches.borders import BorderWeights


class WindowedSamples(Protocol):
    """A split whose images are read by windows and whose labels by slices: files of any size need no decoded copy."""

    @property
    def ids(self) -> Sequence[str]:
        """The names of the samples."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray | ImageReader:
        """The image of a sample, (H, W, C)."""

    def label(self, index: int) -> Label:
        """The label map of a sample, (H, W) uint8, or its planes as planes.py packs them."""


class SampleTransform(Protocol):
    """Changes a training crop: a window and its labels alike, as a function of the seed alone."""

    def __call__(
        self, image: np.ndarray, labels: np.ndarray, border: np.ndarray | None = None, *, seed: int
    ) -> tuple[np.ndarray, ...]:
        """Transform (H, W, C) of the images' type, labels (H, W) uint8 (255 counts nowhere) and a border map (H, W) float32.

        The arrays are read-only. Calls in a process come one at a time. Draw from `np.random.default_rng(seed)`, never from a
        state that lasts between calls: then any number of processes, and a resumed run, see the same crops.

        Returns:
            The same, in this order, with the shapes and types that came in.
        """


@dataclass(frozen=True)
class Crop:
    """A crop that is yet to be read, whole or by windows.

    Positions are the crop's own: its output begins at (0, 0), and so does its window, `halo` pixels further out.

    Attributes:
        reader: the pixels, and label: the class ids, each with where the crop lies in them:
        window_origin: of the crop's window in the reader.
        output_origin: of the crop's output in the label.
        output_shape: (height, width) of the output.
        halo: pixels of the window on each side of the output.
        is_flipped: whether left is right.
        border: the extra weights of pixels (H, W), placed as the label; None without border weights.
        warp: where its pixels come from, in place of origins and is_flipped; None: from there.
    """

    reader: ImageReader
    label: Label
    window_origin: tuple[int, int]
    output_origin: tuple[int, int]
    output_shape: tuple[int, int]
    halo: int
    is_flipped: bool
    border: np.ndarray | None = None
    warp: geometry.Warp | None = None

    def places(self, tile: Tile, height: int, width: int, *, margin: int = 0) -> geometry.Places:
        """Where the pixels of a tile's window come from, `margin` more on each side: of a crop with a warp.

        Args:
            height, width: of the window.
        """
        assert self.warp is not None
        row, col = tile.row - self.halo - margin, tile.col - self.halo - margin
        return self.warp.places(row, col, height + 2 * margin, width + 2 * margin)

    def read_window(self, window: np.ndarray, tile: Tile) -> None:
        """Read the window of a tile into (h, w, C) of the image's type that is there."""
        row, col = tile.row + self.window_origin[0], tile.col
        if self.is_flipped:
            col = self.output_shape[1] + 2 * self.halo - tile.col - window.shape[1]
        read_window_into(window, self.reader, row, col + self.window_origin[1], is_flipped=self.is_flipped)

    def read_labels(self, labels: np.ndarray, border: np.ndarray | None, tile: Tile) -> None:
        """Read the labels of a tile's output and, where there are any, their border weights.

        Labels outside the tile are IGNORED: another tile counts them, or none does.

        Args:
            labels: (h - 2 halo, w - 2 halo) of the label's type, written to.
            border: of the labels' shape, float32, written to; 0 where a label is IGNORED for another tile.
        """
        col = self.output_shape[1] - tile.col - tile.width if self.is_flipped else tile.col
        origin = self.output_origin[0] + tile.row, self.output_origin[1] + col

        def cut(target: np.ndarray, plane: Label, beyond: int) -> None:
            target[tile.height :] = beyond
            target[: tile.height, tile.width :] = beyond
            counted = target[: tile.height, : tile.width]
            if self.warp is not None:
                counted[:] = geometry.read_labels(self.warp.places(*tile), plane, beyond=beyond)
                return
            _read_plane(counted[:, ::-1] if self.is_flipped else counted, plane, *origin, beyond=beyond)

        cut(labels, self.label, ignored_in(labels.dtype))
        if border is not None and self.border is not None:
            cut(border, self.border, 0)

    def read_window_labels(self, tile: Tile, shape: tuple[int, int]) -> np.ndarray:
        """The labels under the whole window of a tile, halo included: of its shape, ignored beyond the image."""
        row, col = tile.row - self.halo, tile.col - self.halo
        if self.warp is not None:
            return geometry.read_labels(self.warp.places(row, col, *shape), self.label)
        labels = np.empty(shape, dtype=self.label.dtype)
        if self.is_flipped:
            col = self.output_shape[1] - col - shape[1]
        origin = self.output_origin[0] + row, self.output_origin[1] + col
        beyond = ignored_in(labels.dtype)
        _read_plane(labels[:, ::-1] if self.is_flipped else labels, self.label, *origin, beyond=beyond)
        return labels


@dataclass(frozen=True)
class CropReader:
    """Reads the crop of a draw: a pure function of (seed, draw).

    Attributes:
        samples: the training split.
        seed: the run's seed.
        window_side: side of the input window, px; None for whole images, each with its own shape.
        halo: pixels of the window on each side that the output leaves out.
        horizontal_flip: whether half of the crops are mirrored.
        augmentation: what else happens to a window and its labels.
        borders: what pixels between objects weigh beyond their class.
        balance: how many crops are centred on a pixel of a class drawn evenly.
        recipe: what happens to them on the device.
        zero: of each channel the value that becomes 0 when it is normalised, which stands where an image has no data.
    """

    samples: WindowedSamples
    seed: int
    window_side: int | None
    halo: int
    horizontal_flip: bool = True
    augmentation: SampleTransform | None = None
    borders: BorderWeights | None = None
    balance: ClassBalance | None = None
    recipe: Recipe | None = None
    zero: tuple[float, ...] | None = None

    def output_shape(self, index: int) -> tuple[int, int]:
        """(height, width) of the output of a sample's crops."""
        if self.window_side is None:
            height, width = self.samples.label(index).shape
            return height, width
        side = self.window_side - 2 * self.halo
        return side, side

    def open(self, draw: Draw) -> Crop:
        """Place a crop; an augmented one is read here, as a transform may move pixels across the whole of it.

        The origin of the output is uniform over the image, or its centre uniform over the pixels of the class that was drawn, as
        near as the image's border lets it. Where the crop is larger than the image it covers it, and the
        labels beyond the image are IGNORED.
        """
        image, label = self.samples.image(draw.index), self.samples.label(draw.index)
        reader = ArrayReader(image) if isinstance(image, np.ndarray) else image
        reader = reader if self.zero is None else filled(reader, self.zero)
        if self.recipe is not None and self.recipe.geometry is not None:
            return self._warped(draw, reader, label)
        random = crop_generator(self.seed, draw.position)
        shape, halo = self.output_shape(draw.index), self.halo
        row, col = (
            int(random.integers(crop_origin_range(size, side))) for size, side in zip(label.shape, shape, strict=True)
        )
        is_flipped = bool(random.integers(2)) and self.horizontal_flip
        if draw.centre is not None:
            pixel = _pixel_of(label, draw.centre, random)
            row, col = (
                min(max(place - side // 2, 0), crop_origin_range(size, side) - 1)
                for place, side, size in zip(pixel, shape, label.shape, strict=True)
            )
        border = None if self.borders is None else self.borders.of(draw.index, label)
        crop = Crop(reader, label, (row - halo, col - halo), (row, col), shape, halo, is_flipped, border)
        if self.augmentation is None:
            return crop
        height, width = (side + 2 * halo for side in shape)
        window = read_window(reader, row - halo, col - halo, height, width)
        # A geometric transform moves labels inwards, so those of the halo are read too.
        planes = [np.empty((height, width), dtype=label.dtype)]
        _read_plane(planes[0], label, row - halo, col - halo, beyond=ignored_in(label.dtype))
        if border is not None:
            planes.append(np.empty((height, width), dtype=np.float32))
            _read_plane(planes[1], border, row - halo, col - halo, beyond=0)
        window, labels, *moved = self.augmentation(window, *planes, seed=int(random.integers(2**32)))
        return replace(
            crop,
            reader=ArrayReader(window),
            label=labels,
            window_origin=(0, 0),
            output_origin=(halo, halo),
            border=moved[0] if moved else None,
        )

    def _warped(self, draw: Draw, reader: ImageReader, label: Label) -> Crop:
        """Place a crop whose pixels the device looks up in the image."""
        assert self.recipe is not None
        assert self.recipe.geometry is not None
        random = geometry_generator(self.seed, draw.position)
        shape = self.output_shape(draw.index)
        warp = geometry.draw_warp(
            self.recipe.geometry,
            random,
            image_shape=(label.shape[0], label.shape[1]),
            output_shape=shape,
            halo=self.halo,
            mirrors=self.horizontal_flip,
            pixel=None if draw.centre is None else _pixel_of(label, draw.centre, random),
        )
        border = None if self.borders is None else self.borders.of(draw.index, label)
        return Crop(reader, label, (0, 0), (0, 0), shape, self.halo, is_flipped=False, border=border, warp=warp)

    def read(self, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        """Read a crop undivided: its window (h, w, C) and its labels (h - 2 halo, w - 2 halo)."""
        crop = self.open(draw)
        height, width = crop.output_shape
        shape = (height + 2 * self.halo, width + 2 * self.halo, crop.reader.shape[2])
        window = np.empty(shape, dtype=crop.reader.dtype)
        labels = np.empty((height, width), dtype=crop.label.dtype)
        crop.read_window(window, Tile(0, 0, height, width))
        crop.read_labels(labels, None, Tile(0, 0, height, width))
        return window, labels


def _read_plane(values: np.ndarray, plane: Label, row: int, col: int, *, beyond: int) -> None:
    """Fill (height, width) values with what lies at (row, col) of a plane such as labels; what lies beyond it gets a value."""
    height, width = values.shape
    top, bottom = max(row, 0), min(row + height, plane.shape[0])
    left, right = max(col, 0), min(col + width, plane.shape[1])
    if (bottom - top, right - left) != (height, width):
        values[:] = beyond
    if top < bottom and left < right:
        values[top - row : bottom - row, left - col : right - col] = plane[top:bottom, left:right]


def _pixel_of(label: Label, of_class: int, random: np.random.Generator) -> tuple[int, int]:
    """Choose a pixel of a class."""
    pixels = np.flatnonzero(is_class(label[: label.shape[0], : label.shape[1]], of_class))
    return divmod(int(pixels[random.integers(len(pixels))]), label.shape[1])


def crop_origin_range(image_side: int, output_side: int) -> int:
    """Return how many origins a training crop's output may have along an axis: 0 up to, not including, this number.

    The output lies wholly inside the image; where it exceeds the image the origin is 0, the crop covers the image and
    the pixels outside are ignored in the loss.
    """
    assert min(image_side, output_side) >= 1, (image_side, output_side)
    return max(image_side - output_side, 0) + 1
