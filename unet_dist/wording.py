"""Small pieces of sentences: amounts and texts as people read them.

Owns turning a number or somebody else's text into words that fit a line. Knows nothing of what they are about.
"""

from __future__ import annotations


def shorten(text: str, length: int = 200) -> str:
    """A text of at most `length` characters, its middle left out where it is longer.

    >>> shorten("a long name", 7)
    'a l...e'
    """
    if len(text) <= length:
        return text
    tail = (length - 3) // 3
    return f"{text[: length - 3 - tail]}...{text[len(text) - tail :]}"
