"""Tiny runs in the test's own process, for tests of what goes wrong in them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.faults.runs import TINY, end_of


@pytest.fixture(autouse=True)
def _own_process(own_process: None) -> None:
    """All runs here are in the test's own process."""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decoded scenes of all runs here."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A run that has ended, with checkpoints at steps 2 and 4; tests copy it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert end_of(*TINY, "--cache_path", str(cache), "--output_path", str(folder)) == 0
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def run_folder(tmp_path: Path, finished: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
