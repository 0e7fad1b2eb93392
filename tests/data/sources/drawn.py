"""The planes of classes that overlap, beside the ids of the same outlines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.cache import Cache
from unet_dist.data.decoded.planes import is_class
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.sources.registry import open_source


def covered_classes(root: Path, cache: Cache, cache_path: Path) -> int:
    """Count the pixels that several classes cover, once the planes are known to hold what the ids show.

    The class that is on top has its plane, and where there is none no class has one.
    """
    settings = CacheSettings(multi_label=True)
    overlapping = prepare(open_source(root, multi_label=True), settings, seed=0, cache_path=cache_path)
    assert overlapping.class_names == cache.class_names[1:]
    assert overlapping.ids == cache.ids
    several = 0
    for index in range(len(cache)):
        ids = np.asarray(cache.split("all").label(index)[:, :])
        packed = np.asarray(overlapping.split("all").label(index)[:, :])
        planes = np.stack([is_class(packed, number) for number in range(len(overlapping.class_names))])
        for number, plane in enumerate(planes, start=1):
            assert plane[ids == number].all()
        assert not planes[:, ids == 0].any()
        several += int((planes.sum(0) > 1).sum())
    return several
