"""One laboratory for all tests of processes: tiny runs on tiny scenes, each launch shared by the tests that look at it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.processes import launch
from unet_dist.cli import main
from unet_dist.scenes.classes import SIDEWALK_CLASSES

IGNORED_CLASS = SIDEWALK_CLASSES.index("nature-vegetation")
"""A tenth of the pixels, and very uneven among crops: a mean of the ranks' means would be another loss."""

TINY: dict[str, Any] = {
    "synthetic_images": 20, "synthetic_size": "48x80", "ignore_index": IGNORED_CLASS, "class_weights": "median",
    "base_channels": 2, "depth": 2, "dropout": 0.2, "input_size": 60, "batch_size": 12, "max_grad_norm": 1.0,
    "total_steps": 20, "eval_steps": 10, "log_steps": 1, "learning_rate": 1e-2, "ema_decay": 0.9, "seed": 20261123,
    "trackers": "[]", "mixed_precision": "no",
}  # fmt: skip
TWO_PASSES: dict[str, Any] = {
    "dtype": "float64",
    "loss": "cross_entropy+dice",
    "norm": "weight",
    "cutmix": 0.3,
    "classmix": 0.4,
    "deep_supervision": 1,
    "base_channels": 8,
    "optimizer": "muon",
}
"""A loss whose divisor depends on every process's logits; filters that are standardised once for all passes of a step, and moved
by Muon."""
STEPS_OF_LONG = 100
LONG: dict[str, Any] = {"total_steps": STEPS_OF_LONG, "eval_steps": 10, "checkpoint_steps": 7}
"""A run that is worth killing: a validation, a checkpoint or both are never far."""


class Laboratory:
    """Runs and where they are.

    Attributes:
        folder: each run lies below it by its name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._launched: set[int] = set()

    def train(self, name: str, **keys: Any) -> list[str]:
        """The words that train a tiny run into folder/name."""
        keys = {**TINY, "cache_path": self.folder / "cache", "output_path": self.folder / name, **keys}
        return ["train", *(f"--{key}={value}" for key, value in keys.items())]

    def evaluate(self, name: str, into: str) -> list[str]:
        """The words that evaluate folder/name, every image of it, into folder/into."""
        keys = {
            "split": "all",
            "mixed_precision": "no",
            "pictures": 3,
            "border_class": 1,
            "output_path": self.folder / into,
        }
        return ["evaluate", str(self.folder / name), *(f"--{key}={value}" for key, value in keys.items())]

    def alone(self, words: list[str], *, code: int = 0) -> None:
        """Run a command in this process, as the only one of its run; it must leave with a code."""
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
        with pytest.raises(SystemExit) as leaving:
            main(words)
        AcceleratorState._reset_state(reset_partial_state=True)
        assert leaving.value.code == code

    def alone_once(self, name: str, **keys: Any) -> Path:
        """The folder of a run made in this process, made when it is first asked for."""
        if not (self.folder / name / "last").exists():
            self.alone(self.train(name, **keys))
        return self.folder / name

    def together(self, world_size: int) -> Path:
        """The folder with all runs of a launch, made when one of them is first asked for."""
        if world_size not in self._launched:
            jobs = self._jobs(world_size)
            with launch(world_size, jobs, self.folder / f"launch-{world_size}") as group:
                codes = group.wait()
                assert codes == [0] * world_size, group.said
                assert [group.codes(rank) for rank in range(world_size)] == [[0] * len(jobs)] * world_size, group.said
                assert not any(group.said[1:]), "only the first process speaks"
            self._launched.add(world_size)
        return self.folder

    def _jobs(self, world_size: int) -> list[list[str]]:
        share = 12 // world_size
        jobs = [
            self.train(f"float64-{world_size}", dtype="float64"),
            self.train(f"gradient-{world_size}", total_steps=1),
        ]
        if world_size == 2:
            jobs.append(self.train("two-passes-2", **TWO_PASSES, micro_batch_size=3))
        if share > 1:
            jobs.append(self.train(f"float64-{world_size}-cut", dtype="float64", micro_batch_size=share // 2))
        if world_size in (2, 3):
            jobs.append(self._moved(world_size))
            self.alone_once("float32")
            jobs.append(self.evaluate("float32", into=f"evaluated-{world_size}"))
            jobs.append(self.train(f"long-{world_size}", **LONG))
        return jobs

    def _moved(self, world_size: int) -> list[str]:
        """A float64 run that one process began and two, then three, resumed: the words of a leg of it."""
        if world_size == 2:
            begun = self.alone_once("float64-1", dtype="float64") / "checkpoints/step-00000010"
        else:
            begun = self.together(2) / "moved-2/checkpoints/step-00000015"
        return self.train(f"moved-{world_size}", dtype="float64", checkpoint_steps=5, resume=begun)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """The laboratory, with the data set prepared; this process computes as one rank of the others does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"):
            patch.delenv(key, raising=False)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        laboratory = Laboratory(tmp_path_factory.mktemp("runs"))
        keys = {key: TINY[key] for key in ("synthetic_images", "synthetic_size", "ignore_index")}
        cache = laboratory.folder / "cache"
        laboratory.alone(["prepare", *(f"--{key}={value}" for key, value in keys.items()), f"--cache_path={cache}"])
        yield laboratory
        assert len([path for path in cache.iterdir() if path.is_dir()]) == 1, "all commands share one decoded cache"
        torch.set_num_threads(threads)
        assert "RANK" not in os.environ
