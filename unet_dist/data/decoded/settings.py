"""What the user says about masks and images, and where the decoded cache of it lies.

Owns the key of a cache: the content, these settings and the format of the files.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from unet_dist.data.decoded.decode import ImageRules
from unet_dist.data.decoded.sealed import FORMAT_VERSION, INDEX
from unet_dist.data.sources.fingerprint import digest_text
from unet_dist.data.sources.pairs import Source
from unet_dist.errors import DataError
from unet_dist.imaging.image import ValueRange


@dataclass(frozen=True)
class CacheSettings:
    """What the user says about the masks and images: with the content it makes the cache's key."""

    num_classes: int | None = None
    """None takes the number of named classes, or else the largest id found + 1."""
    ignore_index: int | None = None
    """Id of the masks that counts nowhere; it is IGNORED (255) in the cache."""
    label_map: Mapping[str | int, int] | None = None
    """Id of each colour ("#rrggbb" or "r,g,b") or each id of the masks."""
    value_range: ValueRange | None = None
    """The values of the images that become 0 and 255; None takes them as they are."""
    channels: int | None = None
    """3 reads grey images as colour, their channel repeated; None leaves every image as it is."""
    nodata: float | None = None
    """The value of the images that stands for no data; None is what each file says."""
    bands: tuple[int | str, ...] | None = None
    """Numbers of the bands to take, from 1, or their names, in this order; None takes all."""
    multi_label: bool = False
    """Whether classes overlap: a mask has a plane for each, and ignore_index and label_map are of its values."""

    @property
    def image_rules(self) -> ImageRules:
        """How the images are read."""
        return ImageRules(self.value_range, self.nodata, self.bands)


def cache_folder(cache_path: str | Path | None = None) -> Path:
    """Give the folder of all caches: as told, or `$UNET_DIST_CACHE`, or `unet_dist` below the user's cache folder."""
    if cache_path is not None:
        return Path(os.path.expanduser(cache_path))
    if told := os.environ.get("UNET_DIST_CACHE"):
        return Path(os.path.expanduser(told))
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "unet_dist"
    except RuntimeError:  # no HOME, and a user whom the system does not know
        raise DataError("cache_path: got none, and this user has no home folder. Set --cache_path DIR.") from None


def locate_cache(source: Source, settings: CacheSettings, cache_path: str | Path | None = None) -> Path:
    """Give the folder that the cache of this content under these settings has, whether it is there or not."""
    folder = cache_folder(cache_path)
    label_map = {str(key): target for key, target in (settings.label_map or {}).items()}
    said = {**asdict(settings), "label_map": label_map}
    for key in (
        "value_range",
        "channels",
        "nodata",
        "bands",
        "multi_label",
    ):  # a cache from before a setting is that of images as they are
        if said[key] is None or said[key] is False:
            del said[key]
    told = json.dumps(said, sort_keys=True)
    key = digest_text(f"format {FORMAT_VERSION}", source.signature(folder), told)
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", source.name).strip("._-")
    return folder / f"{name[:60] or 'data'}-{key[:20]}"


def is_whole(path: Path) -> bool:
    """Say whether a cache stands there: it appears under its name only when it is complete."""
    return (path / INDEX).is_file()
