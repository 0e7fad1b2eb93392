"""The settings of an AVIF: bits of its values, and whether it is grey.

Owns a few bytes of the file. Pillow cuts all values to 8 bits, and shows grey with transparency as colours.
Source: AV1 Codec ISO Media File Format Binding 1.2, 2.3.3 (av1C).
"""

from __future__ import annotations

from unet_dist.errors import RefusedError
from unet_dist.imaging.encoded import Encoded

_HIGH, _TWELVE, _GREY = 0x40, 0x20, 0x10
_BOX = b"av1C"


def settings_of(encoded: Encoded) -> tuple[int, bool]:
    """Give the bits of a value, 8, 10 or 12, and whether there is no colour.

    The settings of the image come first. Those of its transparency may follow, and are grey.

    Raises:
        RefusedError: there are none.
    """
    with encoded.open() as file:
        start = file.read()
    places = [part[2] for part in start.split(_BOX)[1:] if len(part) > 2 and part[0] == 0x81]  # marker and version
    if not places:
        raise RefusedError(f"{encoded.name} is an AVIF without its settings (av1C)", "It is damaged: fetch it again.")
    bits = (12 if places[0] & _TWELVE else 10) if places[0] & _HIGH else 8
    return bits, all(place & _GREY for place in places)
