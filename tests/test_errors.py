"""Proves the sentence for a misspelt name: the nearest first, all valid ones after it."""

from __future__ import annotations

import pytest

from unet_dist import errors
from unet_dist.errors import UnetDistError, suggest


def test_near_name_is_suggested() -> None:
    assert suggest("nrom", ["norm", "depth"]) == 'Did you mean "norm"? Valid: depth, norm.'


def test_name_like_none_gets_the_list_only() -> None:
    assert suggest("zzz", iter(["norm", "depth"])) == "Valid: depth, norm."


def test_every_mistake_of_a_user_is_printed_as_a_sentence() -> None:
    kinds = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(kinds) > 5
    assert all(issubclass(kind, UnetDistError) for kind in kinds)


@pytest.mark.parametrize(("kind", "builtin"), [(errors.SizeError, ValueError), (errors.ExtraError, ImportError)])
def test_errors_that_libraries_expect(kind: type[Exception], builtin: type[Exception]) -> None:
    """A caller from Python who knows only the built-in kind catches ours too."""
    assert issubclass(kind, builtin)
