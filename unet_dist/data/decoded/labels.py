"""From the pixels of a mask to class ids.

Owns the rule that ids are read and never converted: the palette's indices, 16 bits as they are, colours only through a
`label_map`. Knows nothing of files, sources or the cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np

from unet_dist.data.decoded.label_map import MAX_ID, LabelMap
from unet_dist.data.decoded.mask_values import pack, pascal_ids, whole_numbers
from unet_dist.data.decoded.problems import SharedError
from unet_dist.errors import ConfigError, RefusedError
from unet_dist.imaging.image import Stored
from unet_dist.wording import listed

IGNORED = 255
"""The label of a pixel that counts nowhere, in the cache and everywhere after it, whatever the data's own id for it: of labels of
8 bits, which up to 255 classes have. Beyond they are 16 bits, and it is 65535, as `ignored_in` says."""

MAX_CLASSES = MAX_ID  # ids are 0..65534 beside what counts nowhere
_UNSTATED_CLASSES = (
    IGNORED  # that ids may have where nobody says how many there are: a mask of more may well number objects
)

_UNMAPPED, _OUT_OF_RANGE = -1, -2
_MAX_LISTED = 8
_BLACK_AND_WHITE = '{"0-127": 0, "128-255": 1}'
_SOFT_REMEDY = (
    f"That looks like black and white with soft edges. If white is class 1: --label_map '{_BLACK_AND_WHITE}'."
)
_MOST_COLOURS, _MOST_IN_FULL = 300, 32
"""Colours that are kept of a mask, the most frequent, for its message; and up to which a map is printed in full."""
_SOFT_IDS = 12
"""Ids from which a mask of mostly black and white is no longer taken for one of classes. assumption: an edge has more shades."""


class Label(Protocol):
    """Class ids of an image, (H, W) uint8 or uint16, or its packed planes: an array, or anything that is cut like one."""

    @property
    def shape(self) -> Any:
        """Height and width."""

    @property
    def dtype(self) -> np.dtype:
        """Unsigned of class ids; a signed type of overlapping classes, as planes.py packs them."""

    def __getitem__(self, part: tuple[slice, slice], /) -> np.ndarray: ...


def ignored_in(dtype: np.dtype) -> int:
    """Say what a pixel that counts nowhere is in labels of a type: all bits set."""
    return -1 if dtype.kind == "i" else int(np.iinfo(dtype).max)


def label_dtype(num_classes: int) -> np.dtype:
    """Say which type holds so many class ids and what counts nowhere: uint8 up to 255, else uint16."""
    assert 1 <= num_classes <= MAX_CLASSES, num_classes
    return np.dtype(np.uint8 if num_classes <= IGNORED else np.uint16)


class LabelRules:
    """Turns a mask into (H, W) class ids, `ignored` where the mask holds `ignore_index`.

    `num_classes` None allows every id from 0 to 254, and those that label_map leads to.

    Attributes:
        dtype: of the class ids: uint8, or uint16 where there are more than 255 classes.
        ignored: the label that counts nowhere, 255 or 65535.
        limit: ids are below it; without num_classes 255, or more where label_map leads there.
    """

    def __init__(
        self,
        *,
        num_classes: int | None,
        ignore_index: int | None = None,
        label_map: Mapping[str | int, int] | None = None,
    ) -> None:
        if num_classes is not None and not 1 <= num_classes <= MAX_CLASSES:
            raise ConfigError(
                f"num_classes: got {num_classes}; expected 1 to {MAX_CLASSES} (a label is 16 bits, {MAX_ID} is taken)."
            )
        if ignore_index is not None and not 0 <= ignore_index <= MAX_ID:
            raise ConfigError(
                f"ignore_index: got {ignore_index}; masks hold ids from 0 to {MAX_ID}, so it would have no effect. "
                "Give the id that marks pixels without a label, or leave it out."
            )
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.label_map = None if label_map is None else LabelMap.parse(label_map)
        named = [] if self.label_map is None else [*self.label_map.by_id.values(), *self.label_map.by_colour.values()]
        largest = max((target for target in named if target != ignore_index), default=-1)
        self.limit = num_classes or max(_UNSTATED_CLASSES, min(largest + 1, MAX_CLASSES))
        self.dtype = label_dtype(self.limit)
        self.ignored = ignored_in(self.dtype)
        self._check_targets(named)
        self._table = self._build_table()  # (65536,): what an id of a mask becomes, negative where refused

    def reader_of(self, stored: Stored) -> Callable[[np.ndarray], np.ndarray]:
        """Return the way from the values of a mask, (H, W, C) as its file stores them, to (H, W) class ids.

        Raises:
            RefusedError: the mask's form needs a `label_map`; and from the returned function, an id or colour has no meaning.
        """
        if stored.lossy is not None and (self.label_map is None or not self.label_map.has_ranges):
            raise RefusedError(
                f"is a {stored.lossy}, which changes ids when it compresses",
                "Write masks as PNG from the original ids; or, where the values lie far apart, say the range of each class. "
                f"For black and white: --label_map '{_BLACK_AND_WHITE}'.",
            )
        if stored.has_flags and self.label_map is None:
            raise RefusedError(
                "holds flags, of which several may be set in one pixel (flag_masks of CF)",
                "Say which class each value is with label_map, such as --label_map '{0: 0, 1: 1, 2: 2, 3: 2}'; or write ids.",
            )
        read: Callable[[np.ndarray], np.ndarray] = self._map_inverted
        if not stored.white_is_zero:
            read = partial(self.map_values, palette=stored.palette)
        elif stored.dtype == np.bool_:  # fax: white is white, whichever bit stands for it
            read = lambda values: self.map_values(~values.astype(bool))  # noqa: E731
        if stored.nodata is None or stored.palette is not None or stored.channels != 1:
            return read
        return partial(self._map_known, read, stored.nodata)

    def _map_known(self, read: Callable[[np.ndarray], np.ndarray], nodata: float, values: np.ndarray) -> np.ndarray:
        """Read a mask whose file says which value stands for no data: it is no label, unless it may be a class as well.

        Raises:
            RefusedError: it may be both.
        """
        missing: np.ndarray = np.isnan(values[..., 0]) if np.isnan(nodata) else values[..., 0] == nodata
        named = self.label_map is not None and nodata in self.label_map.by_id
        if named or nodata == self.ignore_index or not missing.any():
            return read(values)
        if self.label_map is None and nodata in range(self.limit):
            same = {int(value): int(value) for value in np.unique(values) if 0 <= value < self.limit}
            raise RefusedError(
                f"holds the id {nodata:g} ({int(missing.sum()):,} px), which the file itself calls no data",
                f"If these pixels have no label, say ignore_index: {nodata:g}; if it is a class, name it: "
                f"label_map: {_listing(same)}.",
            )
        labels = np.full(missing.shape, self.ignored, dtype=self.dtype)
        if not missing.all():
            some = values[tuple(np.argwhere(~missing)[0])]
            labels = np.where(missing, labels, read(np.where(missing[..., None], some, values)))
        return labels

    def _map_inverted(self, values: np.ndarray) -> np.ndarray:
        """Read a TIFF whose zero is white: its ids are those written or those shown, which only a label_map can say."""
        largest = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else 1
        if self.label_map is None:
            meaning = {int(largest - value): int(value) for value in np.unique(values)[::-1]}
            raise RefusedError(
                "stores white as 0, so that its ids may be upside down",
                f"Say what the shades mean as they are shown. If the ids are those stored: --label_map '{_listing(meaning)}'.",
            )
        return self.map_values(largest - values)

    def map_values(self, values: np.ndarray, palette: np.ndarray | None = None) -> np.ndarray:
        """Turn a part of a mask as its file stores it, (H, W, C), into (H, W) class ids.

        Args:
            palette: (entries, 3) uint8, the colours that the values stand for.

        Raises:
            RefusedError: as `read`.
        """
        if palette is not None:
            return self._map_palette(values[..., 0], palette)
        if values.dtype == np.uint8 and values.shape[2] in (2, 4):
            if (values.sum(axis=2) == 1).all():
                remedy = (
                    "Write the number of the class in each pixel: argmax over the planes. Or set --multi_label true."
                )
                raise RefusedError(f"holds {values.shape[2]} planes, of which one is 1 in each pixel", remedy)
            if int(values[..., -1].min()) < 255:
                raise RefusedError("is a mask with transparent pixels", "Write it without the alpha channel.")
            values = values[..., :-1]
        if values.shape[2] == 1:
            return self.map_ids(values[..., 0])
        if values.shape[2] == 3 and values.dtype == np.uint8:
            return self._map_pixels(values)
        raise RefusedError(
            f"holds {values.shape[2]} {values.dtype} values per pixel",
            "Write masks with one id per pixel, palette or RGB.",
        )

    def map_ids(self, ids: np.ndarray) -> np.ndarray:
        """Turn ids of masks, (H, W) whole numbers of any kind, into (H, W) class ids. Raises: RefusedError."""
        ids = whole_numbers(ids)
        if self.label_map is not None and self.label_map.by_colour:
            raise RefusedError(
                "holds ids, and label_map gives the meaning of colours",
                "Give a label_map with ids as keys, or none if the ids are the classes.",
            )
        may_be_beyond = ids.dtype.kind == "i" or ids.dtype.itemsize > 2
        if may_be_beyond and ids.size and (int(ids.min()) < 0 or int(ids.max()) > MAX_ID):
            beyond = ids[(ids < 0) | (ids > MAX_ID)]
            raise RefusedError(
                f"holds {_list_ids(_count(beyond))}, outside 0 to {MAX_ID}",
                f"Write ids from 0 to {MAX_ID}; pixels without a label as 255, say, with ignore_index: 255.",
            )
        ids = ids.astype(np.uint16, copy=False)
        labels = self._table[ids]  # (H, W)
        refused = labels < 0
        if refused.any():
            raise self._explain(ids, refused)
        return labels.astype(self.dtype)

    def _check_targets(self, targets: Iterable[int]) -> None:
        limit = self.limit
        outside = sorted({target for target in targets if target >= limit and target != self.ignore_index})
        if outside:
            raise ConfigError(
                f"label_map: it leads to {_join(outside)}; expected classes 0 to {limit - 1}"
                f"{'' if self.ignore_index is None else f' or the ignore_index {self.ignore_index}'}. "
                "Correct the map, num_classes or ignore_index."
            )

    def _class_of(self, target: int) -> int:
        if target == self.ignore_index:
            return self.ignored
        return target if target < self.limit else _OUT_OF_RANGE

    def _build_table(self) -> np.ndarray:
        table = np.full(MAX_ID + 1, _UNMAPPED, dtype=np.int16 if self.dtype == np.uint8 else np.int32)
        if self.label_map is None:
            table[:] = _OUT_OF_RANGE
            table[: self.limit] = np.arange(self.limit)
            if self.ignore_index is not None:
                table[self.ignore_index] = self.ignored
        else:
            for key, target in self.label_map.by_id.items():
                table[key] = self._class_of(target)
        return table

    def _map_palette(self, indices: np.ndarray, entries: np.ndarray) -> np.ndarray:
        if indices.dtype.kind != "u":
            raise RefusedError(f"holds the indices of a palette as {indices.dtype}", "It is damaged: fetch it again.")
        if (largest := int(indices.max(initial=0))) >= len(entries):
            raise RefusedError(
                f"holds the index {largest} of a palette of {len(entries)} colours", "It is damaged: fetch it again."
            )
        if self.label_map is None and (ids := pascal_ids(indices, entries)) is not None:
            void = ids == IGNORED
            return np.where(void, self.dtype.type(self.ignored), self.map_ids(np.where(void, np.uint8(0), ids)))
        if self.label_map is None:
            raise SharedError(_explain_palette, _count(indices))
        if self.label_map.by_id:
            return self.map_ids(indices)
        palette = np.zeros((max(256, len(entries)), 3), dtype=np.uint32)
        palette[: len(entries)] = entries
        return self._map_colours(pack(palette)[indices])

    def _map_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Turn colours, (H, W, 3) uint8, into (H, W) class ids; with ids as keys, grey written as colours."""
        packed = pack(pixels.astype(np.uint32))
        if self.label_map is not None and self.label_map.by_colour:
            return self._map_colours(packed)
        if self.label_map is not None and bool((pixels == pixels[..., :1]).all()):
            return self.map_ids(pixels[..., 0])
        raise SharedError(self._explain_colours, Counter(dict(_count(packed).most_common(_MOST_COLOURS))))

    def _map_colours(self, colours: np.ndarray) -> np.ndarray:
        assert self.label_map is not None
        keys = np.array(sorted(self.label_map.by_colour), dtype=np.uint32)
        classes = np.array([self._class_of(self.label_map.by_colour[int(key)]) for key in keys], dtype=self.dtype)
        position = np.minimum(np.searchsorted(keys, colours), len(keys) - 1)
        unknown = keys[position] != colours
        if unknown.any():
            values = _count(colours[unknown])
            raise SharedError(_explain_unmapped_colours, values, tuple(values)[:_MAX_LISTED])
        return classes[position]

    def _explain(self, ids: np.ndarray, refused: np.ndarray) -> RefusedError:
        outside = _count(ids[refused])
        if self.label_map is not None:
            return SharedError(_explain_unmapped, outside, tuple(outside)[:_MAX_LISTED])
        values = _count(ids)
        return SharedError(self._explain_ids, values, _are_soft(values) or tuple(outside)[:_MAX_LISTED])

    def _explain_ids(self, values: Counter[int]) -> tuple[str, str]:
        """Say which ids are beyond the classes, and what may be meant by them."""
        outside = {value: count for value, count in values.items() if self._table[value] == _OUT_OF_RANGE}
        got = f"holds {_list_ids(outside)}, outside 0 to {self.limit - 1}"
        got += "" if self.num_classes is None else f" (num_classes: {self.num_classes})"
        if _are_soft(values):
            return got, _SOFT_REMEDY
        if set(outside) == {255}:
            ignored = "255 marks pixels without a label, set --ignore_index 255."
            if values.keys() <= {0, 255}:
                return got, f"If 255 is class 1, set --label_map '{{0: 0, 255: 1}}'; if {ignored}"
            return got, f"If {ignored}"
        ids = sorted(value for value in values if value != self.ignore_index)
        count = f"--num_classes {ids[-1] + 1}, " if ids[-1] < MAX_CLASSES else ""
        dense = {value: place for place, value in enumerate(ids)}
        is_short = self.num_classes is None and len(ids) <= _UNSTATED_CLASSES
        meaning = f" '{_listing(dense)}'" if is_short else ""
        objects = (
            " If ids number objects: --label_map '{0: 0, 1-65535: 1}'."
            if ids[-1] > IGNORED and not self.num_classes
            else ""
        )
        return got, f"Set {count}--ignore_index for an id that means nothing, or --label_map{meaning}.{objects}"

    def _explain_colours(self, values: Counter[int]) -> tuple[str, str]:
        """Say which colours there are, as the map that names them."""
        got = f"is in colours and {'there is no label_map' if self.label_map is None else 'label_map has ids as keys'}"
        greys = {value & 0xFF for value in values if value == (value & 0xFF) * 0x010101}
        if self.label_map is None and len(greys) == len(values) <= _UNSTATED_CLASSES:
            meaning = {grey: place for place, grey in enumerate(sorted(greys))}
            return got, f"Its colours are grey. If each is a class: --label_map '{_listing(meaning)}'."
        ordered = sorted(values, key=lambda value: (-values[value], value))
        shown = ordered if len(ordered) <= _MOST_IN_FULL else ordered[:_MAX_LISTED]
        first = ", ".join(f'"#{colour:06x}": {place}' for place, colour in enumerate(shown))
        more = f", and {len(ordered) - len(shown)} more" if len(ordered) > len(shown) else ""
        return got, f"Say what each colour means. Here, by their frequency: --label_map '{{{first}}}'{more}."


