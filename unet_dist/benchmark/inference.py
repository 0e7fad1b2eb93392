"""The prediction of images end to end, and the bare network on the same windows.

Owns how `predict` is repeated for the clock: from the files of the images to the files of their label maps, by the code that
predicts. Must not know how a network is loaded.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unet_dist.benchmark.timing import seconds
from unet_dist.imaging.reader import ImageReader, open_image
from unet_dist.imaging.writer import write_picture
from unet_dist.models.contract import Network
from unet_dist.prediction.exact import ExactTiles
from unet_dist.prediction.jobs import Job, make_jobs
from unet_dist.prediction.journal import Done, Journal
from unet_dist.prediction.run import compute_share, finish_shared, share_of, wait_for_others
from unet_dist.prediction.work import Work
from unet_dist.processes.group import Processes
from unet_dist.tiling.windows import normalise

LARGEST_SIDE_PX = 4096
"""Of an image that is predicted: more takes longer and shows nothing else."""


class Prediction:
    """Images to predict, again and again.

    Args:
        model: in evaluation mode, on its device.
        images: files.
        folder: for the outputs of each repetition, which are removed; the same for all processes.

    Raises:
        LocalityError: the network has no finite halo.
    """

    def __init__(
        self,
        model: Network,
        images: Sequence[Path],
        processes: Processes,
        folder: Path,
        *,
        tile_size: int,
        window_batch: int,
        timeout_s: float,
    ) -> None:
        self._model = model
        self._images = list(images)
        self._processes = processes
        self._folder = folder
        self._tile_size = tile_size
        self._timeout_s = timeout_s
        self._tiles = ExactTiles(model, window_batch=window_batch)
        self._count = 0
        self.num_images = len(self._images)
        plans = [self._tiles.plan(shape_of(image), tile_size) for image in images]
        self.pixels = sum(plan.image_shape[0] * plan.image_shape[1] for plan in plans)
        self.windows = sum(map(len, plans))
        self.window_shape = plans[0].window_shape
        self.image_shape = plans[0].image_shape

    def seconds(self) -> float:
        """Seconds from the files of the images to those of their label maps and overlays, by all processes together."""
        self._count += 1
        output = self._folder / f"{self._count}"
        if self._processes.is_main:
            output.mkdir(parents=True)
        self._processes.barrier()
        started = time.perf_counter()
        with as_in_predict():
            work = self._work(output)
            self._predict(work)
        taken = time.perf_counter() - started
        if self._processes.is_main:
            shutil.rmtree(output)
        return taken

    def bare_seconds(self) -> float:
        """Seconds of the network alone on the same windows, which are on the device and normalised already.

        Each process computes its own windows; the one that takes longest counts. A process may have none.
        """
        work, rank, world_size = self._laid_out, self._processes.rank, self._processes.world_size
        sizes = [len(work.batches[number]) for number in share_of(work, Done(), rank, world_size).batches]
        parameter = next(self._model.parameters())
        generator = np.random.default_rng(0)
        pixels = generator.integers(
            0, 256, (max(sizes, default=1), *self.window_shape, self._model.in_channels), dtype=np.uint8
        )
        images = normalise(
            torch.from_numpy(pixels).to(parameter.device),
            self._model.mean,
            self._model.std,
            parameter.dtype,
        )

        def forward() -> None:
            for size in sizes:
                self._model(images[:size])

        with torch.inference_mode(), as_in_predict(), self._processes.autocast():
            taken = seconds(forward, parameter.device)
        return max(self._processes.gather(taken))

    @property
    def _laid_out(self) -> Work:
        return self._make_work(self._jobs(self._folder), self._folder)

    def _jobs(self, output: Path) -> Any:
        return make_jobs(
            self._images,
            output,
            open_reader=open_image,
            in_channels=self._model.in_channels,
            rasters=["labels"],
            format="auto",
            overlay=True,
        )

    def _make_work(self, jobs: Any, output: Path) -> Work:
        return Work(
            jobs,
            Journal(output),
            self._tiles,
            tile_size=self._tile_size,
            open_reader=open_image,
        )

    def _work(self, output: Path) -> Work:
        """Lay out the work as `predict` does: the main process finds the images and begins the journal."""
        records = None
        if self._processes.is_main:
            jobs = self._jobs(output)
            Journal(output).begin({"images": len(jobs)})
            records = [job.record() for job in jobs]
        return self._make_work([Job.of(record) for record in self._processes.broadcast(records) or []], output)

    def _predict(self, work: Work) -> None:
        processes, done = self._processes, Done()
        share = share_of(work, done, processes.rank, processes.world_size)
        compute_share(work, share, done, processes.rank, around_forward=processes.autocast)
        wait_for_others(work.journal, processes.world_size, self._timeout_s, is_stopped=lambda: False)
        processes.barrier()
        is_complete = finish_shared(work, share, processes.rank, processes.world_size)
        assert is_complete
        processes.barrier()
        if processes.is_main:
            work.journal.remove()


@contextmanager
def as_in_predict() -> Iterator[None]:
    """The setting of `predict`, which training does not have."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def shape_of(image: Path) -> tuple[int, int]:
    """Height and width of an image file."""
    with open_image(image) as reader:
        return reader.shape[0], reader.shape[1]


def image_pixels(image: np.ndarray | ImageReader) -> np.ndarray:
    """An image (H, W, C) uint8 in memory; of a larger one its upper left corner."""
    if isinstance(image, np.ndarray):
        return image[:LARGEST_SIDE_PX, :LARGEST_SIDE_PX]
    height, width = (min(side, LARGEST_SIDE_PX) for side in image.shape[:2])
    return image.read(0, height, 0, width)


def write_images(folder: Path, images: Sequence[np.ndarray]) -> list[Path]:
    """Write images (H, W, C) uint8 as files to predict: PNG, and .npy for channels that PNG has not."""
    paths = []
    for number, image in enumerate(images):
        is_picture = image.shape[2] in (1, 3)
        path = folder / f"image-{number}{'.png' if is_picture else '.npy'}"
        if is_picture:
            write_picture(path, image)
        else:
            np.save(path, image)
        paths.append(path)
    return paths
