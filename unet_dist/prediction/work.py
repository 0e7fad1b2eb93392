"""What there is to do in a prediction, the same on every process.

Owns how images, tiles and batches belong together, what of a journal still counts, and how one process tells the others. Must
not know who does it, or when.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unet_dist.imaging.scratch import Scratch
from unet_dist.models.contract import class_names_of
from unet_dist.prediction.jobs import Job, OpenReader
from unet_dist.prediction.journal import Done, Journal
from unet_dist.prediction.tiles import Tiles, rasters_of
from unet_dist.tiling.batches import BatchPlan, plan_batches


class Work:
    """What there is to do, the same on every process.

    Args:
        tiles: how the images are predicted, and which rasters are made.
        tile_size: largest side of a window, px.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        journal: Journal,
        tiles: Tiles,
        *,
        tile_size: int,
        open_reader: OpenReader,
    ) -> None:
        self.jobs = jobs
        self.journal = journal
        self.tiles = tiles
        self.num_classes = tiles.model.num_classes
        self.rasters = rasters_of(tiles)
        self.band_names = class_names_of(tiles.model)
        self.open_reader = open_reader
        self.plans = [tiles.plan(job.shape, tile_size) for job in jobs]
        self.batches: BatchPlan = plan_batches(self.plans, tiles.pieces_at_once)

    def without_lost(self, done: Done) -> Done:
        """Take out of the journal what somebody has deleted or changed since: outputs, or rasters in the making.

        Reads the written pixels of unfinished images: once per launch, by one process.

        Raises:
            DataError: a raster is of another size, or no file.
        """
        images = {
            i
            for i in done.images
            if i < len(self.jobs)
            and all(path.exists() for path in (*self.jobs[i].outputs.values(), *self.jobs[i].beside.values()))
        }
        batches: set[int] = set()
        rasters: dict[int, list[np.ndarray]] = {}
        for number in sorted(done.batches & set(range(len(self.batches)))):
            unfinished = {ref.image for ref in self.batches[number]} - images
            if not all(self._has_scratch(image) for image in unfinished):
                continue
            for image in unfinished - rasters.keys():
                rasters[image] = self._map_rasters(image)
            told = done.checks.get(number, {})
            if all(told[image] == self._check(number, image, rasters[image]) for image in unfinished & told.keys()):
                batches.add(number)
        return Done(batches, images, checks={n: checks for n, checks in done.checks.items() if n in batches})

    def _has_scratch(self, image: int) -> bool:
        return all(self.journal.scratch_path(image, kind).exists() for kind in self.rasters)

    def _map_rasters(self, image: int) -> list[np.ndarray]:
        maps = []
        for kind, (planes, dtype) in self.rasters.items():
            path = self.journal.scratch_path(image, kind)
            with Scratch(path, (*planes, *self.jobs[image].shape), dtype) as scratch:
                maps.append(scratch.values())
        return maps

    def _check(self, number: int, image: int, rasters: Sequence[np.ndarray]) -> int:
        """Take the checksum of what lies of a batch in the rasters of an image, in the order in which it was written."""
        check = 0
        for ref in self.batches[number]:
            if ref.image == image:
                tile = self.plans[image][ref.tile]
                rows, cols = slice(tile.row, tile.row + tile.height), slice(tile.col, tile.col + tile.width)
                for values in rasters:
                    check = zlib.crc32(np.ascontiguousarray(values[..., rows, cols]).data, check)
        return check


@dataclass(frozen=True)
class Agreed:
    """What the main process found, and all go by."""

    jobs: list[Job]
    tile_size: int
    num_threads: int
    done: Done
    unreadable: dict[str, str]
    """Images that cannot be read, each with the reason."""

    def record(self) -> dict[str, Any]:
        """The same as JSON, in which it travels."""
        done = {"batches": sorted(self.done.batches), "images": sorted(self.done.images)}
        jobs = [job.record() for job in self.jobs]
        return {
            "jobs": jobs,
            "tile_size": self.tile_size,
            "num_threads": self.num_threads,
            "done": done,
            "unreadable": self.unreadable,
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Agreed:
        """What a record says."""
        done = Done(set(record["done"]["batches"]), set(record["done"]["images"]))
        return cls(
            [Job.of(job) for job in record["jobs"]],
            record["tile_size"],
            record["num_threads"],
            done,
            record["unreadable"],
        )