def _explain_palette(values: Counter[int]) -> tuple[str, str]:
    same = _listing({index: index for index in sorted(values)})
    remedy = "Say what the palette's indices or colours mean. If the indices are the class ids: "
    return "has a palette and there is no label_map", remedy + f"--label_map '{same}'."


def _explain_unmapped(values: Counter[int]) -> tuple[str, str]:
    remedy = "Add them to label_map; ids that mean nothing lead to the ignore_index."
    return f"holds {_list_ids(values)}, which label_map does not name", remedy


def _explain_unmapped_colours(values: Counter[int]) -> tuple[str, str]:
    each = [f'"#{value:06x}" ({count:,} px)' for value, count in values.items()]
    remedy = "Add them to label_map; colours that mean nothing lead to the ignore_index."
    return f"holds colours that label_map does not name: {listed(each, _MAX_LISTED)}", remedy


def explain_gaps(counts: np.ndarray) -> str | None:
    """Say what ids of a whole data set may mean where nobody named the classes, None where they are 0, 1, 2 ...

    Args:
        counts: (n,), pixels of each id.

    Returns:
        The finding and the remedy, in two sentences.
    """
    found = np.flatnonzero(counts)
    is_soft = _are_soft(Counter({int(value): int(counts[value]) for value in found}))
    if len(found) == 0 or (found[-1] == len(found) - 1 and not is_soft):
        return None
    dense = {int(value): place for place, value in enumerate(found)}
    count = int(found[-1]) + 1
    if is_soft:
        return f"its masks hold {len(found)} ids from {found[0]} to {found[-1]}. {_SOFT_REMEDY}"
    return (
        f"its masks hold {len(found)} ids with gaps between 0 and {found[-1]}. If these are the classes, set "
        f"--label_map '{_listing(dense)}'; if the ids between are classes too, --num_classes {count}."
    )


def _are_soft(values: Mapping[int, int]) -> bool:
    """Recognise black and white with soft edges by pixels of each id: most lie at both ends, few at many ids between."""
    if len(values) < _SOFT_IDS or min(values) != 0 or not 200 <= (last := max(values)) <= 255:
        return False
    ends = sum(count for value, count in values.items() if value < 8 or value > last - 8)
    return ends >= 0.5 * sum(values.values())


def _count(values: np.ndarray) -> Counter[int]:
    """Count the pixels of each value, in the order of the values."""
    found, counts = np.unique(values, return_counts=True)
    return Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))


def _list_ids(values: Mapping[int, int]) -> str:
    each = [f"{value} ({count:,} px)" for value, count in sorted(values.items())]
    return f"{'id' if len(each) == 1 else 'ids'} {listed(each, _MAX_LISTED)}"


def _listing(meaning: Mapping[int, int]) -> str:
    """Write a label_map as the user would type it."""
    return "{" + ", ".join(f"{key}: {target}" for key, target in meaning.items()) + "}"


def _join(values: Iterable[int]) -> str:
    return ", ".join(str(value) for value in values)
