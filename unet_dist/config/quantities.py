"""Sizes and amounts as people write them: 1080x1920, 24GiB, 2h, 0,4095.

Owns reading them; each raises ValueError for what it cannot read, and says which words it takes in EXPECTED_... . Knows no key.
"""

from __future__ import annotations

import math
import re
from typing import Annotated

from unet_dist.config.rules import Must, Reads, matching

EXPECTED_SHAPE = "height x width in px such as 1080x1920"
EXPECTED_BYTES = "a number and a unit, such as 6GiB or 900MiB"
EXPECTED_TIME = "a number and a unit, such as 90min or 2h"
EXPECTED_RANGE = "two numbers, the smaller first, such as 0,4095"
EXPECTED_BANDS = "numbers of bands from 1 on, or their names, each once, such as 4,3,2 or nir,red,green"
EXPECTED_NORMALISATION = (
    "mean_std, percentile, none, or range LOW,HIGH such as range 0,4095, with a pair per channel where they differ"
)


def parse_shape(text: str) -> tuple[int, int]:
    """Read height x width, px.

    >>> parse_shape("1080x1920")
    (1080, 1920)

    Raises:
        ValueError: not two whole numbers above 0 joined by an x.
    """
    match = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", text.strip().lower())
    if match is None or not int(match[1]) or not int(match[2]):
        raise ValueError(text)
    return int(match[1]), int(match[2])


def parse_bytes(text: str) -> int:
    """Read an amount of memory.

    >>> parse_bytes("1.5 GiB")
    1610612736

    Raises:
        ValueError: not a number above 0 with a unit.
    """
    match = re.fullmatch(r"\s*([0-9.]{1,20})\s*([KMGT]i?B?|B?)\s*", text)
    if match is None or not float(match[1]) > 0:
        raise ValueError(text)
    unit = match[2]
    base = 1024 if "i" in unit else 1000
    return int(float(match[1]) * base ** (" KMGT".index(unit[0]) if unit and unit != "B" else 0))


def parse_time(text: str) -> float:
    """Read a time in seconds.

    >>> parse_time("1.5h"), parse_time("30 min")
    (5400.0, 1800.0)

    Raises:
        ValueError: not a number above 0 with a unit of s, min, h or d.
    """
    match = re.fullmatch(r"\s*([0-9.]{1,20})\s*(s|min|h|d)\s*", text)
    if match is None or not float(match[1]) > 0:
        raise ValueError(text)
    return float(match[1]) * {"s": 1, "min": 60, "h": 3600, "d": 86400}[match[2]]


def parse_range(text: str) -> tuple[float, float]:
    """Read two numbers, the smaller first.

    >>> parse_range("0,4095")
    (0.0, 4095.0)

    Raises:
        ValueError: other than two numbers, or the larger first.
    """
    numbers = [float(word) for word in re.split(r"[,:\s]+", text.strip("[]() "))]
    if len(numbers) != 2 or not -math.inf < numbers[0] < numbers[1] < math.inf:
        raise ValueError(text)
    return numbers[0], numbers[1]


def parse_pattern(text: str) -> re.Pattern[str]:
    """Read a regular expression. Raises: ValueError."""
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError from error


def parse_bands(text: str) -> tuple[int | str, ...]:
    """Read numbers of bands, from 1 on, or names, each once. Commas part names that have spaces in them.

    >>> parse_bands("4,3,2")
    (4, 3, 2)
    >>> parse_bands("near infrared, red")
    ('near infrared', 'red')

    Raises:
        ValueError: none, one below 1, one twice, or a number below 0 or with a point.
    """
    words = [word.strip(" '\"") for word in re.split(r"," if "," in text else r"\s+", text.strip("[]() "))]
    bands = tuple(int(word) if word.isdecimal() else word for word in words)
    are_words = all(isinstance(band, int) or any(map(str.isalpha, band)) for band in bands)
    if 0 in bands or not are_words or len(set(bands)) < len(bands):
        raise ValueError(text)
    return bands


def parse_select(text: str) -> dict[str, tuple[int, int]]:
    """Read places on axes of stacks, from 1 on: of each axis one, or the first and the last.

    >>> parse_select("t=1, z=5-7")
    {'t': (1, 1), 'z': (5, 7)}

    Raises:
        ValueError: none, an axis twice, places below 1 or in reverse.
    """
    found: dict[str, tuple[int, int]] = {}
    for word in filter(None, re.split(r"[,\s]+", text.strip("[](){} "))):
        match = re.fullmatch(r"([A-Za-z]\w*)[=:]([1-9]\d*)(?:-([1-9]\d*))?", word)
        if match is None or match[1].lower() in found or int(match[3] or match[2]) < int(match[2]):
            raise ValueError(text)
        found[match[1].lower()] = int(match[2]), int(match[3] or match[2])
    if not found:
        raise ValueError(text)
    return found


def parse_normalisation(text: str) -> tuple[str, tuple[tuple[float, float], ...]]:
    """Read how pixels are normalised: the word, and the limits that range names, one pair for all channels or one for each.

    >>> parse_normalisation("range 0,4095")
    ('range', ((0.0, 4095.0),))

    Raises:
        ValueError: no such word, or limits that are none.
    """
    word, *pairs = text.replace(":", " ").split()
    limits = tuple(parse_range(pair) for pair in pairs)
    if word not in ("mean_std", "percentile", "none", "range") or (word == "range") != bool(limits):
        raise ValueError(text)
    return word, limits


EXPECTED_SELECT = "axes of stacks with a place from 1 on, or the first and the last, such as t=1,z=5-7"
Selecting = Annotated[str, Reads(parse_select, EXPECTED_SELECT, "t=1,z=5")]
Finite = Annotated[float, Must(math.isfinite, "a finite number")]
Range = Annotated[str, Reads(parse_range, EXPECTED_RANGE, "LOW,HIGH")]
Bands = Annotated[str, Reads(parse_bands, EXPECTED_BANDS, "4,3,2")]
Beside = Annotated[str, matching(r"(qgis|geojson)(,(qgis|geojson))*", "qgis, geojson or qgis,geojson")]
"""Kinds of files beside a label map, separated by commas."""
Normalising = Annotated[
    str, Reads(parse_normalisation, EXPECTED_NORMALISATION, "mean_std|percentile|none|range LOW,HIGH")
]
