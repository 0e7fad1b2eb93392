"""A tiny run to measure: its parts in this process, and the command on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from unet_dist.benchmark.setting import Setting, open_setting
from unet_dist.cli import main
from unet_dist.config.sections import Config
from unet_dist.processes.group import Processes, open_processes
from unet_dist.terminal import Teller

TINY: dict[str, Any] = {
    "synthetic_images": 9, "synthetic_size": "48x80", "base_channels": 2, "depth": 2, "input_size": 60, "batch_size": 4,
    "log_steps": 2, "mixed_precision": "no", "trackers": [],
}  # fmt: skip
QUICK = {"bench_rounds": 2, "bench_steps": 2, "bench_seconds": 1}


@pytest.fixture(scope="session")
def cache_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decoded scenes, made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is a run of its own, on the CPU."""
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"):
        monkeypatch.delenv(key, raising=False)
    AcceleratorState._reset_state(reset_partial_state=True)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def processes() -> Iterator[Processes]:
    """The one process there is."""
    with open_processes(mixed_precision="no") as opened:
        yield opened


@pytest.fixture
def build(processes: Processes, cache_path: Path, tmp_path: Path) -> Callable[..., Setting]:
    """Build a setting of the tiny run with some keys changed."""

    def make(**keys: Any) -> Setting:
        config = Config.from_flat({**TINY, "cache_path": str(cache_path), **keys})
        folder = tmp_path / f"setting-{len(list(tmp_path.iterdir()))}"
        return open_setting(config, processes, folder, Teller(speaks=False), name="tiny")

    return make


@pytest.fixture
def words(cache_path: Path) -> Callable[..., list[str]]:
    """The words of a tiny bench."""

    def make(output: Path, **keys: Any) -> list[str]:
        keys = {**TINY, "trackers": "[]", **QUICK, "cache_path": cache_path, "output_path": output, **keys}
        return ["bench", *(f"--{key}={value}" for key, value in keys.items())]

    return make


def leave(words: list[str]) -> int:
    """Run the program; returns the code it leaves with."""
    with pytest.raises(SystemExit) as leaving:
        main(words)
    return int(leaving.value.code or 0)
