"""The data of an evaluation: which are opened, under whose names of classes, and which images trained the network.

Owns the choice among the run's own data and others, and how their classes meet the network's. Must not score anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unet_dist.assembly.data_set import open_data, settings_of, source_of
from unet_dist.assembly.run_data import bound, is_same, require_same
from unet_dist.config.options import EvaluateOptions
from unet_dist.config.sections import Config
from unet_dist.data.decoded.cache import Cache
from unet_dist.data.decoded.own_names import read_names
from unet_dist.data.sources.names import read_id_names
from unet_dist.errors import ConfigError, DataError
from unet_dist.models.alignment import AlignedClasses, align_names, has_plain_names
from unet_dist.models.answers import answers_of
from unet_dist.models.contract import Network
from unet_dist.terminal import Teller


def training_split(trained: Config | None) -> str:
    """Say how we know which images the network has seen: by the run's own split, or not at all."""
    if trained is None:
        return "unknown"
    published = trained.model.model.partition(":")[2]
    start = trained.model.init_from or (published if "/" in published else None)
    return "its own" if start is None else f"its own, and unknown of {start}, which it started from"


def under_names_of(cache: Cache, model: Network, teller: Teller) -> Any:
    """Let a network answer in the order of the data's classes, where both have names and they differ."""
    if model.class_names is None or model.class_names == cache.class_names:
        return model
    if has_plain_names(cache.class_names) or has_plain_names(model.class_names):
        if model.num_classes != cache.num_classes:
            raise DataError(
                f"Got data of {cache.num_classes} classes and a network of {model.num_classes}, of which one side has no names to "
                "align them by. Give the data an id2label.json with the network's names, or --names FILE."
            )
        return model
    alignment = align_names(model.class_names, cache.class_names)
    if alignment.is_identity:
        return model
    teller.say(alignment.told())
    return AlignedClasses(model, alignment, cache.class_names, cache.ignore_index).eval()


def _named(cache: Cache, names: dict[int, str] | None, model: Network, teller: Teller) -> Cache:
    """The data under the names that were given, or under the network's where they have none: their ids are then its ids.

    Raises:
        ConfigError: names of ids that neither the data nor the network have.
    """
    if names is not None:
        count = max(cache.num_classes, model.num_classes if _is_plain(model) else 0)
        beyond = [index for index in names if not 0 <= index < count]
        if beyond:
            raise ConfigError(f"names: got a name for class {beyond[0]}, expected 0 to {count - 1}. Correct the file.")
        return cache.under([names.get(index, f"class_{index}") for index in range(count)])
    if _is_plain(model) or not has_plain_names(cache.class_names) or cache.num_classes != model.num_classes:
        return cache
    assert model.class_names is not None
    teller.say(
        f"{cache.name} names no classes: its ids are read as the network's, 0 {model.class_names[0]}, 1 {model.class_names[1]} "
        "and so on. --names FILE gives others."
    )
    return cache.under(model.class_names)


def _is_plain(model: Network) -> bool:
    return model.class_names is None or has_plain_names(model.class_names)


def _is_of_others(options: EvaluateOptions, trained: Config | None) -> bool:
    """Whether the data are not those of the run."""
    return options.data_path is not None and (trained is None or options.data_path != trained.data.data_path)


_OF_ONE_DATA_SET = ("synthetic_images", "synthetic_size", "label_map", "group_by", "folds", "fold")


def open_evaluated(
    options: EvaluateOptions, trained: Config | None, folder: Path | None, network: Network, teller: Teller
) -> tuple[Cache, str]:
    """Open the data of an evaluation, and describe the training split as far as it is known.

    Raises:
        DataError: none were named, and those of the run are gone or have changed.
    """
    if (moved := _moved(options, trained, folder, network, teller)) is not None:
        return moved, training_split(trained)
    config = _data_config(options, trained, network)
    is_named = options.data_path is not None
    config = config if is_named else bound(config, folder)
    names = None if options.names is None else read_id_names(Path(options.names))
    source = source_of(config, teller.say)
    theirs = (names or read_names(source, settings_of(config, source)) or {}) if _is_of_others(options, trained) else {}
    if theirs and not has_plain_names([*theirs.values()]) and not _is_plain(network):
        config = config.replace(num_classes=None if names is None else max(names) + 1)  # to be aligned by name
    cache = open_data(config, teller, source, cuts_blocks=options.split != "all" or not is_named)
    cache = _named(cache, names, network, teller)
    if trained is None:
        return cache, training_split(trained)
    says_labels = options.label_map is not None or options.ignore_index is not None
    try:
        line = require_same(folder, cache, with_labels=not says_labels)
    except DataError:
        if not is_named:
            raise
        return cache, f"of {trained.data.data_path}"
    if line:
        teller.say(line)
    return cache, training_split(trained)


def _moved(
    options: EvaluateOptions, trained: Config | None, folder: Path | None, network: Network, teller: Teller
) -> Cache | None:
    """The data of the run by another path, read by its own keys, such as its label_map; None where these are other data."""
    fresh = Config().data
    if trained is None or folder is None or not _is_of_others(options, trained):
        return None
    if options.label_map is not None or options.names is not None:
        return None
    if all(getattr(trained.data, key) == getattr(fresh, key) for key in _OF_ONE_DATA_SET):
        return None  # then they are read alike in either case
    config = _data_config(options, trained, network, is_moved=True)
    try:
        cache = open_data(config, teller, source_of(config, teller.say))
    except DataError:  # read as other data, these say better what is wrong
        return None
    return cache if is_same(folder, cache) else None


def _data_config(options: EvaluateOptions, trained: Config | None, model: Network, *, is_moved: bool = False) -> Config:
    """The config whose data set is evaluated: the run's own, or another one under the classes of the model.

    Args:
        is_moved: data_path is where the run's own data lie now.
    """
    if options.data_path is None and trained is None:
        raise ConfigError(
            "data_path: got none, expected one, as RUN is not a run's folder, which would name its data. Set --data_path."
        )
    base = trained or Config()
    changes: dict[str, Any] = {"num_classes": model.num_classes, "in_channels": model.in_channels}
    if is_moved:
        changes["data_path"] = options.data_path
    elif _is_of_others(options, trained):
        fresh = Config()
        changes |= {key: getattr(fresh.data, key) for key in _OF_ONE_DATA_SET}
        changes |= {"data_path": options.data_path, "ignore_index": model.ignore_index}
        changes |= {"multi_label": answers_of(model).overlap, "thresholds": None}
    for key in ("ignore_index", "label_map", "cache_path", "seed"):
        if getattr(options, key) is not None:
            changes[key] = getattr(options, key)
    return base.replace(**changes)
