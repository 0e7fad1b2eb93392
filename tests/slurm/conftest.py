"""One SLURM for the tests of this folder, where one can be had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.lab import Lab, slurm_lab, why_not

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a SLURM where none can be started, with the reason."""
    reason = why_not()
    for item in items:
        if reason and FOLDER in item.path.parents and item.get_closest_marker("slurm"):
            item.add_marker(pytest.mark.skip(reason=f"needs a SLURM: {reason}"))


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A SLURM of two nodes."""
    with slurm_lab() as lab:
        yield lab
