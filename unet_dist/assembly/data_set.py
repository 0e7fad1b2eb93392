"""The data set of a config: its source, and its decoded cache.

Owns what of a config concerns them. Must not import torch: commands about data alone do without.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unet_dist.config.quantities import parse_shape
from unet_dist.config.sections import Config
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.cache import Cache
from unet_dist.data.decoded.settings import CacheSettings, is_whole, locate_cache
from unet_dist.data.sources.blocks import Blocks
from unet_dist.data.sources.groups import Grouping
from unet_dist.data.sources.pairs import Source
from unet_dist.data.sources.registry import open_source
from unet_dist.data.sources.splits import FRACTIONS
from unet_dist.imaging.limits import limit_decoding

if TYPE_CHECKING:
    from unet_dist.terminal import Teller

_SCENES_SEED = 0
LAYOUT_KEYS = ("images_folder", "masks_folder", "image_names", "mask_names")
"""Keys that say how a folder holds images and masks."""


def open_data(config: Config, teller: Teller, source: Source | None = None, *, cuts_blocks: bool = True) -> Cache:
    """Open the decoded cache of a config's data set; the first process makes it where there is none, the others wait.

    Args:
        source: where its pairs come from; by default what the config names.
        cuts_blocks: whether images too few to be shared out are cut into blocks of train, validation and test.
    """
    limit_decoding(config.data.decode_memory, config.data.decode_seconds)
    source = source or source_of(config, teller.say)
    cache = _prepare(config, teller, source)
    is_whole_split = len(cache.given_splits) == 1 and config.data.folds is None
    if not cuts_blocks or not is_whole_split or len(cache) >= len(FRACTIONS):
        return cache
    sizes = list(zip(cache.table["heights"].tolist(), cache.table["widths"].tolist(), strict=True))
    blocks = Blocks(source, sizes, _gap_of(config, min(map(max, sizes))))
    for line in blocks.about:
        teller.say(line)
    return _prepare(config, teller, blocks)


def _gap_of(config: Config, side: int) -> int:
    """Pixels between two blocks of an image: the network's halo, or an eighth of a side where it sees everything."""
    from unet_dist.assembly.network import build_skeleton  # torch: only here is the network asked before the data
    from unet_dist.assembly.sizes import training_halo

    skeleton = build_skeleton(config)
    return side // 8 if skeleton.locality is None else training_halo(skeleton)


def _prepare(config: Config, teller: Teller, source: Source) -> Cache:
    data = config.data
    shown: dict[str, Any] = {}

    def progress(phase: str, done: int, total: int) -> None:
        if shown.get("phase") != phase:
            shown["phase"] = phase
            teller.say(f"{data.data_path}: {phase} {total} pairs")

    return prepare(
        source,
        settings_of(config, source),
        seed=config.schedule.seed,
        cache_path=data.cache_path,
        max_pixels=data.max_pixels,
        progress=progress,
        say=teller.say,
        grouping=Grouping(getattr(source, "group_by", data.group_by), data.folds, data.fold or 0),
    )


def source_of(config: Config, say: Callable[[str], None] | None = None) -> Source:
    """Open the source that a config names."""
    data = config.data
    layout = {key: value for key in LAYOUT_KEYS if (value := getattr(data, key)) is not None}
    return open_source(
        data.data_path,
        image_column=data.image_column,
        label_column=data.label_column,
        layout=layout,
        group_by=data.group_by,
        multi_label=data.multi_label,
        select=data.selected(),
        revision=data.revision,
        synthetic_images=data.synthetic_images,
        synthetic_size=parse_shape(data.synthetic_size),
        synthetic_seed=_SCENES_SEED,
        say=say,
    )


def settings_of(config: Config, source: Source) -> CacheSettings:
    """What a config says about masks and images: the settings of the cache that is there, if one fits, or of a new one."""
    data = config.data
    label_map: dict[str | int, int] | None = None if data.label_map is None else dict(data.label_map.items())
    in_channels = 3 if config.model.in_channels == 3 else None
    settings = CacheSettings(
        config.model.num_classes,
        data.ignore_index,
        label_map,
        data.value_limits(),
        in_channels,
        data.nodata,
        multi_label=data.multi_label,
        bands=data.band_numbers(),
    )
    # A resolved config names the classes and channels that the first one left to the data: both mean the cache that is there.
    left_out = (("channels",), ("num_classes",), ("channels", "num_classes"))
    nothing: Any = None
    for counting in (replace(settings, **dict.fromkeys(keys, nothing)) for keys in left_out):
        if counting == settings:
            continue
        counted = locate_cache(source, counting, data.cache_path)
        if is_whole(counted):
            found = Cache(counted, seed=config.schedule.seed)
            has_classes = settings.num_classes in (None, found.num_classes)
            if has_classes and in_channels in (None, found.channels):
                return counting
    return settings
