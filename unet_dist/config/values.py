"""A value from a word or from a line of YAML, by the type at its field.

Owns reading it (jsonargparse does, by its public names) and the sentence where it cannot be read.
"""

from __future__ import annotations

from typing import Any

from unet_dist.config.rules import in_words, spelt_out, unmarked
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
    try:
        parsed = parser.parse_args([f"--value={value}"]) if is_word else parser.parse_object({"value": value})
    except (ArgumentError, TypeError, ValueError):
        got = shorten(str(value), 80)
        raise ConfigError(f"{key}: got {got!r}, expected {in_words(kind)}. ({meaning})") from None
    return parsed["value"]
