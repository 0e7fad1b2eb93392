"""One image at a time to its label map and a picture of it, with the memory of a few windows.

Owns what happens to an image that somebody hands in: the same files as `predict` writes, and a view small enough for a screen. Must
not know the page.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from unet_dist.errors import DataError
from unet_dist.imaging.image import ImageReader
from unet_dist.imaging.palette import class_palette, colour_table
from unet_dist.imaging.reader import open_image
from unet_dist.imaging.stretch import as_picture
from unet_dist.models.contract import pixels_of
from unet_dist.prediction.jobs import Job, make_jobs
from unet_dist.prediction.journal import Done, Journal
from unet_dist.prediction.run import compute_share, share_of
from unet_dist.prediction.tiles import Tiles
from unet_dist.prediction.work import Work
from unet_dist.wording import duration

VIEW_SIDE_PX = 1600
"""Longest side of the view: about what a screen shows."""

_MAX_PIXELS = 500_000_000  # as in predict

WINDOW_BATCH = 4
"""As in predict: another number may change a label where two classes tie."""


@dataclass(frozen=True)
class Labelled:
    """What became of an image.

    Attributes:
        labels: file of the label map, PNG with a palette, or TIFF beyond 67 megapixels or for a TIFF.
        picture: the image for a screen, at most VIEW_SIDE_PX per side, as WebP.
        colours: the labels of its pixels in the colours of the classes, as PNG.
        step: one pixel of the picture stands for step x step.
        shares: class id -> share of the picture's pixels, largest first.
    """

    labels: Path
    picture: bytes
    colours: bytes
    step: int
    shares: dict[int, float]


class Labeller:
    """Labels images by one network.

    Args:
        tiles: how it predicts.
        tile_size: largest side of a window, px.
        folder: for the files; each image gets a folder of its own in it.
        limit_s: seconds that an image may take, so that others get their turn; looked at before each batch.
    """

    def __init__(self, tiles: Tiles, *, tile_size: int, folder: Path, limit_s: float = float("inf")) -> None:
        self._limit_s = limit_s
        self._tiles = tiles
        self._tile_size = tile_size
        self._folder = folder

    def label(self, path: Path, advance: Callable[[int, int], None]) -> Labelled:
        """Predict an image.

        Args:
            advance: told batches done and batches in all, before each.

        Raises:
            DataError: the image cannot be read, has other channels than the network takes, or takes too long.
        """
        output = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            return self._label(path, output, advance)
        except BaseException:
            shutil.rmtree(output, ignore_errors=True)
            raise

    def _label(self, path: Path, output: Path, advance: Callable[[int, int], None]) -> Labelled:
        begun_s = time.monotonic()
        model = self._tiles.model
        pixels = pixels_of(model)
        open_reader = partial(
            open_image, max_pixels=_MAX_PIXELS, nodata=pixels.nodata, bands=pixels.bands, channels=model.in_channels
        )
        (job,) = make_jobs(
            [path],
            output,
            open_reader=open_reader,
            in_channels=model.in_channels,
            pixels=pixels,
            rasters=["labels"],
            format="auto",
            overlay=False,
        )
        work = Work(
            [job],
            Journal(output),
            self._tiles,
            tile_size=self._tile_size,
            open_reader=open_reader,
        )
        started = 0

        def before_batch() -> bool:
            nonlocal started
            if time.monotonic() - begun_s > self._limit_s:
                raise DataError(
                    f"{path} takes longer than {duration(self._limit_s)}, of which {started} of {len(work.batches)} batches are "
                    "done. Cut it smaller, or start the demo with another --seconds_per_image."
                )
            advance(started, len(work.batches))
            started += 1
            return False

        work.journal.begin({})
        compute_share(work, share_of(work, Done(), 0, 1), Done(), 0, is_stopped=before_batch)
        work.journal.remove()
        with open_reader(path) as reader:
            return self._show(job, reader)

    def _show(self, job: Job, reader: ImageReader) -> Labelled:
        step = 1
        while max(job.shape) > VIEW_SIDE_PX * step:
            step *= 2
        labels = _every_nth(job.outputs["labels"], step)
        shown = as_picture(shrink(reader, step))
        picture = Image.fromarray(shown if shown.shape[2] == 3 else shown[:, :, 0])
        colours = colour_table(class_palette(self._tiles.model.num_classes))
        ids, counts = np.unique(labels, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        shares = {int(ids[i]): float(counts[i] / labels.size) for i in order}
        drawn = Image.fromarray(colours[labels])
        return Labelled(job.outputs["labels"], _encoded(picture, "WEBP"), _encoded(drawn, "PNG"), step, shares)


def _encoded(picture: Image.Image, kind: str) -> bytes:
    encoded = io.BytesIO()
    picture.save(encoded, kind)
    return encoded.getvalue()


def _every_nth(path: Path, step: int) -> np.ndarray:
    """Every step-th label of a label map, step a power of two: from the overviews of a TIFF, which hold just these."""
    if path.suffix == ".png":
        with Image.open(path) as picture:
            return np.asarray(picture)[::step, ::step]
    with tifffile.TiffFile(path) as file:
        levels = file.series[0].levels
        number = min(step.bit_length() - 1, len(levels) - 1)
        labels: np.ndarray = levels[number].asarray()
        rest = step >> number
        return labels[::rest, ::rest]


def shrink(reader: ImageReader, step: int) -> np.ndarray:
    """Average blocks of step x step px, those at the right and lower border as far as they go: (H, W, C).

    Of 8 bits that, of others float32.

    Memory: step rows of the image.
    """
    height, width, _ = reader.shape
    rows = []
    starts = np.arange(0, width, step)
    for row in range(0, height, step):
        band = reader.read(row, min(row + step, height), 0, width).astype(np.float32).mean(axis=0)  # (W, C)
        sums = np.add.reduceat(band, starts, axis=0)
        means = sums / np.diff(np.append(starts, width))[:, None]
        rows.append(np.rint(means).astype(np.uint8) if reader.dtype == np.uint8 else means)
    return np.stack(rows)
