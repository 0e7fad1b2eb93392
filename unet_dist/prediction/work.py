"""What there is to do in a prediction, the same on every process.

Owns how images, tiles and batches belong together, and what of a journal still counts. Must not know who does it, or when.
"""

from __future__ import annotations

from collections.abc import Sequence

from unet_dist.prediction.jobs import Job, OpenReader
from unet_dist.prediction.journal import Done, Journal
from unet_dist.prediction.tiles import Tiles
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
        self.rasters = tiles.recipe.rasters(self.num_classes)
        self.open_reader = open_reader
        self.plans = [tiles.plan(job.shape, tile_size) for job in jobs]
        self.batches: BatchPlan = plan_batches(self.plans, tiles.pieces_at_once)

    def without_lost(self, done: Done) -> Done:
        """Take out of the journal what somebody has deleted since: outputs, or rasters in the making."""
        images = {i for i in done.images if all(path.exists() for path in self.jobs[i].outputs.values())}
        batches = {
            number
            for number in done.batches
            if all(image in images or self._has_scratch(image) for image in {r.image for r in self.batches[number]})
        }
        return Done(batches, images)

    def _has_scratch(self, image: int) -> bool:
        return all(self.journal.scratch_path(image, kind).exists() for kind in self.rasters)
