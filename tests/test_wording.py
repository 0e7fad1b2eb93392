"""Proves the examples in the docstrings of small text functions, and what they do with nothing."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from unet_dist import errors, wording
from unet_dist.config import quantities
from unet_dist.wording import first_line


@pytest.mark.parametrize("module", [errors, wording, quantities], ids=lambda module: module.__name__)
def test_examples(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


def test_error_without_words_is_named_by_its_type() -> None:
    assert first_line(OSError()) == "OSError"
