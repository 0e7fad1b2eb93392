"""How the kit says that a promise is not kept. Needs no test framework: a broken promise is a BrokenPromiseError, in a sentence."""

from __future__ import annotations


class BrokenPromiseError(AssertionError):
    """A part breaks its contract: the promise, and the observation."""


def promise(is_kept: bool, sentence: str) -> None:
    """Raise the sentence where the promise is not kept."""
    if not is_kept:
        raise BrokenPromiseError(sentence)
