"""How many classes a data set has: by what the user says, or the names of the classes.

Owns where the two contradict each other. Knows nothing of pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from unet_dist.data.decoded.cache import Cache, CacheSettings
from unet_dist.errors import ConfigError, DataError

_MAX_LISTED = 10
_NO_CLASS = {
    "void",
    "unlabeled",
    "unlabelled",
    "ignore",
    "ignored",
    "ignore label",
    "no label",
    "don't care",
    "dont care",
}


def find_void(names: Mapping[int, str]) -> int | None:
    """Give the id whose name says that its pixels have no label; None where no name or several do.

    >>> find_void({0: "road", 1: "Void"}), find_void({0: "void", 1: "unlabeled"})
    (1, None)
    """
    found = [index for index, name in names.items() if name.strip().lower().replace("_", " ") in _NO_CLASS]
    return found[0] if len(found) == 1 else None


def warn_of_void(cache: Cache) -> str | None:
    """Give the sentence for data in which pixels without a label count as a class; None where none is so named."""
    void = find_void(dict(enumerate(cache.class_names)))
    if void is None or void == cache.ignore_index or cache.multi_label:
        return None
    return (
        f"Class {void} is named {cache.class_names[void]!r}. With settings of your own it counts like any other; "
        f"--ignore_index {void} leaves it out."
    )


def warn_of_one_class(cache: Cache) -> str | None:
    """Give the sentence for data in which every labelled pixel is of one class; None for others."""
    counts = np.asarray(cache.table["class_counts"])[:, :-1].sum(axis=0)
    if cache.multi_label or len(found := np.flatnonzero(counts)) != 1:
        return None
    name = cache.class_names[int(found[0])]
    return (
        f"Every labelled pixel is of the class {name!r}: there is nothing to learn. Check the labels and the label_map."
    )


def resolve_num_classes(settings: CacheSettings, id_names: dict[int, str] | None, name: str) -> int | None:
    """Give the number of classes by the settings or the names, None where only the masks can tell.

    Raises:
        ConfigError: the two contradict each other.
        DataError: the names leave out an id.
    """
    if id_names is None:
        return settings.num_classes
    ids = set(id_names)
    if settings.ignore_index is not None and settings.ignore_index == max(ids, default=-1) != len(ids) - 1:
        ids.remove(settings.ignore_index)  # such as 255: "void" behind 0..18: a name for pixels that count nowhere
    gaps = sorted(set(range(max(ids, default=0) + 1)) - ids)
    if gaps or min(ids) < 0:
        raise DataError(
            f"{name}: id2label.json names {len(ids)} ids and leaves out {', '.join(map(str, gaps[:_MAX_LISTED]))}. "
            "Name every id from 0 on; a label_map can renumber ids to leave no gaps."
        )
    if settings.num_classes is not None and settings.num_classes != len(ids):
        raise ConfigError(
            f"num_classes: got {settings.num_classes}, and {name} names {len(ids)} classes (id2label.json, the features of its "
            "table, or its masks). Leave num_classes out, or write the right names into id2label.json."
        )
    return len(ids)
