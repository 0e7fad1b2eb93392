"""A value from a word or from a line of YAML, by the type at its field.

Owns reading it (jsonargparse does, by its public names) and the sentence where it cannot be read.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from unet_dist.config.rules import in_words, is_mapping, spelt_out, unmarked
from unet_dist.errors import ConfigError
from unet_dist.wording import shorten


def read(key: str, kind: Any, value: Any, meaning: str, *, is_word: bool) -> Any:
    """Read the value of a key.

    Args:
        kind: the type at its field, with its marks.
        meaning: of the key, for the refusal.
        is_word: it stood on the command line, and lists and numbers in it are still to be read.

    Raises:
        ConfigError: it is none that the type takes.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    value = spelt_out(kind, value)
    parser = ArgumentParser(exit_on_error=False, add_help=False)
    parser.add_argument("--value", type=unmarked(kind))
    # YAML wants a blank after the colon of a mapping: {0:0,1:1} is none. In a word the meaning is clear.
    spaced = re.sub(r":(?=\S)", ": ", value) if is_word and is_mapping(kind) else value
    for attempt in dict.fromkeys((value, spaced)) if is_word else (value,):
        with suppress(ArgumentError, TypeError, ValueError):
            parsed = parser.parse_args([f"--value={attempt}"]) if is_word else parser.parse_object({"value": attempt})
            return parsed["value"]
    got = shorten(str(value), 80)
    joined = isinstance(value, dict) and None in value.values()
    blank = " Write a blank after each colon: {0: 0, 255: 1}." if joined and is_mapping(kind) else ""
    raise ConfigError(f"{key}: got {got!r}, expected {in_words(kind)}.{blank} ({meaning})")
