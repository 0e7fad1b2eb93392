"""Sizes and amounts as people write them: 1080x1920, 24GiB, 2h, 0,4095.

Owns reading them; each raises ValueError for what it cannot read, and says which words it takes in EXPECTED_... . Knows no key.
"""

from __future__ import annotations

import math
import re

EXPECTED_SHAPE = "height x width in px such as 1080x1920"
EXPECTED_BYTES = "a number and a unit, such as 6GiB or 900MiB"
EXPECTED_TIME = "a number and a unit, such as 90min or 2h"
EXPECTED_RANGE = "two numbers, the smaller first, such as 0,4095"


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
