"""The mistakes a user can mend.

Owns the exceptions that the command line prints as a sentence, without a traceback. A broken invariant of our own is an
assert, never one of these.
"""

from __future__ import annotations

from collections.abc import Iterable


class UnetDistError(Exception):
    """A mistake the user can mend: the message says what came, what was expected and what to do."""


class ConfigError(UnetDistError):
    """A setting is unknown, out of range, without effect or at odds with another."""


class DataError(UnetDistError):
    """An image, a mask or a data set cannot be used as it is."""


class RefusedError(DataError):
    """One image that cannot be used: its fault, and apart the remedy, so that many can share a remedy."""

    def __init__(self, got: str, remedy: str) -> None:
        super().__init__(f"{got}. {remedy}")
        self.got = got
        self.remedy = remedy

    def put_name(self, name: str) -> None:
        """Put the name of a file before its fault."""
        self.got = f"{name} {self.got}"
        self.args = (f"{self.got}. {self.remedy}",)


class SizeError(UnetDistError, ValueError):
    """A side in pixels is not one the network can take."""


class LocalityError(UnetDistError):
    """The network has no finite halo, so exact tiles do not exist."""


class CheckpointError(UnetDistError):
    """A checkpoint or a model folder is missing, damaged or of another kind."""


class LaunchError(UnetDistError):
    """The processes, their number or the run's folder do not fit the run."""


class ExportError(UnetDistError):
    """An exported model does not compute what the original does, or the hub did not take it."""


class ExtraError(UnetDistError, ImportError):
    """An optional package is needed and not installed."""


def suggest(name: str, valid: Iterable[str]) -> str:
    """Say which valid name was probably meant, and list them all.

    >>> suggest("nrom", ["norm", "depth"])
    'Did you mean "norm"? Valid: depth, norm.'
    """
    import difflib  # for a mistake only

    valid = sorted(valid)
    near = difflib.get_close_matches(name, valid, n=1)
    hint = f'Did you mean "{near[0]}"? ' if near else ""
    return f"{hint}Valid: {', '.join(valid)}."


def suggest_key(key: str, keys: Iterable[str]) -> str:
    """Say which keys were probably meant by a misspelt one; the whole list would hide them.

    >>> suggest_key("lr", ["learning_rate", "depth"])
    'Did you mean --learning_rate? --help all lists all keys.'
    """
    keys = list(keys)
    near = [k for k in keys if len(key) > 1 and key == "".join(word[0] for word in k.split("_"))]  # lr, bs
    near = near or _much_alike(key, keys)
    hint = f"Did you mean {' or '.join('--' + k for k in near)}? " if near else ""
    return f"{hint}--help all lists all keys."


def _much_alike(key: str, keys: Iterable[str]) -> list[str]:
    """The keys that a misspelt one is most like: up to three, none much less alike than the first."""
    import difflib

    near = difflib.get_close_matches(key, keys, n=3, cutoff=0.5)
    alike = [difflib.SequenceMatcher(None, other, key).ratio() for other in near]
    return [other for other, ratio in zip(near, alike, strict=True) if ratio > alike[0] - 0.15]
