"""A first look at a data set that has no cache yet: sizes by the headers, the number of classes by names or a few masks.

Owns how much is read for it. Nothing is written, and nobody may rely on it but for a forecast: the cache counts all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from unet_dist.data.decoded.classes import resolve_num_classes
from unet_dist.data.decoded.decode import Header, Rules, decode_pair, read_header
from unet_dist.data.decoded.labels import LabelRules
from unet_dist.data.decoded.planes import PlaneRules
from unet_dist.data.decoded.problems import Problems
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.decoded.windowed import needs_windows, read_windowed_header
from unet_dist.data.sources.pairs import Source
from unet_dist.errors import RefusedError
from unet_dist.imaging.image import DEFAULT_MAX_PIXELS
from unet_dist.wording import counted

_MOST_HEADERS = 1000
"""Spread over the data set: a header of a local file takes about a millisecond."""
_MOST_MASKS = 16
"""Decoded where nobody names the classes. assumption: so many show most of them."""
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Preview:
    """What a first look shows.

    Attributes:
        header: of the largest image; its channels are those of all.
        num_classes: None where only a pass over all masks can tell.
        known_from: in words, for the user.
    """

    header: Header
    num_classes: int | None
    known_from: str


def look_at(source: Source, settings: CacheSettings, max_pixels: int = DEFAULT_MAX_PIXELS) -> Preview:
    """Look at the headers of a source, and at a few masks where nobody names the classes.

    Raises:
        DataError: there is no pair, or none of those looked at can be used.
        ConfigError: the settings contradict the source.
    """
    pairs = [(split, index) for split, size in source.splits.items() for index in range(size)]
    num_classes = resolve_num_classes(settings, source.read_id_names(), source.name)
    kind = PlaneRules if settings.multi_label else LabelRules
    rules: Rules = kind(num_classes=num_classes, ignore_index=settings.ignore_index, label_map=settings.label_map)
    problems, headers, whole = Problems(), list[Header](), list[tuple[str, int]]()
    looked_at = _spread(pairs, _MOST_HEADERS)
    for place in looked_at:
        try:
            pair = source.read_pair(*place)
            if source.files_root is not None and needs_windows(pair, max_pixels, settings.image_rules):
                headers.append(read_windowed_header(pair, rules, settings.image_rules))
            else:
                headers.append(read_header(pair, rules, max_pixels, settings.image_rules))
                whole.append(place)
        except RefusedError as error:
            problems.add(error)
    if not headers:
        problems.raise_if_any(source.name, len(looked_at))
    largest = max(headers, key=lambda header: header.shape[0] * header.shape[1])
    known_from = "the largest of " + ("" if len(looked_at) == len(pairs) else f"{len(looked_at):,} of ")
    known_from += counted(len(pairs), "image")
    if num_classes is None and settings.multi_label:
        num_classes = largest.num_planes
    elif num_classes is None and whole:
        num_classes, told = _count_classes(source, settings, rules, _spread(whole, _MOST_MASKS))
        known_from += f"; classes of {told}"
    return Preview(largest, num_classes, known_from)


def _count_classes(
    source: Source, settings: CacheSettings, rules: Rules, places: list[tuple[str, int]]
) -> tuple[int, str]:
    """Decode a few pairs: the largest id + 1, and of how many masks. Raises: DataError: none can be used."""
    problems, found = Problems(), [1]
    for place in places:
        try:
            counts = decode_pair(source.read_pair(*place), rules, DEFAULT_MAX_PIXELS, settings.image_rules).class_counts
            found.append(int(counts[:-1].nonzero()[0].max(initial=0)))
        except RefusedError as error:
            problems.add(error)
    if len(found) == 1:
        problems.raise_if_any(source.name, len(places))
    return max(found) + 1, counted(len(places), "mask")


def _spread(items: list[_Item], most: int) -> list[_Item]:
    """At most so many of some, evenly spread."""
    return [items[number * len(items) // most] for number in range(most)] if len(items) > most else items
