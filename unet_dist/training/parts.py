"""What a training run is made of, what it remembers beside its tensors, and whom it tells.

Owns the types that the loop, the boundary of a step and a resume share. Must not know their use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from unet_dist.config.batch_cut import BatchCut
from unet_dist.config.sections import Config
from unet_dist.data.batches.shares import RunShares
from unet_dist.losses.contract import Loss
from unet_dist.metrics.confusion import Scores
from unet_dist.metrics.registry import Counted
from unet_dist.models.contract import TrainableNetwork
from unet_dist.processes.group import Processes
from unet_dist.terminal import Teller


class Evaluate(Protocol):
    """Scores of the model on the validation split, or None when it was stopped half-way."""

    def __call__(self, is_stopped: Callable[[], bool]) -> Scores | None:
        """Validate; None if the run was stopped meanwhile."""


@dataclass
class Progress:
    """What a run remembers beside its tensors.

    Attributes:
        step: optimizer steps done.
        evaluated_step: step of the last validation.
        best_present, best_step: the best validation so far, by the mean IoU over classes in the labels; step 0 is none.
        best_miou: its mean IoU as published, over classes in label or prediction.
        evals_without_better: validations since then.
        overflows: fp16 steps that the loss scaler skipped.
        seconds: wall time of training so far.
        scaler: the state of the fp16 loss scaler.
        schedule_start: the step after which the course of the learning rate began.
        logged_step: step of the last record of the loss; None where nobody knows, so that the next record begins here.
        loss_sums: the losses since then, summed up by each rank.
    """

    step: int = 0
    evaluated_step: int = 0
    best_miou: float = 0.0
    best_present: float = 0.0
    best_step: int = 0
    evals_without_better: int = 0
    overflows: int = 0
    seconds: float = 0.0
    scaler: dict[str, Any] | None = None
    schedule_start: int = 0
    logged_step: int | None = None
    loss_sums: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.best_step and not self.best_present:  # a checkpoint of before there were two figures
            self.best_present = self.best_miou


class Callback(Protocol):
    """Listens to a run, on every process of it and in the same order. Inherit from it to listen to some of these only.

    A callback may use what it likes but must not change weights or draw from torch's generator: the run would be another one.
    """

    def on_step(self, step: int, loss: Tensor) -> None:
        """Called after each step.

        Args:
            step: 1 is the first.
            loss: () on the device: what this process adds to the loss of the step. To read it (`loss.item()`) waits for the
                device, so keep it and read it later.
        """

    def on_validation(self, step: int, scores: Scores) -> None:
        """Called after each validation, with the scores of the whole split."""

    def on_end(self, progress: Progress) -> None:
        """Called once, when the last step is done or the run is asked to stop; all is saved."""


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
        data: the identity of the data (Cache.identity), for the checkpoints.
        class_names, ignore_index: for the tables.
        given: what a caller brought as objects, by key, as words: for the checkpoints.
        metrics: further numbers of a validation by name, each from its confusion matrix.
        callbacks: notified of steps and validations.
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
    given: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Counted] = field(default_factory=dict)
    callbacks: Sequence[Callback] = ()
