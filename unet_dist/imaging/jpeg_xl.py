"""The header of a JPEG XL: the size of the picture, and whether its code keeps every value.

Owns the bits of SizeHeader, ImageMetadata and FrameHeader. Decodes nothing. Source: ISO/IEC 18181-1.
"""

from __future__ import annotations

import re
from fractions import Fraction

_RATIOS = (*(Fraction(*pair) for pair in ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))),)
_HEADER_BYTES = 4096  # assumption: names of channels and custom colours take fewer
_ENUM = ((0, 0), (1, 0), (2, 4), (18, 6))
_CUSTOM = 2
"""Of white point and primaries."""
_ALPHA, _SPOT, _FILTER = 0, 2, 5
_GREY = 1


class _Bits:
    """Bits from the lowest of each byte; zeros behind the end."""

    def __init__(self, content: bytes) -> None:
        self._bits = int.from_bytes(content[:_HEADER_BYTES], "little")
        self.place = 0

    def take(self, count: int) -> int:
        """The next bits, as a number."""
        value = self._bits >> self.place & (1 << count) - 1
        self.place += count
        return value

    def one_of(self, *choices: tuple[int, int]) -> int:
        """A number that two bits choose: a constant, and bits to add."""
        constant, count = choices[self.take(2)]
        return constant + self.take(count)


def code_in_jpeg_xl(content: bytes) -> bytes | None:
    """Give the code behind its mark, bare or in boxes, whole or in parts; None where there is none."""
    if content[:2] == b"\xff\x0a":
        return content[2:]
    if content[4:8] != b"JXL ":
        return None
    found = re.search(rb"(?:jxlc|jxlp....)\xff\x0a", content, re.DOTALL)
    return content[found.end() :] if found else None


def size_in_jpeg_xl(code: bytes) -> tuple[int, int]:
    """Read (height, width) of a code."""
    return _size(_Bits(code))


def _size(bits: _Bits) -> tuple[int, int]:
    is_small = bits.take(1)

    def side() -> int:
        return (bits.take(5) + 1) * 8 if is_small else bits.one_of((1, 9), (1, 13), (1, 18), (1, 30))

    height = side()
    ratio = bits.take(3)
    return height, int(height * _RATIOS[ratio - 1]) if ratio else side()


def is_exact_jpeg_xl(code: bytes) -> bool:
    """Tell whether a code keeps every value: its colours as they are, in a modular frame.

    A preview, an animation and a profile of colours, which masks rarely have, count as loss unseen.
    """
    bits = _Bits(code)
    _size(bits)
    if bits.take(1):  # all by default: XYB
        return False
    has_more = bits.take(1)
    if has_more:
        bits.take(3)  # orientation
        if bits.take(3):  # another size, a preview, an animation
            return False
    _depth(bits)
    bits.take(1)  # buffers of 16 bits
    for _ in range(bits.one_of((0, 0), (1, 0), (2, 4), (1, 12))):
        _extra_channel(bits)
    if bits.take(1) or not _colours(bits):  # XYB
        return False
    if has_more and not bits.take(1):  # tones
        bits.take(49)
    if bits.take(2) or not bits.take(1):  # extensions, transforms of one's own
        return False
    bits.take(-bits.place % 8)
    is_default, _, is_modular = bits.take(1), bits.take(2), bits.take(1)
    return not is_default and bool(is_modular)


def _depth(bits: _Bits) -> None:
    if bits.take(1):  # floats
        bits.one_of((32, 0), (16, 0), (24, 0), (1, 6))
        bits.take(4)
    else:
        bits.one_of((8, 0), (10, 0), (12, 0), (1, 6))


def _extra_channel(bits: _Bits) -> None:
    if bits.take(1):  # alpha of 8 bits
        return
    kind = bits.one_of(*_ENUM)
    _depth(bits)
    bits.one_of((0, 0), (3, 0), (4, 0), (1, 3))  # its size
    bits.take(8 * bits.one_of((0, 0), (0, 4), (16, 5), (48, 10)))  # its name
    if kind == _ALPHA:
        bits.take(1)
    elif kind == _SPOT:
        bits.take(64)
    elif kind == _FILTER:
        bits.one_of((1, 0), (0, 2), (3, 4), (19, 8))


def _colours(bits: _Bits) -> bool:
    """Pass over the colours; False where they are a profile, whose length is coded."""
    if bits.take(1):
        return True
    if bits.take(1):
        return False
    is_grey = bits.one_of(*_ENUM) == _GREY
    if bits.one_of(*_ENUM) == _CUSTOM:
        _points(bits, 1)
    if not is_grey and bits.one_of(*_ENUM) == _CUSTOM:
        _points(bits, 3)
    if bits.take(1):
        bits.take(24)  # gamma
    else:
        bits.one_of(*_ENUM)
    bits.one_of(*_ENUM)  # intent
    return True


def _points(bits: _Bits, count: int) -> None:
    for _ in range(2 * count):
        bits.one_of((0, 19), (0, 19), (0, 20), (0, 21))
