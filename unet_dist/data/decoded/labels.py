"""From the pixels of a mask to class ids.

Owns the rule that ids are read and never converted: the palette's indices, 16 bits as they are, colours only through a
`label_map`. Knows nothing of files, sources or the cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from unet_dist.data.sources.pairs import RefusedError
from unet_dist.errors import ConfigError
from unet_dist.wording import listed

IGNORED = 255
"""The label of a pixel that counts nowhere, in the cache and everywhere after it, whatever the data's own id for it."""

MAX_CLASSES = IGNORED  # ids are 0..254 in a uint8 label beside IGNORED
MAX_ID = 65535  # the largest id that a 16-bit mask holds

_ID_MODES = ("1", "L", "I", "I;16", "I;16L", "I;16B", "I;16N")
_UNMAPPED, _OUT_OF_RANGE = -1, -2
_MAX_LISTED = 8


class Label(Protocol):
    """Class ids of an image, (H, W) uint8: an array, or anything that is cut like one."""

    @property
    def shape(self) -> Any: ...

    def __getitem__(self, part: tuple[slice, slice], /) -> np.ndarray: ...


@dataclass(frozen=True)
class LabelMap:
    """What the ids or the colours of the masks mean: a translation to class ids."""

    by_id: dict[int, int]
    by_colour: dict[int, int]
    """Keys are 0xRRGGBB."""

    @classmethod
    def parse(cls, mapping: Mapping[str | int, int]) -> LabelMap:
        """Read `{"#804080": 0, "220,20,60": 1}` or `{7: 0, 8: 1}`.

        Raises:
            ConfigError: a key is neither an id nor a colour, both kinds are mixed, or a value is not a class id.
        """
        by_id: dict[int, int] = {}
        by_colour: dict[int, int] = {}
        for key, target in mapping.items():
            if isinstance(target, bool) or not isinstance(target, int) or not 0 <= target <= MAX_ID:
                raise ConfigError(
                    f"label_map: {key!r} leads to {target!r}; expected a class id from 0 on, or the ignore_index."
                )
            colour = _parse_colour(str(key))
            if colour is not None:
                by_colour[colour] = target
            elif re.fullmatch(r"\d+", str(key).strip()) and int(key) <= MAX_ID:
                by_id[int(key)] = target
            else:
                raise ConfigError(
                    f"label_map: the key {key!r} is neither an id (0 to {MAX_ID}) nor a colour; "
                    'write colours as "#rrggbb" or "r,g,b" (0 to 255).'
                )
        if by_id and by_colour:
            raise ConfigError("label_map: it has both ids and colours as keys; give all of one kind.")
        if not by_id and not by_colour:
            raise ConfigError("label_map: it is empty; leave it out, or give the meaning of each id or colour.")
        return cls(by_id, by_colour)


