"""Small networks, pictures and predictions for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

from unet_dist import UNet
from unet_dist.imaging.reader import open_image
from unet_dist.prediction.blended import BlendedTiles
from unet_dist.prediction.exact import ExactTiles
from unet_dist.prediction.jobs import Job, OpenReader, make_jobs
from unet_dist.prediction.journal import Done, Journal
from unet_dist.prediction.run import compute_share, finish_shared, share_of
from unet_dist.prediction.tiles import Tiles
from unet_dist.prediction.values import Recipe
from unet_dist.prediction.work import Work


def build(*, dtype: torch.dtype = torch.float64, depth: int = 2, num_classes: int = 5, **options: Any) -> UNet:
    """Build a small U-Net with fixed weights, in evaluation mode."""
    torch.manual_seed(0)
    return UNet(3, num_classes, base_channels=2, depth=depth, mean=[100.0, 120.0, 90.0], **options).to(dtype).eval()


def draw(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ignore(text: str) -> None:
    """Listen to nothing."""


def make_tiles(
    model: Any, recipe: Recipe, *, blend: bool = False, window_batch: int = 2, say: Callable[[str], None] = ignore
) -> Tiles:
    kind = BlendedTiles if blend else ExactTiles
    return kind(model, recipe, window_batch=window_batch, say=say)


def write_images(folder: Path, shapes: Sequence[tuple[int, int]]) -> list[Path]:
    """Write a TIFF for each shape."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"image{number}.tif" for number in range(len(shapes))]
    for number, (path, shape) in enumerate(zip(paths, shapes, strict=True)):
        tifffile.imwrite(path, draw(*shape, seed=number), photometric="rgb")
    return paths


class Prediction:
    """A prediction without processes: the ranks of a launch take their turns."""

    def __init__(
        self,
        output: Path,
        sources: Sequence[Path],
        *,
        model: Any = None,
        recipe: Recipe = Recipe(),  # noqa: B008, it is frozen
        tile_size: int = 60,
        window_batch: int = 2,
        blend: bool = False,
        format: Any = "auto",
        overlay: bool = False,
        beside: Sequence[str] = (),
        open_reader: OpenReader = open_image,
        tiles: Tiles | None = None,
    ) -> None:
        self.model = model or build()
        self.output = output
        output.mkdir(parents=True, exist_ok=True)
        self.jobs: list[Job] = make_jobs(
            sources,
            output,
            open_reader=open_image,
            in_channels=3,
            rasters=list(recipe.rasters(5)),
            format=format,
            overlay=overlay,
            beside=beside,
        )
        self.journal = Journal(output)
        self.work = Work(
            self.jobs,
            self.journal,
            tiles or make_tiles(self.model, recipe, blend=blend, window_batch=window_batch),
            tile_size=tile_size,
            open_reader=open_reader,
        )

    def launch(self, world_size: int = 1, *, batches: Sequence[int | None] | None = None, finishers: int = 1) -> bool:
        """Start or resume; rank r stops before its batch number batches[r]. Says whether it is complete."""
        if self.journal.settings() is None:
            self.journal.begin({})
        done = self.work.without_lost(self.journal.done())
        self.journal.compact(done)
        shares = [share_of(self.work, done, rank, world_size) for rank in range(world_size)]
        for rank, share in enumerate(shares):
            left = [batches[rank] if batches else None]

            def is_stopped(left: list[int | None] = left) -> bool:
                if left[0] is None:
                    return False
                left[0] -= 1
                return left[0] < 0

            # Each sees what was done at the start, as real processes do.
            seen = Done(set(done.batches), set(done.images))
            compute_share(self.work, share, seen, rank, is_stopped=is_stopped, finishers=finishers)
        complete = [finish_shared(self.work, share, rank, world_size) for rank, share in enumerate(shares)]
        assert len(set(complete)) == 1, complete
        if complete[0]:
            self.journal.remove()
        return complete[0]


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
