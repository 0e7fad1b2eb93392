"""Values into files: rasters in the making, the journal of their content, and the outputs of complete images.

Owns the order in which things reach the disk. Images are finished beside the writing, as many at once as set, for a picture
is compressed more slowly than a GPU computes it. Must not know how values come about.
"""

from __future__ import annotations

import os
import time
import zlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack

import numpy as np
import torch

from unet_dist.imaging.image import DEFAULT_MAX_PIXELS, ImageReader, Placement
from unet_dist.imaging.legend import background_of, write_category_names, write_qgis_style
from unet_dist.imaging.palette import class_palette
from unet_dist.imaging.raster import write_raster
from unet_dist.imaging.regions import write_regions
from unet_dist.imaging.scratch import Scratch
from unet_dist.imaging.writer import write_overlay
from unet_dist.machine.cores import num_cores
from unet_dist.prediction.fetching import Fetching
from unet_dist.prediction.handover import Handover
from unet_dist.prediction.jobs import Job
from unet_dist.prediction.journal import Done, DoneList
from unet_dist.prediction.shares import BatchShare
from unet_dist.prediction.tiles import Piece, fill
from unet_dist.prediction.work import Work
from unet_dist.storage.files import sync_folder

COMMIT_S = 2.0
"""Work that a kill may cost: batches go into the journal this often, as each time waits for the disk."""

_MOST_FINISHERS = 8
"""Assumption: an overlay of 1080x1920 takes a core 0.3 s, and a GPU that computes one faster than in 40 ms is rare."""


class Writing(AbstractContextManager["Writing"]):
    """Writes values into rasters in the making, keeps the journal, and finishes the images of this process.

    Args:
        finishers: images finished at once.
        handover: readers of images that are to be finished.
    """

    def __init__(
        self, work: Work, share: BatchShare, done: Done, rank: int, finishers: int, handover: Handover
    ) -> None:
        self._work = work
        self._handover = handover
        self._remaining = dict(share.remaining)
        self._finished = done.images  # rewritten by nobody: their rasters in the making are gone
        self._list = DoneList(work.journal, rank)
        self._scratches: dict[tuple[int, str], Scratch] = {}
        self._uncommitted: dict[int, dict[int, int]] = {}
        self._has_new_files = False
        self._committed_s = time.monotonic()
        self._finishers = ThreadPoolExecutor(finishers, thread_name_prefix="finisher")
        self._finishing: deque[tuple[int, Future[int]]] = deque()
        self._finishers.submit(int).result()  # one starts now: when memory is short it could not

    def write(self, number: int, pieces: Sequence[Piece], values: Fetching) -> None:
        """Write a batch."""
        checks: dict[int, int] = {}
        for piece, entry in zip(pieces, values.wait(), strict=True):
            if piece.image in self._finished:
                continue
            name = str(self._work.jobs[piece.image].source)
            for kind, part in fill(self._work.rasters, piece, entry, name).items():
                part = np.ascontiguousarray(part)
                self._scratch(piece.image, kind).write(piece.tile.row, piece.tile.col, part)
                checks[piece.image] = zlib.crc32(part.data, checks.get(piece.image, 0))
        self._uncommitted[number] = checks
        complete = []
        for image in {piece.image for piece in pieces}:
            if image in self._remaining:
                self._remaining[image] -= 1
                if self._remaining[image] == 0:
                    complete.append(image)
        if complete or time.monotonic() - self._committed_s > COMMIT_S:
            self._commit()
        for image in sorted(complete):
            self.finish(image)
        self._settle(is_all=False)

    def finish(self, image: int) -> None:
        """Begin to make the outputs of an image whose rasters are complete; waits where too much is being made already."""
        for kind in self._work.rasters:
            if (image, kind) in self._scratches:
                self._scratches.pop((image, kind)).close()
        height, width = self._work.jobs[image].shape
        # An overlay is made in memory, and however many are, they are to take no more than the largest would.
        while self._finishing and sum(size for size, _ in self._finishing) + height * width > DEFAULT_MAX_PIXELS:
            self._settle_one()
        self._finishing.append((height * width, self._finishers.submit(self._make_outputs, image)))

    def end(self) -> None:
        """Say that nothing more comes."""
        self._settle(is_all=True)
        self._commit()
        self._list.append(is_end=True)

    def __exit__(self, *_: object) -> None:
        self._finishers.shutdown(wait=True, cancel_futures=True)
        for scratch in self._scratches.values():
            scratch.close()

    def _make_outputs(self, image: int) -> int:
        height, width = self._work.jobs[image].shape
        is_large = height * width > DEFAULT_MAX_PIXELS  # such a one is made alone
        num_threads = torch.get_num_threads() if is_large else 1
        finish_image(self._work, image, num_threads, self._handover.take(image))
        return image

    def _settle(self, *, is_all: bool) -> None:
        """Put the images that are finished into the journal; raises what became of the others."""
        while self._finishing and (is_all or self._finishing[0][1].done()):
            self._settle_one()

    def _settle_one(self) -> None:
        _, future = self._finishing.popleft()
        image = future.result()
        self._list.append(images=[image])
        remove_scratches(self._work, image)

    def _scratch(self, image: int, kind: str) -> Scratch:
        if (image, kind) not in self._scratches:
            planes, dtype = self._work.rasters[kind]
            path = self._work.journal.scratch_path(image, kind)
            self._has_new_files |= not path.exists()
            self._scratches[image, kind] = Scratch(path, (*planes, *self._work.jobs[image].shape), dtype)
        return self._scratches[image, kind]

    def _commit(self) -> None:
        """Note written pixels in the journal, once they are on the disk."""
        if self._uncommitted:
            for scratch in self._scratches.values():
                scratch.flush()
            if self._has_new_files:
                sync_folder(self._work.journal.folder)
                self._has_new_files = False
            self._list.append(batches=self._uncommitted, checks=self._uncommitted)
            self._uncommitted.clear()
            self._close_idle()
        self._committed_s = time.monotonic()

    def _close_idle(self) -> None:
        """Keep a few rasters open: those of images shared with other processes are not closed by finishing."""
        for key in list(self._scratches)[: -4 * len(self._work.rasters)]:
            self._scratches.pop(key).close()


