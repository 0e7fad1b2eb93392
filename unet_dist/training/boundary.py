"""What happens between two steps: a validation, a checkpoint, the best model kept, and the end of a run that is stopped.

Owns when each is due and in which order; here the host may wait for the device. Must not know how a step is made.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, NoReturn

import torch
from torch import nn

from unet_dist.metrics.confusion import Scores
from unet_dist.metrics.registry import compute_metrics
from unet_dist.metrics.table import scores_table
from unet_dist.models.contract import as_module
from unet_dist.processes.stopping import NO_WISH, STOP, STOP_AND_REQUEUE, StopWish
from unet_dist.runs.checkpoint import GIVEN, Checkpoint, CheckpointWriter, optimizer_tensors, write_errors_named
from unet_dist.storage.files import write_whole_folder
from unet_dist.terminal import ProgressBar
from unet_dist.training.averaging import WeightAverage
from unet_dist.training.finite import DivergedError, FiniteWatch, all_finite
from unet_dist.training.pace import Clock
from unet_dist.training.parts import Parts, Progress
from unet_dist.training.record import Record
from unet_dist.wording import duration


class Boundary:
    """The boundary of the steps of a run.

    Args:
        parts: what the run is made of.
        progress: where it stands.
        average: of its weights, which validations and models have.
        finite: the flag of steps that are not finite.
        record: where scores are written.
        clock: of its loop.
    """

    def __init__(
        self,
        parts: Parts,
        progress: Progress,
        *,
        average: WeightAverage,
        finite: FiniteWatch,
        record: Record,
        clock: Clock,
    ) -> None:
        self._parts = parts
        self._progress = progress
        self._average = average
        self._finite = finite
        self._record = record
        self._clock = clock
        self.writer = CheckpointWriter(parts.folder / "checkpoints", parts.config.run.keep_checkpoints)
        self._saved: tuple[int, int] | None = None  # step and evaluated_step of the last checkpoint
        self._iou_before: list[float | None] | None = None  # of the last validation, to show the change

    # ---------------------------------------------------------------------------------------------- due at a boundary

    @property
    def is_evaluation_due(self) -> bool:
        """Whether a validation follows this step."""
        step, schedule = self._progress.step, self._parts.config.schedule
        is_at_eval = step > 0 and (step % schedule.eval_steps == 0 or step == schedule.total_steps)
        return is_at_eval and self._progress.evaluated_step < step

    @property
    def is_checkpoint_due(self) -> bool:
        """Whether a checkpoint follows this step."""
        step, config = self._progress.step, self._parts.config
        interval = config.run.checkpoint_steps or config.schedule.eval_steps
        return step % interval == 0 or step == config.schedule.total_steps

    @property
    def is_early_stop(self) -> bool:
        """Whether the last validations were no better for long enough."""
        limit = self._parts.config.schedule.early_stopping_evals
        return limit is not None and self._progress.evals_without_better >= limit

    # ---------------------------------------------------------------------------------------------- a validation

    def evaluate(self, wish: StopWish, bar: ProgressBar) -> int:
        """Validate; keep the model if it is the best. Returns the wish that ended it half-way, if one did."""
        parts, progress = self._parts, self._progress
        self._record.flush()
        bar.catch_up()
        self.check_finite()
        started = time.perf_counter()
        outcome = NO_WISH

        def is_stopped() -> bool:
            nonlocal outcome
            asked = wish.now()
            flags = torch.tensor([float(asked == STOP), float(asked == STOP_AND_REQUEUE)], device=parts.processes.host)
            stops, requeues = parts.processes.sum_(flags).tolist()
            outcome = STOP_AND_REQUEUE if requeues else STOP if stops else NO_WISH
            return outcome != NO_WISH

        parts.model.eval()
        with self._average.lent():
            scores = parts.evaluate(is_stopped)
        parts.model.train()
        self._clock.skip(time.perf_counter() - started)
        if scores is None:
            return outcome
        scores = replace(scores, others=compute_metrics(parts.metrics, scores.confusion))
        is_best = self._keep_best(scores)
        for callback in parts.callbacks:
            callback.on_validation(progress.step, scores)
        seconds = time.perf_counter() - started
        self._record.write(self._scored(scores, seconds))
        title = f"validation at step {progress.step}"
        is_short = parts.teller.is_low(len(scores.iou) + 8)
        parts.teller.table(
            scores_table(
                title,
                scores,
                parts.class_names,
                parts.ignore_index,
                before=self._iou_before,
                is_short=is_short,
                rest=str(parts.folder / "metrics.jsonl"),
            )
        )
        self._iou_before = scores.iou
        best = (
            "the best so far, kept in best/"
            if is_best
            else f"best {progress.best_present:.4f} at step {progress.best_step}"
        )
        took = duration(time.perf_counter() - started)
        bar.tell(f"validation mean IoU of labelled classes {scores.miou_present:.4f} ({best}), {took}")
        return NO_WISH

    def _keep_best(self, scores: Scores) -> bool:
        """Count a validation, and write the model where none before it was as good."""
        progress = self._progress
        progress.evaluated_step = progress.step
        if progress.best_step > 0 and not scores.miou_present > progress.best_present:
            progress.evals_without_better += 1
            return False
        progress.best_miou, progress.best_present = scores.miou, scores.miou_present
        progress.best_step, progress.evals_without_better = progress.step, 0
        if self._parts.processes.is_main:
            self.write_model("best")
        return True

    def _scored(self, scores: Scores, seconds: float) -> dict[str, Any]:
        """The record of a validation."""
        parts = self._parts
        names = enumerate(parts.class_names)
        return {
            "step": self._progress.step,
            "split": "validation",
            "miou": scores.miou,
            "miou_present": scores.miou_present,
            "pixel_accuracy": scores.pixel_accuracy,
            "iou": {name: scores.iou[i] for i, name in names if i != parts.ignore_index},
            "seconds": seconds,
            **({"metrics": scores.others} if scores.others else {}),
        }

    def write_model(self, name: str) -> None:
        """Write the model folder best/ or last/."""
        path = self._parts.folder / name
        with write_errors_named(path), self._average.lent(), self._landed():
            write_whole_folder(path, self._parts.model.save_pretrained)

    @contextmanager
    def _landed(self) -> Iterator[None]:
        """Within it a network on a GPU gives its weights as they are on the host, brought there by one copy and not one by one."""
        if self._parts.processes.device.type != "cuda":
            yield
            return

        def land(_module: nn.Module, state: dict[str, Any], prefix: str, _metadata: object) -> None:
            if not prefix:
                state.update(self.writer.on_host(state))

        hook = as_module(self._parts.model).register_state_dict_post_hook(land)
        try:
            yield
        finally:
            hook.remove()

    # ---------------------------------------------------------------------------------------------- a checkpoint

    def save(self) -> None:
        """Write a checkpoint of this step, behind the training, unless it has been written."""
        progress, scaler = self._progress, self._parts.processes.accelerator.scaler
        state = progress.step, progress.evaluated_step
        if progress.step == 0 or state == self._saved:
            return
        self._saved = state
        self._record.flush()  # a resume keeps the records up to its checkpoint
        self.check_finite()
        progress.loss_sums = self._record.sums()
        progress.seconds += self._clock.take()
        if scaler is not None:
            progress.overflows += self._finite.take_overflows()
            progress.scaler = scaler.state_dict()
        if self._parts.processes.is_main:
            self.writer.write(self.checkpoint())

    def checkpoint(self) -> Checkpoint:
        """The state at this step boundary."""
        parts = self._parts
        return Checkpoint(
            step=self._progress.step,
            model=dict(parts.model.state_dict()),
            optimizer=optimizer_tensors(as_module(parts.model), parts.optimizer),
            config={**parts.config.flat(), **({GIVEN: dict(parts.given)} if parts.given else {})},
            progress=asdict(self._progress),
            data=parts.data,
        )

    def leave(self, outcome: int, wish: StopWish) -> int:
        """Save at this step boundary and say why the run ends."""
        self.save()
        self.writer.wait()
        wish.settle(outcome, self._progress.step)
        self._parts.teller.say(
            f"Stopped as asked at step {self._progress.step} of {self._parts.config.schedule.total_steps}; all is saved. "
            "Run the same command to resume."
        )
        return outcome

    # ---------------------------------------------------------------------------------------------- not finite

    def check_finite(self) -> None:
        """Wait for the device, and see that every step so far was finite.

        Raises:
            DivergedError: one was not.
        """
        bad_step = self._finite.check()
        if bad_step:
            self.diverged(bad_step)

    def diverged(self, bad_step: int) -> NoReturn:
        """Name the step and its samples. Weights and moments are still those before it: every later update was masked.

        Raises:
            DivergedError: always.
        """
        parts, progress = self._parts, self._progress
        where = self._finite.culprit(bad_step, parts.processes)
        progress.step, progress.logged_step, progress.loss_sums = bad_step - 1, None, []
        is_saved = progress.step > 0 and all_finite(as_module(parts.model))  # running statistics may be damaged
        if is_saved and parts.processes.is_main:
            self.writer.write(self.checkpoint())
            self.writer.wait()
        parts.processes.barrier()  # the first process to leave ends the others
        state = "The state before it is saved" if is_saved else "The checkpoints before it stand as they are"
        raise DivergedError(
            f"Step {bad_step} is not finite: {where}. {state}. Lower --learning_rate, set --max_grad_norm, "
            "or look at those samples; then resume with --allow_config_change true."
        )
