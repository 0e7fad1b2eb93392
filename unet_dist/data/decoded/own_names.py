"""Names of classes that masks themselves have, where nothing else names them.

Owns where such names count, and what becomes of names of stored ids when a label_map gives these other numbers.
"""

from __future__ import annotations

from pathlib import Path

from unet_dist.data.decoded.label_map import LabelMap
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.sources.names import distinct
from unet_dist.data.sources.pairs import Source
from unet_dist.errors import DataError
from unet_dist.imaging.encoded import split_page
from unet_dist.imaging.reader import class_names_in


def read_names(source: Source, settings: CacheSettings) -> dict[int, str] | None:
    """Give the name of each class: as the source says or, where it says none, as its masks do; None where nobody names them.

    Raises:
        DataError: a file of names cannot be read, or two masks name their ids differently.
    """
    stated = source.read_id_names()
    if stated is not None or settings.multi_label:
        return None if stated is None else distinct(stated)
    own = _in_masks(source)
    if settings.label_map is not None:
        own = _renamed(own, LabelMap.parse(settings.label_map), settings.ignore_index)
    classes = {index for index in own if index != settings.ignore_index}
    if classes and classes | {0} == set(range(max(classes) + 1)):  # ids with other gaps are no numbers of classes
        return distinct({0: "class_0", **own})
    return None


def _in_masks(source: Source) -> dict[int, str]:
    """Read the names in the masks, which agree wherever they are; none where the first has none."""
    found: dict[int, str] = {}
    first = ""
    seen: set[Path] = set()
    for split, size in source.splits.items():
        for index in range(size):
            try:
                pair = source.read_pair(split, index)
                if not isinstance(pair.mask, Path):
                    return {}
                path = split_page(pair.mask)[0]
                if path in seen:
                    continue
                seen.add(path)
                names = class_names_in(path)
            except DataError:  # whoever reads the pixels says what is wrong with it
                return {}
            if not found and not names:
                return {}
            if not found:
                found, first = names, pair.mask_name
            if names and names != found:
                raise DataError(
                    f"{source.name}: the masks {first} and {pair.mask_name} name their ids differently. Write the names of all "
                    "into id2label.json beside the data, once each id means the same in every mask."
                )
    return found


def _renamed(names: dict[int, str], label_map: LabelMap, ignored: int | None) -> dict[int, str]:
    """Give the names of the classes that ids become, of several ids together; none where a class would have no name."""
    joined: dict[int, list[str]] = {}
    for stored, name in sorted(names.items()):
        if stored in label_map.by_id:
            joined.setdefault(label_map.by_id[stored], []).append(name)
    is_whole = {*label_map.by_id.values()} - {ignored, 0} <= joined.keys()
    return {index: ", ".join(dict.fromkeys(parts)) for index, parts in joined.items()} if is_whole else {}