class LabelRules:
    """Turns a mask into (H, W) uint8 class ids, IGNORED where the mask holds `ignore_index`.

    `num_classes` None allows every id from 0 to 254.
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
                f"num_classes: got {num_classes}; expected 1 to {MAX_CLASSES} (a label is 8 bits, {IGNORED} is taken)."
            )
        if ignore_index is not None and not 0 <= ignore_index <= MAX_ID:
            raise ConfigError(
                f"ignore_index: got {ignore_index}; masks hold ids from 0 to {MAX_ID}, so it would have no effect. "
                "Give the id that marks pixels without a label, or leave it out."
            )
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.label_map = None if label_map is None else LabelMap.parse(label_map)
        self._check_targets()
        self._table = self._build_table()  # (65536,) int16: what an id of a mask becomes, negative where refused

    def read(self, mask: Image.Image) -> np.ndarray:
        """Read the class ids of a mask: (H, W) uint8.

        Raises:
            RefusedError: the mask's form needs a `label_map`, or an id or colour has no meaning.
        """
        raw_mode = raw_mode_of(mask)
        if "16" in raw_mode and mask.mode not in _ID_MODES:
            raise RefusedError(f"is a colour mask of 16 bits ({raw_mode})", "Write it with 8 bits a channel.")
        if mask.mode in _ID_MODES:
            ids = np.asarray(mask)
            if raw_mode in ("L;2", "L;4"):  # Pillow scales grey of few bits up to 0..255; the ids are the bits
                ids = ids // (85 if raw_mode == "L;2" else 17)
            return self.map_ids(ids)
        if mask.mode == "P":
            # The palette's indices; convert("L") would give the brightness of their colours.
            return self._map_palette(np.asarray(mask), np.asarray(mask.getpalette("RGB")).reshape(-1, 3))
        if mask.mode in ("RGB", "RGBA"):
            return self._map_pixels(np.asarray(mask))
        raise RefusedError(
            f'is a mask of mode "{mask.mode}"', "Write masks as PNG with 8 or 16 bits grey (ids), palette or RGB."
        )

    def map_values(self, values: np.ndarray, palette: np.ndarray | None = None) -> np.ndarray:
        """Turn a part of a mask as its file stores it, (H, W, C), into (H, W) uint8 class ids.

        Args:
            palette: (entries, 3) uint8, the colours that the values stand for.

        Raises:
            RefusedError: as `read`.
        """
        if values.dtype.kind not in "bui":
            raise RefusedError(f"holds {values.dtype} values", f"Write ids from 0 to {MAX_ID}.")
        if palette is not None:
            return self._map_palette(values[..., 0], palette)
        if values.shape[2] == 1:
            return self.map_ids(values[..., 0])
        if values.shape[2] in (3, 4) and values.dtype == np.uint8:
            return self._map_pixels(values)
        raise RefusedError(
            f"holds {values.shape[2]} {values.dtype} values a pixel", "Write masks with one id a pixel, palette or RGB."
        )

    def map_ids(self, ids: np.ndarray) -> np.ndarray:
        """Turn ids of masks, (H, W) of any integer kind, into (H, W) uint8 class ids. Raises: RefusedError."""
        if self.label_map is not None and self.label_map.by_colour:
            raise RefusedError(
                "holds ids, and label_map gives the meaning of colours",
                "Give a label_map with ids as keys, or none if the ids are the classes.",
            )
        if ids.dtype.itemsize > 2 and ids.size and (int(ids.min()) < 0 or int(ids.max()) > MAX_ID):
            beyond = ids[(ids < 0) | (ids > MAX_ID)]
            raise RefusedError(f"holds {_list_ids(beyond)}, beyond 16 bits", f"Write ids from 0 to {MAX_ID}.")
        ids = ids.astype(np.uint16, copy=False)
        labels = self._table[ids]  # (H, W) int16
        refused = labels < 0
        if refused.any():
            raise self._explain(ids, refused, labels)
        return labels.astype(np.uint8)

    def _check_targets(self) -> None:
        if self.label_map is None:
            return
        limit = self.num_classes or MAX_CLASSES
        targets = {*self.label_map.by_id.values(), *self.label_map.by_colour.values()}
        outside = sorted(target for target in targets if target >= limit and target != self.ignore_index)
        if outside:
            raise ConfigError(
                f"label_map: it leads to {_join(outside)}; expected classes 0 to {limit - 1}"
                f"{'' if self.ignore_index is None else f' or the ignore_index {self.ignore_index}'}. "
                "Correct the map, num_classes or ignore_index."
            )

    def _class_of(self, target: int) -> int:
        if target == self.ignore_index:
            return IGNORED
        return target if target < (self.num_classes or MAX_CLASSES) else _OUT_OF_RANGE

    def _build_table(self) -> np.ndarray:
        table = np.full(MAX_ID + 1, _UNMAPPED, dtype=np.int16)
        if self.label_map is None:
            limit = self.num_classes or MAX_CLASSES
            table[:] = _OUT_OF_RANGE
            table[:limit] = np.arange(limit)
            if self.ignore_index is not None:
                table[self.ignore_index] = IGNORED
        else:
            for key, target in self.label_map.by_id.items():
                table[key] = self._class_of(target)
        return table

    def _map_palette(self, indices: np.ndarray, entries: np.ndarray) -> np.ndarray:
        if self.label_map is None:
            found = np.unique(indices)
            same = ", ".join(f"{i}: {i}" for i in found[:_MAX_LISTED])
            raise RefusedError(
                "is a palette mask and there is no label_map",
                "Say what the palette's indices or colours mean. If the indices are the class ids: "
                f"label_map: {{{same}{', ...' if len(found) > _MAX_LISTED else ''}}}.",
            )
        if self.label_map.by_id:
            return self.map_ids(indices)
        palette = np.zeros((256, 3), dtype=np.uint32)
        palette[: len(entries)] = entries
        return self._map_colours(_pack(palette)[indices])

    def _map_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Turn colours, (H, W, 3 or 4) uint8, into (H, W) uint8 class ids."""
        if self.label_map is None or not self.label_map.by_colour:
            colours, counts = np.unique(_pack(pixels.astype(np.uint32)), return_counts=True)
            first = ", ".join(f'"#{colour:06x}"' for colour in colours[np.argsort(-counts)][:_MAX_LISTED])
            lack = "there is no label_map" if self.label_map is None else "label_map has ids as keys"
            raise RefusedError(
                f"is a mask in colours ({'RGBA' if pixels.shape[2] == 4 else 'RGB'}) and {lack}",
                f'Say what each colour means, as label_map: {{"#rrggbb": id, ...}}. Found here: {first}'
                f"{f' and {len(colours) - _MAX_LISTED} more' if len(colours) > _MAX_LISTED else ''}.",
            )
        if pixels.shape[2] == 4 and int(pixels[..., 3].min()) < 255:
            raise RefusedError("is a mask with transparent pixels", "Write it without the alpha channel.")
        return self._map_colours(_pack(pixels.astype(np.uint32)))

    def _map_colours(self, colours: np.ndarray) -> np.ndarray:
        assert self.label_map is not None
        keys = np.array(sorted(self.label_map.by_colour), dtype=np.uint32)
        classes = np.array([self._class_of(self.label_map.by_colour[int(key)]) for key in keys], dtype=np.uint8)
        position = np.minimum(np.searchsorted(keys, colours), len(keys) - 1)
        unknown = keys[position] != colours
        if unknown.any():
            values, counts = np.unique(colours[unknown], return_counts=True)
            each = [f'"#{value:06x}" ({count:,} px)' for value, count in zip(values, counts, strict=True)]
            raise RefusedError(
                f"holds colours that label_map does not name: {listed(each, _MAX_LISTED)}",
                "Add them to label_map; colours that mean nothing lead to the ignore_index.",
            )
        return classes[position]

    def _explain(self, ids: np.ndarray, refused: np.ndarray, labels: np.ndarray) -> RefusedError:
        found_ids = _list_ids(ids[refused])
        if self.label_map is not None:
            return RefusedError(
                f"holds {found_ids}, which label_map does not name",
                "Add them to label_map; ids that mean nothing lead to the ignore_index.",
            )
        assert (labels[refused] == _OUT_OF_RANGE).all()
        worst = int(ids[refused].max())
        limit = self.num_classes or MAX_CLASSES
        got = f"holds {found_ids}, outside 0 to {limit - 1}"
        got += "" if self.num_classes is None else f" (num_classes: {self.num_classes})"
        if worst == 255 and int(ids[refused].min()) == 255:
            black_and_white = set(np.unique(ids)) == {0, 255}
            remedy = "If 255 marks pixels without a label, say ignore_index: 255"
            return RefusedError(got, f"{remedy}{'; if it is class 1, label_map: {0: 0, 255: 1}' * black_and_white}.")
        count = f"num_classes: {worst + 1}, " if worst < MAX_CLASSES else ""
        return RefusedError(got, f"Say {count}ignore_index for an id that means nothing, or a label_map.")


def raw_mode_of(picture: Image.Image) -> str:
    """Name the form of the pixels in the file, such as "L;4" or "RGB;16B", which Pillow's mode may hide."""
    tiles = getattr(picture, "tile", None)
    if not tiles:
        return ""
    arguments = tiles[0][3]
    first = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    return first if isinstance(first, str) else ""


def _parse_colour(text: str) -> int | None:
    text = text.strip()
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return int(text[1:], 16)
    match = re.fullmatch(r"[(\[]?\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*[)\]]?", text)
    if match is None or any(int(part) > 255 for part in match.groups()):
        return None
    red, green, blue = (int(part) for part in match.groups())
    return red << 16 | green << 8 | blue


def _pack(pixels: np.ndarray) -> np.ndarray:
    """Pack (..., 3 or 4) uint32 into (...) 0xRRGGBB."""
    return pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]


def _list_ids(ids: np.ndarray) -> str:
    values, counts = np.unique(ids, return_counts=True)
    each = [f"{value} ({count:,} px)" for value, count in zip(values, counts, strict=True)]
    return f"{'id' if len(each) == 1 else 'ids'} {listed(each, _MAX_LISTED)}"


def _join(values: Iterable[int]) -> str:
    return ", ".join(str(value) for value in values)
