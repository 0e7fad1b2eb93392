"""Label maps and overlays of images as files, by any number of processes, through being killed: for the command and for scripts.

Owns how the processes agree on the work, and the lines that are printed about it. Must not know how a tile is computed or written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from unet_dist.assembly.inference import choose_tiles
from unet_dist.assembly.opening import describe_opened, load_network
from unet_dist.assembly.run_data import layout_of
from unet_dist.assembly.sizes import memory_of_process, resolve_tile_size
from unet_dist.config.options import PredictOptions
from unet_dist.config.quantities import parse_bands, parse_select
from unet_dist.data.sources.layout import Layout
from unet_dist.errors import ConfigError, suggest
from unet_dist.imaging.limits import limit_decoding
from unet_dist.imaging.palette import class_palette
from unet_dist.imaging.reader import open_image
from unet_dist.models.answers import answers_of, require_one_class
from unet_dist.models.contract import Network, class_names_of, pixels_of
from unet_dist.models.digest import digest_of
from unet_dist.prediction.jobs import (
    Job,
    OpenReader,
    describe,
    find_left_out,
    find_sources,
    keep_readable,
    kinds_beside,
    make_jobs,
)
from unet_dist.prediction.journal import Done, Journal, output_folder
from unet_dist.prediction.progress import TileProgress, announce, show_progress
from unet_dist.prediction.run import (
    Totals,
    compute_share,
    finish_shared,
    input_records,
    share_of,
    wait_for_others,
)
from unet_dist.prediction.tile_size import choose_tile_size
from unet_dist.prediction.tiles import WHOLE, rasters_of
from unet_dist.prediction.values import Recipe
from unet_dist.prediction.work import Agreed, Work
from unet_dist.prediction.writing import num_finishers
from unet_dist.processes.group import Processes, open_processes
from unet_dist.processes.stopping import NO_WISH, StopWish
from unet_dist.storage.lock import lock_run
from unet_dist.terminal import Teller
from unet_dist.tiling.geometry import smallest_tile_size
from unet_dist.wording import counted, listed


@dataclass(frozen=True)
class PredictedFiles:
    """What a prediction left behind.

    Attributes:
        outputs: of each image by its path: the file of each raster, labels and perhaps probabilities and confidence.
        unreadable: images that cannot be read, each with the reason.
        is_complete: all others are done; else the prediction was asked to stop, and the same call resumes it.
    """

    outputs: dict[str, dict[str, Path]]
    unreadable: dict[str, str]
    is_complete: bool


def predict_files(
    model: str | Path | Network,
    images: str | Path | Sequence[str | Path],
    output: str | Path = "predictions",
    *,
    is_silent: bool = True,
    **options: object,
) -> PredictedFiles:
    """Write a label map and an overlay of each image, as `unet-dist predict` does, with the same bytes.

    Under a launcher, call it in every process: they divide the tiles, also those of one image, and each gets the same answer.
    Memory does not grow with the images. After a kill, the same call resumes.

    >>> predict_files("runs/mine", "photos/", "labels", overlay=False).outputs  # doctest: +SKIP
    {'photos/a.jpg': {'labels': PosixPath('labels/a.png')}}

    Args:
        model: a run's folder, a model folder, a hub id, several joined by + (an ensemble), or a network of models/contract.
        images: files, folders or globs.
        output: folder of the files.
        is_silent: print nothing.
        options: other keys of `unet-dist predict`: tile_size, format, probabilities, trust, ...

    Raises:
        ConfigError, DataError, CheckpointError, LocalityError, SizeError: the request cannot be met; says why.
        LaunchError: a process has finished nothing for too long.
    """
    words = [images] if isinstance(images, str | Path) else list(images)
    valid = [field.name for field in fields(PredictOptions)]
    for key in options:
        if key not in valid:
            raise ConfigError(f"predict_files: got the key {key!r}. {suggest(key, valid)}")
    asked = PredictOptions(**cast("dict[str, Any]", {**options, "output": os.fspath(output)}))
    with open_processes(
        mixed_precision=asked.mixed_precision,
        expected_processes=asked.expected_processes,
        collective_timeout_s=asked.collective_timeout_s,
    ) as processes:
        folder, journal = Path(asked.output), Journal(Path(asked.output))
        with ExitStack() as stack:
            if processes.is_main:
                stack.enter_context(output_folder(folder))
                journal.require_own()
                stack.enter_context(lock_run(journal.folder, "output"))
                stack.callback(journal.leave)
            wish = stack.enter_context(StopWish(folder, watches_file=True))
            prediction = _Prediction(model, [os.fspath(word) for word in words], asked, processes, is_silent=is_silent)
            return _predict(prediction, processes, wish)


class _Prediction:
    """The parts of a prediction, as the user asked for it."""

    def __init__(
        self,
        model: str | Path | Network,
        words: Sequence[str],
        options: PredictOptions,
        processes: Processes,
        *,
        is_silent: bool,
    ) -> None:
        self.words = words
        self.options = options
        self.processes = processes
        self.teller = Teller(speaks=processes.is_main and not is_silent)
        self.journal = Journal(Path(options.output))
        self.model: Network
        word: str | None = None
        if isinstance(model, str | Path):
            word = str(model)
            self.model, self.trained, folder = load_network(word, processes.device, options.trust, options.average)
            self.layout = layout_of(folder)
        else:
            self.model, self.trained = model.to(processes.device).eval(), None
            self.layout = Layout()
        wish, precision = options.mixed_precision, processes.precision
        self.opened = describe_opened(word, self.model, average=options.average, wish=wish, precision=precision)
        if options.confidence:
            require_one_class(self.model, "confidence")
        recipe = Recipe(
            options.probabilities,
            "uint8" if options.confidence else "none",
            flip=options.flip,
            rotations=options.rotations,
            skip_background=options.skip_background,
        )
        self.tiles = choose_tiles(
            self.model,
            recipe,
            blend=options.blend,
            whole=options.whole,
            window_batch=options.window_batch,
            must_be_asked=True,
            say=(lambda _: None) if is_silent else _warner(processes),
        )
        self.pixels = pixels_of(self.model)
        if options.skip_background and self.pixels.dtype != "uint8":
            raise ConfigError(
                f"skip_background: got true for a network of {self.pixels.dtype} images, expected false: bright is 235 of 8 bits. "
                "Remove it; set nodata for pixels without data."
            )
        self.beside = kinds_beside(
            options.also, overlap=answers_of(self.model).overlap, has_names=bool(self.model.class_names)
        )
        limit_decoding(options.decode_memory, options.decode_seconds)
        self.open_reader: OpenReader = partial(
            open_image,
            level=options.level,
            mpp=options.mpp,
            value_range=options.value_limits(),
            nodata=self.pixels.nodata if options.nodata is None else options.nodata,
            bands=self.pixels.bands if options.bands is None else parse_bands(options.bands),
            max_pixels=options.max_pixels,
            channels=self.model.in_channels,
        )

    def work(self, jobs: Sequence[Job], tile_size: int) -> Work:
        """Lay out the tiles of all images."""
        return Work(
            jobs,
            self.journal,
            self.tiles,
            tile_size=tile_size,
            open_reader=self.open_reader,
        )

    def find(self) -> Agreed:
        """Find the images and what an earlier launch has done; by the main process alone, so that all see the same.

        Raises:
            DataError: an input or output that cannot be.
            ConfigError: other settings than those of the unfinished prediction.
        """
        options, teller = self.options, self.teller
        masks: list[Path] = []

        def masks_among(files: Sequence[Path]) -> list[Path]:
            masks.extend(found := self.layout.masks_beside(files))
            return found

        select = {} if options.select is None else parse_select(options.select)
        sources = find_sources(self.words, select, masks_among)
        unreadable: dict[Path, str] = {}
        if masks:
            teller.say(
                f"{counted(len(masks), 'mask')} beside their images left out ({self.layout.mask_names}, as in the training data); "
                "name a file to label it."
            )
        if left_out := find_left_out(self.words):
            names = listed([str(path) for path in left_out])
            teller.say(f"No images, so left out: {names}. Folders inside a folder are not searched.")
        if not options.strict:
            sources, unreadable = keep_readable(
                sources, open_reader=self.open_reader, in_channels=self.model.in_channels, pixels=self.pixels
            )
        jobs = make_jobs(
            sources,
            Path(options.output),
            open_reader=self.open_reader,
            in_channels=self.model.in_channels,
            rasters=list(rasters_of(self.tiles)),
            class_names=class_names_of(self.model) if answers_of(self.model).overlap else None,
            format=options.format,
            overlay=options.overlay,
            beside=self.beside,
            pixels=self.pixels,
            say=teller.say,
        )
        before = self.journal.settings() or {}
        goes_on = bool(before) and options.tile_size == "auto"
        tile_size = int(before["tile_size"]) if goes_on else self._tile_size(jobs)
        # A sum in another number of threads may differ in its last bits, and a launcher sets them by its own rules.
        num_threads = int(before.get("num_threads", torch.get_num_threads()))
        work = self.work(jobs, tile_size)
        settings = {**self._settings(sources, tile_size, num_threads), "num_batches": len(work.batches)}
        if before:
            self.journal.require_same(settings)
        else:
            self.journal.begin(settings)
        done = work.without_lost(self.journal.done())
        self.journal.compact(done)
        scaled = self.model.resize_to if self.tiles.name == WHOLE else None
        for line in (*self.opened, *announce(work, done, options, tile_size, scaled)):
            teller.say(line)
        return Agreed(jobs, tile_size, num_threads, done, {str(path): why for path, why in unreadable.items()})

    def _tile_size(self, jobs: Sequence[Job]) -> int:
        if self.tiles.name == WHOLE:
            return 0  # there are no tiles
        sizes, locality, options = self.model.window_sizes, self.model.locality, self.options
        if options.tile_size == "auto":
            return choose_tile_size(
                self.model,
                [job.shape for job in jobs],
                plan=self.tiles.plan,
                smallest=sizes.minimum if locality is None else smallest_tile_size(sizes, locality),
                window_batch=options.window_batch,
                recipe=self.tiles.recipe,
                memory_bytes=options.memory_bytes() or memory_of_process(self.model, self.processes.device),
                precision=self.processes.precision,
                around_forward=self.processes.autocast,
            )
        return resolve_tile_size(options.tile_size, self.model, self.trained)

    def _settings(self, sources: Sequence[Path], tile_size: int, num_threads: int) -> dict[str, Any]:
        """What the bytes of the outputs depend on."""
        options = self.options
        keys = (
            "window_batch",
            "format",
            "overlay",
            "probabilities",
            "confidence",
            "flip",
            "blend",
            "whole",
            "skip_background",
        )
        return {
            "version": 1,
            "model": digest_of(self.model),
            "inputs": input_records(sources),
            "tile_size": tile_size,
            "num_threads": num_threads,
            "device": self.processes.device.type,
            "mixed_precision": self.processes.precision,
            **{key: getattr(options, key) for key in (*keys, "level", "mpp", "value_range")},
            # A prediction begun before there was one of these keys resumes.
            **{key: value for key in ("rotations", "nodata", "bands", "also") if (value := getattr(options, key))},
        }


def _predict(prediction: _Prediction, processes: Processes, wish: StopWish) -> PredictedFiles:
    """Agree, compute and write, by all processes together."""
    rank, world_size = processes.rank, processes.world_size
    found = processes.broadcast(prediction.find().record() if processes.is_main else None)
    assert found is not None, "the main process finds"
    agreed = Agreed.of(found)
    torch.backends.cudnn.deterministic = True  # the same bytes after a resume; inference uses nothing else that varies
    if processes.device.type == "cpu":
        torch.set_num_threads(agreed.num_threads)
    work = prediction.work(agreed.jobs, agreed.tile_size)
    share = share_of(work, agreed.done, rank, world_size)

    def is_stopped() -> bool:
        if wish.now() != NO_WISH:  # whichever process was asked, all stop
            work.journal.ask_to_stop()
        return work.journal.is_asked_to_stop()

    with _shown(work, agreed.done, prediction.teller):
        compute_share(
            work,
            share,
            agreed.done,
            rank,
            is_stopped=is_stopped,
            around_forward=processes.autocast,
            finishers=num_finishers(processes.device),
        )
        timeout_s = prediction.options.collective_timeout_s
        wait_for_others(work.journal, world_size, timeout_s, is_stopped=is_stopped)
        processes.barrier()
        is_complete = finish_shared(work, share, rank, world_size)
        asked = max(processes.gather(wish.now()))
    if processes.is_main:
        _conclude(work, agreed, wish, asked, prediction.teller, is_complete=is_complete)
    outputs = {str(job.source): dict(job.outputs) for job in work.jobs}
    return PredictedFiles(outputs, agreed.unreadable, is_complete)


def _conclude(work: Work, agreed: Agreed, wish: StopWish, asked: int, teller: Teller, *, is_complete: bool) -> None:
    """Clear away the journal of a complete prediction, and print the outputs.

    Args:
        asked: how the processes were asked to stop.
    """
    if is_complete:
        work.journal.remove()
        for line in describe(work.jobs):
            teller.say(line)
        if any(job.overlay is not None for job in work.jobs):
            teller.legend(work.band_names, class_palette(work.num_classes))
        wish.settle(NO_WISH, step=0)
    else:
        num_done = Totals.of(work, sorted(work.journal.done().batches)).tiles
        teller.say(f"Stopped after {num_done} of {Totals.of(work).tiles} tiles. Run the same command to resume.")
        wish.settle(asked, step=num_done)  # by which a job sees that it gets on
    for path, why in agreed.unreadable.items():
        teller.say(f"Not predicted: {why if path in why else f'{path}: {why}'}")


@contextmanager
def _shown(work: Work, before: Done, teller: Teller) -> Iterator[None]:
    """Show the progress of all processes, on the one that speaks."""
    if not teller.speaks:
        yield
        return
    progress = TileProgress(work, before)
    with teller.progress("tiles", progress.total.tiles, progress.now.tiles) as bar, show_progress(progress, bar):
        yield


def _warner(processes: Processes) -> Callable[[str], None]:
    """Say what happens to one process, whichever it is."""
    name = f"rank {processes.rank}: " if processes.world_size > 1 else ""
    return lambda text: Teller(speaks=True).say(name + text)