def finish_image(work: Work, image: int, num_threads: int = 1, reader: ImageReader | None = None) -> None:
    """Make the outputs of an image from its rasters, each whole or not at all.

    Args:
        num_threads: that compress; the bytes are the same.
        reader: of the image, if it is open already; it is closed in the end.

    Raises:
        DataError: an output cannot be written.
    """
    job, palette = work.jobs[image], class_palette(work.num_classes)
    with ExitStack() as stack:
        reader = stack.enter_context(reader or work.open_reader(job.source))
        for kind, (planes, dtype) in work.rasters.items():
            path = work.journal.scratch_path(image, kind)
            scratch = stack.enter_context(Scratch(path, (*planes, *job.shape), dtype))
            values = scratch.values()
            _write(work, image, kind, values, placement=reader.placement, num_threads=num_threads)
            if kind == "labels" and job.overlay is not None:
                write_overlay(
                    job.overlay,
                    reader.read(0, job.shape[0], 0, job.shape[1]),
                    values,
                    palette,
                    background=background_of(work.band_names),
                )
            if kind == "labels":
                _write_beside(job, work.band_names, values, palette)


def _write(work: Work, image: int, kind: str, values: np.ndarray, *, placement: Placement, num_threads: int) -> None:
    """Write a raster into its file, or the planes of overlapping classes into one each."""
    outputs, palette = work.jobs[image].outputs, class_palette(work.num_classes)
    if kind in outputs:
        is_map = kind == "labels" and values.ndim == 2
        write_raster(
            outputs[kind],
            values,
            palette=palette if is_map else None,
            band_names=work.band_names if kind == "labels" and not is_map else None,
            placement=placement,
            num_threads=num_threads,
        )
        return
    for number, plane in enumerate(values):
        colours = np.stack([np.zeros(3, dtype=np.uint8), palette[number]])  # 0 and 1
        write_raster(outputs[f"{kind}/{number}"], plane, palette=colours)


def _write_beside(job: Job, names: Sequence[str], labels: np.ndarray, palette: np.ndarray) -> None:
    """Write what stands beside a label map."""
    if "names" in job.beside:
        write_category_names(job.beside["names"], names)
    if "qgis" in job.beside:
        write_qgis_style(job.beside["qgis"], names, palette)
    if "geojson" in job.beside:
        write_regions(job.beside["geojson"], labels, names, palette)


def remove_scratches(work: Work, image: int) -> None:
    """Delete the rasters in the making of a finished image."""
    work.journal.remove_scratches(image, work.rasters)


def num_finishers(device: torch.device) -> int:
    """Images whose files are made at once: beside a GPU the cores have nothing else to do, on a CPU they compute."""
    if device.type == "cpu":
        return 1
    return max(1, min(_MOST_FINISHERS, num_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
