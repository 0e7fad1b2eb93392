"""The keys that bound what decoding an image may take, of commands that read images that a data set does not hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from unet_dist.config.quantities import EXPECTED_BYTES, parse_bytes
from unet_dist.config.rules import OptionsSection, Positive, Reads

Bytes = Annotated[str, Reads(parse_bytes, EXPECTED_BYTES, "SIZE")]


@dataclass(frozen=True, kw_only=True)
class DecodingOptions(OptionsSection):
    """How images are decoded"""

    decode_memory: Bytes | None = None
    """Largest memory for decoding one piece of an image, such as 4GiB. An image that takes more is refused. Default: a quarter of
    this process's memory."""
    decode_seconds: Positive = 300.0
    """Longest time to open an image, or to decode one piece of it, s. A slower image is refused."""
