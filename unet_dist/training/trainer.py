"""The training loop: step() and fit(), given finished parts.

Owns the order of things in a step and at its boundary. The optimizer step is a function of (config, seed, step) alone: the
processes, the micro-batches and an interruption only cut the work. Nothing in step() waits for the device.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unet_dist.config.batch_cut import BatchCut
from unet_dist.config.sections import Config
from unet_dist.data.batches.ahead import read_ahead
from unet_dist.data.batches.shares import RunShares, StepShare
from unet_dist.errors import UnetDistError
from unet_dist.losses.contract import Loss
from unet_dist.machine.compiling import uncompiled
from unet_dist.machine.memory import is_out_of_memory
from unet_dist.metrics.confusion import Scores
from unet_dist.metrics.table import scores_table
from unet_dist.models.contract import TrainableNetwork, as_module
from unet_dist.processes.group import Processes
from unet_dist.processes.stopping import NO_WISH, STOP, STOP_AND_REQUEUE, StopWish
from unet_dist.runs.checkpoint import Checkpoint, CheckpointWriter, optimizer_tensors, write_errors_named
from unet_dist.runs.metrics_log import MetricsLog
from unet_dist.storage.files import write_whole_folder
from unet_dist.terminal import ProgressBar, Teller, duration
from unet_dist.tiling.gradient import WindowGradient
from unet_dist.training.averaging import WeightAverage
from unet_dist.training.optimizer import set_step
from unet_dist.training.pace import Clock

# fp16: that many steps skipped in a row halve the largest loss scale (65536) below what any finite gradient needs.
MAX_OVERFLOWS_IN_A_ROW = 40


class DivergedError(UnetDistError):
    """The loss or its gradient is no longer finite."""


class StepTooLargeError(UnetDistError):
    """Memory ran out on the way."""


class Evaluate(Protocol):
    """Scores of the model on the validation split, or None when it was stopped half-way."""

    def __call__(self, model: TrainableNetwork, is_stopped: Callable[[], bool]) -> Scores | None: ...


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


class Trainer:
    """Runs the steps of a run from where its progress stands.

    Args:
        parts: what the run is made of.
        progress: where it stands.
    """

    def __init__(self, parts: Parts, progress: Progress) -> None:
        self.parts = parts
        self.progress = progress
        self._device = parts.processes.device
        self._gradient = WindowGradient(
            parts.model, parts.wrapped, parts.loss, trim=parts.trim, seed=parts.config.schedule.seed
        )
        self._average = WeightAverage(as_module(parts.model), parts.optimizer, parts.config.schedule.ema_decay)
        self._metrics = MetricsLog(parts.folder / "metrics.jsonl")
        self._writer = CheckpointWriter(parts.folder / "checkpoints", parts.config.run.keep_checkpoints)
        self._scaler = parts.processes.accelerator.scaler
        if self._scaler is not None and progress.scaler is not None:
            self._scaler.load_state_dict(progress.scaler)
        self._bad_step = torch.zeros((), dtype=torch.float64, device=self._device)  # 0: none; later steps are masked
        self._overflows_in_a_row = torch.zeros((), device=self._device)
        self._overflows = torch.zeros((), device=self._device)
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self._device)
        self._grad_norm = torch.zeros((), device=self._device)
        self._recent: deque[tuple[int, list[str], Tensor]] = deque(maxlen=3)
        self._flags: deque[Callable[[], list[float]]] = deque()
        self._clock = Clock()
        self._saved: tuple[int, int] | None = None  # step and evaluated_step of the last checkpoint

    # ---------------------------------------------------------------------------------------------- one step

    def step(self, share: StepShare, divisor: Tensor) -> Tensor:
        """Make one optimizer step of this rank's share of a global batch.

        Args:
            share: windows and labels, micro-batch after micro-batch.
            divisor: float64 on the device: valid pixels (or summed weights) of the whole global batch, one number a term.

        Returns:
            What this share adds to the loss of the global batch: a scalar on the device.
        """
        parts, processes = self.parts, self.parts.processes
        step = self.progress.step + 1
        # Gradients are averaged over the processes, so each one's share counts world_size times. The division comes before
        # the backward pass: summed gradients overflow fp16.
        scale = processes.world_size / torch.where(divisor > 0, divisor, 1.0)
        set_step(parts.optimizer, parts.config.schedule, step, self.progress.schedule_start)
        totals: Any = processes.sum_
        if parts.loss.has_statistics and len(share.batches) > 1:
            totals = processes.sum_(self._gradient.count(self._clock.timed(share.batches), self._device))
        sums: list[Tensor] = []
        ids: list[str] = []
        for number, batch in enumerate(self._clock.timed(share.batches), start=1):
            ids += batch.ids
            tensors = [t.to(self._device, non_blocking=True) for t in (batch.windows, batch.labels, batch.keys)]
            borders = None if batch.borders is None else batch.borders.to(self._device, non_blocking=True)
            with processes.accumulate(parts.wrapped, is_last=number == len(share.batches)):
                backward = processes.accelerator.backward
                sums.append(
                    self._gradient.add(*tensors, scale=scale, borders=borders, totals=totals, backward=backward)
                )
        losses = torch.cat(sums)  # (n,) or (n, T), a row a window
        self._recent.append((step, ids, losses.view(len(losses), -1).sum(1)))
        loss = (losses.sum(0) * scale).sum() / processes.world_size
        self._loss_sum += loss
        self._update(step)
        self.progress.step = step
        return loss

    def _update(self, step: int) -> None:
        """Clip and apply the gradient; where it is not finite, leave weights and moments as they are."""
        optimizer, limit = self.parts.optimizer, self.parts.config.schedule.max_grad_norm
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)
        parameters = [p for p in self.parts.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        is_bad = is_masked = ~torch.isfinite(norm)
        if self._scaler is not None:
            self._scaler.step(optimizer)
            self._scaler.update()
            self._overflows += is_bad
            self._overflows_in_a_row = (self._overflows_in_a_row + 1) * is_bad
            is_bad = self._overflows_in_a_row >= MAX_OVERFLOWS_IN_A_ROW
        self._bad_step = torch.where((self._bad_step == 0) & is_bad, float(step), self._bad_step)
        if self._scaler is None:
            # The fused AdamW's own switch, which the loss scaler uses too: found_inf = 1 makes the update a no-op.
            optimizer.grad_scale = None  # type: ignore[attr-defined]
            optimizer.found_inf = (self._bad_step > 0).float()  # type: ignore[attr-defined]
            optimizer.step()
        self._average.update(step, is_masked | (self._bad_step > 0))
        optimizer.zero_grad(set_to_none=self.parts.processes.world_size == 1)
        self._grad_norm = norm

    def settle_buckets(self) -> None:
        """Make a backward pass whose gradient is zero and thrown away.

        After its first one, DDP lays its buckets anew, which changes the order of summation (at 3 processes 32,623 of 485,853
        values): so the first step of a resumed run would differ from the same step of an uninterrupted one.
        """
        model = self.parts.model
        was_training = model.training
        model.eval()  # leave the running statistics of batch normalisation alone
        blank = self.parts.shares.blank()
        windows, keys = blank.windows.to(self._device), blank.keys.to(self._device)
        with uncompiled():
            for _ in range(2):
                (self._gradient.logits(windows, keys).sum() * 0).backward()
        # The gradients stay views of the buckets: into a bucket that holds none yet DDP multiplies by 1 / 3 where it else divides
        # by 3, which rounds otherwise.
        self.parts.optimizer.zero_grad(set_to_none=False)
        model.train(was_training)

    # ---------------------------------------------------------------------------------------------- the run

    def fit(self, wish: StopWish) -> int:
        """Run to the last step, or until the processes agree to stop.

        Returns:
            NO_WISH when the run is finished, else the wish it was stopped by.

        Raises:
            DivergedError: a step was not finite; the last good state is saved.
            CheckpointError: a checkpoint or a model could not be written.
            StepTooLargeError: memory ran out.
        """
        try:
            outcome = self._fit(wish)
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise self._too_large(error) from error
            raise
        finally:
            self._writer.close()
        if outcome == NO_WISH and self.parts.processes.is_main:
            self._write_model("last")
        return outcome

    def _fit(self, wish: StopWish) -> int:
        parts, progress, config = self.parts, self.progress, self.parts.config
        total = config.schedule.total_steps
        if parts.processes.world_size > 1:
            self.settle_buckets()
        with parts.teller.progress("step", total, progress.step) as bar:
            if self._is_evaluation_due():  # stopped in the validation of this step
                outcome = self._evaluate(wish, bar)
                if outcome != NO_WISH:
                    return self._leave(outcome, wish)
            steps = range(progress.step + 1, total + 1)
            pin = self._device.type == "cuda"
            shares = read_ahead(
                parts.shares,
                steps,
                num_workers=config.data.num_workers,
                pin_memory=pin,
                passes=2 if parts.loss.has_statistics else 1,
            )
            parts.model.train()
            with closing(shares):
                for share in self._clock.waits(shares):
                    if self._is_early_stop():
                        parts.teller.say(
                            f"No better mean IoU in {progress.evals_without_better} validations: the run ends here."
                        )
                        break
                    divisor, outcome = self._agree(share, wish)
                    if outcome != NO_WISH:
                        return self._leave(outcome, wish)
                    self.step(share, divisor)
                    bar.advance(detail=self._clock.detail)
                    if progress.step % config.run.log_steps == 0 or progress.step == total:
                        self._log(bar)
                    if self._is_evaluation_due():
                        outcome = self._evaluate(wish, bar)
                        if outcome != NO_WISH:
                            return self._leave(outcome, wish)
                    if (
                        progress.step % (config.run.checkpoint_steps or config.schedule.eval_steps) == 0
                        or progress.step == total
                    ):
                        self._save()
        self._save()
        return NO_WISH

    def _agree(self, share: StepShare, wish: StopWish) -> tuple[Tensor, int]:
        """Sum what the processes must know of each other before a step: the divisor, and who wants to stop.

        The sum is read at once on a CPU; on a GPU one step later, so that the host does not wait for the device.
        """
        asked = wish.now()
        if self._is_over_time():
            asked = max(asked, STOP_AND_REQUEUE)
        divisor = share.divisor(self.parts.loss)
        asks = torch.tensor([asked == STOP, asked == STOP_AND_REQUEUE], dtype=divisor.dtype)
        vector = torch.cat([asks, divisor.flatten()])
        if self._device.type == "cuda":
            vector = vector.pin_memory()
        vector = vector.to(self._device, non_blocking=True)
        self.parts.processes.sum_(vector)
        divisor = vector[2:].view(divisor.shape)
        self._flags.append(_read_later(torch.cat([vector[:2], self._bad_step[None]])))
        if self._device.type == "cuda" and len(self._flags) < 2:
            return divisor, NO_WISH
        stops, requeues, bad_step = self._flags.popleft()()
        if bad_step:
            self._diverged(int(bad_step))
        return divisor, STOP_AND_REQUEUE if requeues else STOP if stops else NO_WISH

    def _is_over_time(self) -> bool:
        limit = self.parts.config.schedule.time_limit_min
        return limit is not None and self._clock.total > limit * 60

    def _is_evaluation_due(self) -> bool:
        step, schedule = self.progress.step, self.parts.config.schedule
        is_at_eval = step > 0 and (step % schedule.eval_steps == 0 or step == schedule.total_steps)
        return is_at_eval and self.progress.evaluated_step < step

    def _is_early_stop(self) -> bool:
        limit = self.parts.config.schedule.early_stopping_evals
        return limit is not None and self.progress.evals_without_better >= limit

    # ---------------------------------------------------------------------------------------------- at a boundary

    def _log(self, bar: ProgressBar) -> None:
        """Record the mean loss since the last record; here the host waits for the device."""
        progress, processes = self.progress, self.parts.processes
        summed = processes.sum_(self._loss_sum.clone())
        steps, seconds, waited = self._clock.lap(progress.step)
        record = {
            "step": progress.step,
            "split": "train",
            "loss": summed.item() / max(1, steps),
            "learning_rate": self.parts.optimizer.param_groups[0]["lr"],
            "grad_norm": self._grad_norm.item(),
            "images_per_s": steps * self.parts.config.schedule.batch_size / seconds,
            "data_wait": waited / seconds,
            "memory_bytes": _memory_bytes(self._device),
        }
        self._loss_sum.zero_()
        self._record(record)
        self._clock.detail = (
            f"loss {record['loss']:.4f}  lr {record['learning_rate']:.2e}  {record['images_per_s']:.1f} images/s  "
            f"data wait {record['data_wait']:.0%}  {record['memory_bytes'] / 2**30:.1f} GiB"
        )
        left = (self.parts.config.schedule.total_steps - progress.step) * seconds / max(1, steps)
        bar.tell(f"{self._clock.detail}  {duration(left)} left")

    def _record(self, record: dict[str, Any]) -> None:
        if self.parts.processes.is_main:
            self._metrics.append(record)
        numbers = {f"{record['split']}/{k}": v for k, v in record.items() if isinstance(v, float)}
        self.parts.processes.accelerator.log(numbers, step=record["step"])

    def _evaluate(self, wish: StopWish, bar: ProgressBar) -> int:
        """Validate; keep the model if it is the best. Returns the wish that ended it half-way, if one did."""
        parts, progress = self.parts, self.progress
        self._check_finite()
        started = time.perf_counter()
        outcome = NO_WISH

        def is_stopped() -> bool:
            nonlocal outcome
            asked = torch.tensor(
                [float(wish.now() == STOP), float(wish.now() == STOP_AND_REQUEUE)], device=self._device
            )
            stops, requeues = parts.processes.sum_(asked).tolist()
            outcome = STOP_AND_REQUEUE if requeues else STOP if stops else NO_WISH
            return outcome != NO_WISH

        parts.model.eval()
        with self._average.lent():
            scores = parts.evaluate(parts.model, is_stopped)
        parts.model.train()
        self._clock.skip(time.perf_counter() - started)
        if scores is None:
            return outcome
        progress.evaluated_step = progress.step
        is_best = scores.miou > progress.best_miou or progress.best_step == 0
        if is_best:
            progress.best_miou, progress.best_step, progress.evals_without_better = scores.miou, progress.step, 0
            if parts.processes.is_main:
                self._write_model("best")
        else:
            progress.evals_without_better += 1
        record = {
            "step": progress.step,
            "split": "validation",
            "miou": scores.miou,
            "pixel_accuracy": scores.pixel_accuracy,
        }
        names = enumerate(parts.class_names)
        iou = {name: scores.iou[i] for i, name in names if i != parts.ignore_index}
        self._record({**record, "iou": iou, "seconds": time.perf_counter() - started})
        parts.teller.table(
            scores_table(f"validation at step {progress.step}", scores, parts.class_names, parts.ignore_index)
        )
        best = (
            "the best so far, kept in best/"
            if is_best
            else f"best {progress.best_miou:.4f} at step {progress.best_step}"
        )
        bar.tell(f"validation mean IoU {scores.miou:.4f} ({best}), {duration(time.perf_counter() - started)}")
        return NO_WISH

    def _write_model(self, name: str) -> None:
        path = self.parts.folder / name
        with write_errors_named(path), self._average.lent():
            write_whole_folder(path, self.parts.model.save_pretrained)

    def _save(self) -> None:
        """Write a checkpoint of this step, behind the training, unless it has been written."""
        state = self.progress.step, self.progress.evaluated_step
        if self.progress.step == 0 or state == self._saved:
            return
        self._saved = state
        self._check_finite()
        self.progress.seconds += self._clock.take()
        if self._scaler is not None:
            self.progress.overflows += int(self._overflows.item())
            self._overflows.zero_()
            self.progress.scaler = self._scaler.state_dict()
        if self.parts.processes.is_main:
            self._writer.write(self.checkpoint())

    def checkpoint(self) -> Checkpoint:
        """The state at this step boundary."""
        parts = self.parts
        return Checkpoint(
            step=self.progress.step,
            model=dict(parts.model.state_dict()),
            optimizer=optimizer_tensors(as_module(parts.model), parts.optimizer),
            config=parts.config.flat(),
            progress=asdict(self.progress),
            data=parts.data,
        )

    def _leave(self, outcome: int, wish: StopWish) -> int:
        """Save at this step boundary and say why the run ends."""
        self._save()
        self._writer.wait()
        wish.settle(outcome, self.progress.step)
        self.parts.teller.say(
            f"Stopped as asked at step {self.progress.step} of {self.parts.config.schedule.total_steps}; all is saved. "
            "The same command goes on from here."
        )
        return outcome

    def _too_large(self, error: BaseException) -> StepTooLargeError:
        said = (str(error).splitlines() or ["no more to be had"])[0].partition(" GPU ")[0].rstrip(".")
        return StepTooLargeError(
            f"Memory ran out after step {self.progress.step}, on {self._device}: {said}. Set a smaller --micro_batch_size or "
            "--tile_size, or --checkpoint_activations true: the run goes on with them from its last checkpoint. What fits is "
            "told by unet-dist plan."
        )

    def _check_finite(self) -> None:
        bad_step = int(self._bad_step.item())
        if bad_step:
            self._diverged(bad_step)

    def _diverged(self, bad_step: int) -> None:
        """Name the step and its samples. Weights and moments are still those before it: every later update was masked.

        Raises:
            DivergedError: always.
        """
        mine = {
            f"{name} ({value})"  # once, however many of its tiles are not finite
            for step, ids, losses in self._recent
            if step == bad_step
            for name, value in zip(ids, losses.tolist(), strict=True)
            if not abs(value) < float("inf")
        }
        found = sorted(set().union(*self.parts.processes.gather(mine)))
        samples = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
        where = f"the loss of {samples}" if found else "the gradient, though every sample's loss is finite"
        self.progress.step = bad_step - 1
        is_saved = self.progress.step > 0 and _all_finite(
            as_module(self.parts.model)
        )  # running statistics may be damaged
        if is_saved and self.parts.processes.is_main:
            self._writer.write(self.checkpoint())
            self._writer.wait()
        self.parts.processes.barrier()  # the first process to leave ends the others
        state = "The state before it is saved" if is_saved else "The checkpoints before it stand as they are"
        raise DivergedError(
            f"Step {bad_step} is not finite: {where}. {state}. Lower --learning_rate, set --max_grad_norm, "
            "or look at those samples; go on with --allow_config_change true."
        )


def _read_later(tensor: Tensor) -> Callable[[], list[float]]:
    """Start a copy to the host; the returned function waits for it and gives the values."""
    if tensor.device.type != "cuda":
        return tensor.tolist
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()
    event.record()

    def read() -> list[float]:
        event.synchronize()
        return list(host.tolist())

    return read


def _all_finite(model: nn.Module) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in model.state_dict().values() if t.is_floating_point())


def _memory_bytes(device: torch.device) -> float:
    """Peak memory on a GPU, else the resident memory of the process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
