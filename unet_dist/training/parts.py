"""What a training run is made of, and what it remembers beside its tensors.

Owns the two types that the loop, the boundary of a step and a resume share. Must not know what is done with them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from unet_dist.config.batch_cut import BatchCut
from unet_dist.config.sections import Config
from unet_dist.data.batches.shares import RunShares
from unet_dist.losses.contract import Loss
from unet_dist.metrics.confusion import Scores
from unet_dist.models.contract import TrainableNetwork
from unet_dist.processes.group import Processes
from unet_dist.terminal import Teller


class Evaluate(Protocol):
    """Scores of the model on the validation split, or None when it was stopped half-way."""

    def __call__(self, is_stopped: Callable[[], bool]) -> Scores | None: ...


@dataclass
class Progress:
    """What a run remembers beside its tensors.

    Attributes:
        step: optimizer steps done.
        evaluated_step: step of the last validation.
        best_miou, best_step: the best validation so far; step 0 is none.
        evals_without_better: validations since then.
        overflows: fp16 steps that the loss scaler skipped.
        seconds: wall time of training so far.
        scaler: the state of the fp16 loss scaler.
        schedule_start: the step after which the course of the learning rate began.
    """

    step: int = 0
    evaluated_step: int = 0
    best_miou: float = 0.0
    best_step: int = 0
    evals_without_better: int = 0
    overflows: int = 0
    seconds: float = 0.0
    scaler: dict[str, Any] | None = None
    schedule_start: int = 0


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Attributes:
        model: the network, on the device; halo is what its output is trimmed by beyond its own margin.
        wrapped: the same network as Processes.prepare returned it.
        trim: pixels cut off each side of the logits, so that they cover the labels.
        shares: this rank's share of every step.
        evaluate: the validation.
        folder: the run's folder.
        data: what is read, as Cache.identity says it: for the checkpoints.
        class_names, ignore_index: for the tables.
    """

    config: Config
    cut: BatchCut
    processes: Processes
    model: TrainableNetwork
    wrapped: Any
    trim: int
    optimizer: torch.optim.Optimizer
    loss: Loss
    shares: RunShares
    evaluate: Evaluate
    folder: Path
    data: dict[str, Any]
    teller: Teller
    class_names: list[str]
    ignore_index: int | None
