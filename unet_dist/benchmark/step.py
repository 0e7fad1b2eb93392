"""The training step by itself, the loop around it, and the data path alone.

Owns how a run's own parts are made to repeat themselves for the clock: it times the Trainer's step and its loop, not a
copy of them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unet_dist.benchmark.timing import seconds
from unet_dist.config.sections import Config
from unet_dist.data.batches.ahead import read_ahead
from unet_dist.data.batches.shares import StepShare
from unet_dist.processes.stopping import NO_WISH
from unet_dist.runs.metrics_log import read_metrics
from unet_dist.terminal import Teller
from unet_dist.training.parts import Parts, Progress
from unet_dist.training.trainer import Trainer

# Further than any measurement goes: no validation, no checkpoint, and a learning rate that stays small.
ENDLESS_STEPS = 10**9


def endless(config: Config) -> Config:
    """The config of a run whose loop does nothing but steps, until it is left."""
    return config.replace(
        total_steps=ENDLESS_STEPS,
        eval_steps=ENDLESS_STEPS,
        checkpoint_steps=None,
        early_stopping_evals=None,
        time_limit_min=None,
        trackers=[],
        resume="auto",
        allow_config_change=False,
        init_from=None,
    )


# ----------------------------------------------------------------------------------------------------------- bare step


class BareStep:
    """The Trainer's step on data that is on the device already.

    Args:
        parts: of an endless run.
    """

    def __init__(self, parts: Parts) -> None:
        self.share = on_device(parts.shares[1], parts.processes.device)
        self._trainer = Trainer(parts, Progress())
        divisor = parts.shares[1].divisor(parts.loss)
        self.divisor: Tensor = parts.processes.sum_(divisor.to(parts.processes.device))
        self._device = parts.processes.device
        parts.model.train()
        if parts.processes.world_size > 1:
            self._trainer.settle_buckets()

    def seconds(self, count: int) -> float:
        """Seconds a step, of `count` steps in a row."""
        return seconds(lambda: self.make(count), self._device) / count

    def make(self, count: int) -> None:
        """Order this number of steps, and wait for none."""
        for _ in range(count):
            self._trainer.step(self.share, self.divisor)


def on_device(share: StepShare, device: torch.device) -> StepShare:
    """A share whose tensors are on a device."""
    return StepShare(share.step, [batch.on(device) for batch in share.batches], share.counts)


# ----------------------------------------------------------------------------------------------------------- real loop


@dataclass(frozen=True)
class Lap:
    """Some steps of the loop, as the Trainer itself records them.

    Attributes:
        seconds: a step.
        data_wait: share of the time in which the loop waited for data.
    """

    seconds: float
    data_wait: float


class _EnoughError(Exception):
    """The loop has made the steps that were wanted."""


class _Steps:
    """Stands where the loop asks at each step whether it is to stop, and leaves it after this number of steps."""

    def __init__(self, count: int) -> None:
        self._left = count

    def now(self) -> int:
        if self._left == 0:
            raise _EnoughError
        self._left -= 1
        return NO_WISH


def run_loop(parts: Parts, steps: int, folder: Path) -> list[Lap]:
    """Run the Trainer's loop with the run's data, one step to warm up and then `steps` steps.

    Args:
        parts: of an endless run.
        folder: for metrics.jsonl; an empty one.

    Returns:
        The laps between two records of the loop, log_steps long, on the main process; nothing on the others.
    """
    lap_steps = min(parts.config.run.log_steps, steps)
    folder.mkdir(parents=True)
    config = parts.config.replace(log_steps=lap_steps)
    timed = replace(parts, config=config, folder=folder, teller=Teller(speaks=False))
    # The first record comes after one step, which also started the reading: it is the warm-up.
    trainer = Trainer(timed, Progress(step=lap_steps - 1, evaluated_step=lap_steps - 1))
    wish: Any = _Steps(1 + steps // lap_steps * lap_steps)
    with suppress(_EnoughError):
        trainer.fit(wish)
    trainer.flush()  # a GPU's record comes a step late, and no step comes any more
    batch_size = parts.config.schedule.batch_size
    records = read_metrics(folder / "metrics.jsonl")[1:]
    return [Lap(batch_size / record["images_per_s"], record["data_wait"]) for record in records]


# ----------------------------------------------------------------------------------------------------------- data path


def read_seconds(parts: Parts, count: int) -> float:
    """Seconds in which the data path alone reads one step's share, of `count` in a row."""
    workers = parts.config.data.num_workers
    # Worker processes take long to start, and then read two shares ahead each; a thread starts at once, and is timed from there.
    warm_up = 1 + 2 * workers if workers else 0
    shares = read_ahead(
        parts.shares,
        range(1, warm_up + count + 1),
        num_workers=workers,
        pin_memory=parts.processes.device.type == "cuda",
    )

    def read(steps: int = count) -> None:
        for _ in range(steps):
            deque(next(shares).batches, maxlen=0)  # those of a large share come one by one

    with closing(shares):
        read(warm_up)
        return seconds(read, torch.device("cpu")) / count


def windows_of(share: StepShare) -> int:
    """Windows that a share computes."""
    return sum(batch.shape[0] for batch in share.batches)


def pixels_of(share: StepShare) -> int:
    """Pixels of the windows that a share computes."""
    return sum(math.prod(batch.shape) for batch in share.batches)


def flops_of(share: StepShare, count: Callable[[tuple[int, int]], int]) -> int:
    """Floating-point operations of a share.

    Args:
        count: those of one window of a height and width.
    """
    return sum(batch.shape[0] * count(batch.shape[1:]) for batch in share.batches)
