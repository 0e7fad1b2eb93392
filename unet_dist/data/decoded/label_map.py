"""What the user says that ids or colours of masks mean.

Owns how a `label_map` is written. Must not know masks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from unet_dist.errors import ConfigError

MAX_ID = 65535  # the largest id that a 16-bit mask holds


@dataclass(frozen=True)
class LabelMap:
    """What the ids or the colours of the masks mean: a translation to class ids."""

    by_id: dict[int, int]
    by_colour: dict[int, int]
    """Keys are 0xRRGGBB."""
    has_ranges: bool = False
    """Whether ranges of ids were named: then values need not be those that were written."""

    @classmethod
    def parse(cls, mapping: Mapping[str | int, int]) -> LabelMap:
        """Read `{"#804080": 0, "220,20,60": 1}`, `{7: 0, 8: 1}` or, by ranges of ids, `{"0-127": 0, "128-255": 1}`.

        Raises:
            ConfigError: a key is neither an id nor a colour, both kinds are mixed, or a value is not a class id.
        """
        by_id: dict[int, int] = {}
        by_colour: dict[int, int] = {}
        has_ranges = False
        for key, target in mapping.items():
            if isinstance(target, bool) or not isinstance(target, int) or not 0 <= target <= MAX_ID:
                raise ConfigError(
                    f"label_map: {key!r} leads to {target!r}; expected a class id from 0 on, or the ignore_index."
                )
            colour = _parse_colour(str(key))
            if colour is not None:
                by_colour[colour] = target
            elif (span := _parse_ids(str(key))) is not None:
                has_ranges = has_ranges or len(span) > 1
                by_id.update(dict.fromkeys(span, target))
            else:
                raise ConfigError(
                    f"label_map: the key {key!r} is neither an id (0 to {MAX_ID}) nor a colour; "
                    'write colours as "#rrggbb" or "r,g,b" (0 to 255).'
                )
        if by_id and by_colour:
            raise ConfigError("label_map: it has both ids and colours as keys; give all of one kind.")
        if not by_id and not by_colour:
            raise ConfigError("label_map: it is empty; leave it out, or give the meaning of each id or colour.")
        return cls(by_id, by_colour, has_ranges)


def _parse_colour(text: str) -> int | None:
    text = text.strip()
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return int(text[1:], 16)
    match = re.fullmatch(r"[(\[]?\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*[)\]]?", text)
    if match is None or any(int(part) > 255 for part in match.groups()):
        return None
    red, green, blue = (int(part) for part in match.groups())
    return red << 16 | green << 8 | blue


def _parse_ids(text: str) -> range | None:
    """Read an id or a range of ids, such as 7 or 0-127, both ends included."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?", text)
    if match is None:
        return None
    first, last = int(match[1]), int(match[2] or match[1])
    return range(first, last + 1) if first <= last <= MAX_ID else None
