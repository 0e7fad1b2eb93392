"""What a run will need, from its config: sizes, tiles, how the batch is cut, and what decides the memory.

Owns the planned run, and where the facts about its data come from. Must not know how a plan is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unet_dist.assembly.data_set import settings_of, source_of
from unet_dist.assembly.network import simulated
from unet_dist.assembly.sizes import resolve_tile_size, settle_crops
from unet_dist.config.batch_cut import BatchCut
from unet_dist.config.options import PlanOptions
from unet_dist.config.quantities import parse_shape
from unet_dist.config.sections import Config
from unet_dist.config.transforms import is_recipe
from unet_dist.data.batches.ahead import AHEAD
from unet_dist.data.batches.shares import is_held_at_once
from unet_dist.data.decoded.cache import Cache, open_cache
from unet_dist.data.decoded.preview import look_at
from unet_dist.data.sources.groups import Grouping
from unet_dist.data.sources.pairs import Source
from unet_dist.errors import DataError
from unet_dist.planner.simulation import SimulatedRun
from unet_dist.processes.precision import has_fast_bf16
from unet_dist.terminal import Teller
from unet_dist.tiling.geometry import TilePlan, plan_tiles

# Images of the reference task, where nobody can say.
_REFERENCE_SHAPE, _REFERENCE_CLASSES, _REFERENCE_CHANNELS = (1080, 1920), 35, 3


@dataclass(frozen=True)
class KnownData:
    """Facts about the data: the usual image, channels and classes, and where it is known from."""

    image_shape: tuple[int, int]
    channels: int
    num_classes: int
    known_from: str
    pixel_bytes: int = 1
    """Of one channel: more than 1 where the decoded cache holds another type than uint8."""


@dataclass(frozen=True)
class PlannedRun:
    """A run as planned.

    Attributes:
        input_shape: height and width of a crop's window, undivided.
        crop: its tiles, one where it is undivided.
        tiles: those of an image in prediction; None for a network without a finite halo.
        share: windows that a process computes in a step.
        setting: what decides the memory.
    """

    config: Config
    data: KnownData
    setting: SimulatedRun
    cut: BatchCut
    input_shape: tuple[int, int]
    crop: TilePlan
    tile_size: int
    tiles: TilePlan | None
    share: int

    @property
    def window_batch(self) -> int:
        """Windows predicted at once: no more than an image has."""
        return min(self.config.run.window_batch, len(self.tiles)) if self.tiles else self.config.run.window_batch

    @property
    def prediction_window(self) -> tuple[int, int]:
        """Height and width of a prediction window."""
        return self.tiles.window_shape if self.tiles else (self.tile_size, self.tile_size)


def _ahead_bytes(config: Config, cut: BatchCut, crop: TilePlan, halo: int, share: int, bytes_per_px: int) -> int:
    """Windows and labels in a host's memory beside the micro-batch being computed.

    The rest of this step's and all of the next step's where a share is held at once, else a few micro-batches.
    """
    height, width = crop.window_shape
    shown = 2 if config.data.cutmix + config.data.classmix else 1  # samples of which a window shows parts
    window_bytes = shown * (height * width * bytes_per_px + (height - 2 * halo) * (width - 2 * halo))
    num_batches = -(-share // cut.micro_batch_size)
    is_augmented = config.data.augmentation is not None and not is_recipe(config.data.augmentation)
    if is_held_at_once(num_batches, shown * share * height * width, is_augmented=is_augmented):
        return (2 * share - cut.micro_batch_size) * window_bytes
    return AHEAD * max(1, config.data.num_workers) * cut.micro_batch_size * window_bytes


def plan_run(config: Config, options: PlanOptions, teller: Teller) -> PlannedRun:
    """Plan a run: sizes, windows, memory and arithmetic, without data or a device."""
    data = know_data(config, options)
    setting = _setting(config, options, data)
    model = setting.network
    world_size = config.run.expected_processes or 1
    crops = settle_crops(config, model, world_size, teller)
    side, planner, cut = crops.side, crops.planner, crops.cut
    tile_size = resolve_tile_size(None, model, config)
    output = data.image_shape if side is None else (side - 2 * planner.halo,) * 2
    undivided, crop = replace(planner, tile_size=None).plan(output), planner.plan(output)
    share = -(-config.schedule.batch_size * len(crop) // world_size)
    setting = replace(
        setting,
        trim=planner.halo - model.window_sizes.margin,
        # A GPU holds one micro-batch; a host also the crops read ahead.
        held_bytes=0
        if options.device == "cuda"
        else _ahead_bytes(config, cut, crop, planner.halo, share, data.channels * data.pixel_bytes),
        keeps_gradients=world_size > 1 or share > cut.micro_batch_size,
    )
    tiles = None
    if model.locality is not None:
        tiles = plan_tiles(data.image_shape, tile_size, model.window_sizes, model.locality)
    return PlannedRun(config, data, setting, cut, undivided.window_shape, crop, tile_size, tiles, share)


def _setting(config: Config, options: PlanOptions, data: KnownData) -> SimulatedRun:
    precision: str = config.run.mixed_precision
    if precision == "auto":
        is_fast = options.device == "cuda" or has_fast_bf16(options.device)
        precision = "bf16" if is_fast and config.run.dtype == "float32" else "no"
    return simulated(
        config, channels=data.channels, num_classes=data.num_classes, device_type=options.device, precision=precision
    )


def know_data(config: Config, options: PlanOptions) -> KnownData:
    """Find out about the data: from the config and the decoded cache, else by a look at the folder, else by assumption.

    Raises:
        DataError: there is a folder, and none of its pairs can be used.
    """
    shape, known_from = options.image_shape(), "as image_size says"
    channels, classes = config.model.in_channels, config.model.num_classes
    pixel_bytes = 1
    source = _local_source(config)
    cache = None if source is None else _find_cache(config, source)
    if cache is not None:
        heights, widths = cache.table["heights"], cache.table["widths"]
        largest = int((heights * widths).argmax())
        if shape is None:
            shape, known_from = (int(heights[largest]), int(widths[largest])), "the largest in the decoded cache"
        channels, classes = channels or cache.channels, classes or cache.num_classes
        pixel_bytes = np.dtype(cache.dtype).itemsize
    elif source is not None and (shape is None or classes is None):
        seen = look_at(source, settings_of(config, source), config.data.max_pixels)
        if shape is None:
            shape, known_from = seen.header.shape[:2], seen.known_from
        channels, classes = channels or seen.header.shape[2], classes or seen.num_classes
        pixel_bytes = np.dtype(seen.header.dtype).itemsize
    if shape is None and config.data.data_path == "synthetic":
        shape, known_from = parse_shape(config.data.synthetic_size), "as synthetic_size says"
    if shape is None:
        shape, known_from = _REFERENCE_SHAPE, "assumed: set --image_size HEIGHTxWIDTH"
    if classes is None and config.data.data_path != "synthetic":
        known_from += "; classes assumed: set --num_classes"
    return KnownData(shape, channels or _REFERENCE_CHANNELS, classes or _REFERENCE_CLASSES, known_from, pixel_bytes)


def _local_source(config: Config) -> Source | None:
    """The data on this machine; None for scenes, which say their size, and for what would need the network."""
    return source_of(config) if Path(config.data.data_path).expanduser().exists() else None


def _find_cache(config: Config, source: Source) -> Cache | None:
    data = config.data
    grouping = Grouping(data.group_by, data.folds, data.fold or 0)
    try:
        return open_cache(
            source,
            settings_of(config, source),
            seed=config.schedule.seed,
            cache_path=data.cache_path,
            grouping=grouping,
        )
    except DataError:
        return None
