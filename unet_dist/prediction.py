"""Label maps of many images, of any size, by any number of processes.

Owns how the windows of all images become one work list, who computes what, and how labels reach their file. Batches of
windows are formed over all images and whole batches are given to ranks, so a label map is the same on any number of
processes. The only collective is the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_dist.distributed import Processes
from unet_dist.errors import DataError
from unet_dist.imaging.palette import class_palette
from unet_dist.imaging.reader import ImageReader
from unet_dist.imaging.scratch import Scratch
from unet_dist.imaging.writer import write_label_map, write_overlay
from unet_dist.tiling.batches import plan_batches
from unet_dist.tiling.geometry import assign, plan_tiles
from unet_dist.tiling.inference import predict_batch, require_locality

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".npy", ".zarr")


@dataclass(frozen=True)
class Job:
    """One image to predict.

    Attributes:
        source: the image.
        labels: where the label map goes.
        overlay: where the overlay goes, or None.
    """

    source: Path
    labels: Path
    overlay: Path | None


def find_jobs(inputs: Sequence[str], output: Path, *, overlay: bool) -> list[Job]:
    """Expand files, folders and globs into jobs, in the order of their names.

    Raises:
        DataError: an input that is nothing, two images of one name, or an output that would overwrite an input.
    """
    sources: list[Path] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir() and path.suffix != ".zarr":
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        elif path.exists():
            found = [path]
        else:
            found = (
                sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
                if "*" in text or "?" in text
                else []
            )
        if not found:
            raise DataError(
                f"{text}: got no image, expected an image file, a folder of images or a glob that fits some."
            )
        sources += found
    jobs: dict[str, Job] = {}
    for source in dict.fromkeys(sources):
        name = source.stem
        if name in jobs:
            raise DataError(
                f"{source} and {jobs[name].source} would both become {name}.png. Predict them into two folders."
            )
        jobs[name] = Job(source, output / f"{name}.png", output / f"{name}_overlay.png" if overlay else None)
        for path in (jobs[name].labels, jobs[name].overlay):
            if path is not None and path.exists() and path.samefile(source):
                raise DataError(f"{path}: the output would overwrite the input. Choose another --output.")
    return list(jobs.values())


def predict_jobs(
    model: Any,
    jobs: Sequence[Job],
    processes: Processes,
    *,
    open_reader: Callable[[Path], ImageReader],
    tile_size: int,
    window_batch: int,
    advance: Callable[[int], None],
) -> None:
    """Predict all jobs; returns when every file of every process stands.

    Args:
        model: in evaluation mode, on the device.
        open_reader: opens an image.
        tile_size: largest side of a window, px.
        advance: told the number of windows this process has computed.

    Raises:
        LocalityError, DataError: as predict_batch; the first failure of reading, computing or writing.
    """
    locality = require_locality(model)
    palette = class_palette(model.num_classes)
    with ExitStack() as stack:
        readers = [stack.enter_context(open_reader(job.source)) for job in jobs]
        plans = [plan_tiles(reader.shape[:2], tile_size, model.window_sizes, locality) for reader in readers]
        scratches = [Scratch(_scratch_path(job), plan.image_shape) for job, plan in zip(jobs, plans, strict=True)]
        batches = plan_batches(plans, window_batch)
        with ThreadPoolExecutor(1, thread_name_prefix="writer") as writer:
            pending: list[Any] = []
            for number in assign(len(batches), processes.rank, processes.world_size):
                refs = batches[number]
                windows = [(readers[ref.image], plans[ref.image], plans[ref.image][ref.tile]) for ref in refs]
                with processes.autocast():
                    labels = predict_batch(model, windows)
                for ref, part in zip(refs, labels, strict=True):
                    tile = plans[ref.image][ref.tile]
                    pending.append(writer.submit(scratches[ref.image].write, tile.row, tile.col, part.cpu().numpy()))
                while len(pending) > 2 * window_batch:
                    pending.pop(0).result()
                advance(len(refs))
            for written in pending:
                written.result()
        processes.barrier()
        for number in range(processes.rank, len(jobs), processes.world_size):
            _finish(jobs[number], readers[number], scratches[number], palette)
        processes.barrier()
        for job, scratch in zip(jobs, scratches, strict=True):
            scratch.close()
            if processes.is_main:
                _scratch_path(job).unlink(missing_ok=True)


def _scratch_path(job: Job) -> Path:
    return job.labels.with_name(f".{job.labels.stem}.partial")


def _finish(job: Job, reader: ImageReader, scratch: Scratch, palette: Any) -> None:
    labels = scratch.values()
    write_label_map(job.labels, labels, palette)
    if job.overlay is not None:
        write_overlay(job.overlay, reader.read(0, labels.shape[0], 0, labels.shape[1]), labels, palette)


def describe(jobs: Sequence[Job]) -> Iterator[str]:
    """A line a job for the few that fit on a screen."""
    for job in jobs[:5]:
        yield f"{job.source.name} -> {job.labels}" + (f", {job.overlay.name}" if job.overlay else "")
    if len(jobs) > 5:
        yield f"and {len(jobs) - 5} more"
