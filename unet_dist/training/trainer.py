"""The training loop: step() and fit(), given finished parts.

Owns the order of things in a step and around it. The optimizer step is a function of (config, seed, step) alone: the
processes, the micro-batches and an interruption only cut the work. Nothing in step() waits for the device.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from unet_dist.data.batches.ahead import read_ahead
from unet_dist.data.batches.shares import StepShare
from unet_dist.errors import ConfigError, UnetDistError
from unet_dist.machine.arithmetic import find_undeterministic
from unet_dist.machine.compiling import is_compiled, uncompiled
from unet_dist.machine.memory import is_out_of_memory
from unet_dist.models.contract import as_module, coarse_grids_of
from unet_dist.models.step_weights import StepWeights
from unet_dist.processes.stopping import NO_WISH, STOP, STOP_AND_REQUEUE, StopWish
from unet_dist.runs.checkpoint import Checkpoint
from unet_dist.tiling.gradient import WindowGradient, added_up
from unet_dist.training.averaging import WeightAverage
from unet_dist.training.boundary import Boundary
from unet_dist.training.finite import FiniteWatch
from unet_dist.training.optimizer import set_step
from unet_dist.training.pace import Clock
from unet_dist.training.parts import Parts, Progress
from unet_dist.training.record import Record, read_later


class StepTooLargeError(UnetDistError):
    """Memory ran out on the way."""


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
        self._weights = StepWeights(
            # A compiler makes few operations of many by itself, and of each window's.
            torch.nn.Module() if is_compiled(parts.wrapped) else as_module(parts.model),
            parts.processes.mixed_dtype,
            is_overlapped=parts.processes.world_size > 1,
        )
        self._average = WeightAverage(as_module(parts.model), parts.optimizer, parts.config.schedule.ema_decay)
        self._scaler = parts.processes.accelerator.scaler
        if self._scaler is not None and progress.scaler is not None:
            self._scaler.load_state_dict(progress.scaler)
        self._parameters = [p for p in as_module(parts.model).parameters() if p.requires_grad]
        self._grad_norm = torch.zeros((), device=self._device)
        self._flags: deque[Callable[[], list[float]]] = deque()
        self._clock = Clock()
        self._finite = FiniteWatch(self._device)
        self._record = Record(parts, progress, self._clock)
        self.boundary = Boundary(
            parts, progress, average=self._average, finite=self._finite, record=self._record, clock=self._clock
        )

    def checkpoint(self) -> Checkpoint:
        """The state at this step boundary."""
        return self.boundary.checkpoint()

    def flush(self) -> None:
        """Write the records of the steps so far, which waits for the device."""
        self._record.flush()

    # ---------------------------------------------------------------------------------------------- one step

    def step(self, share: StepShare, divisor: Tensor) -> Tensor:
        """Make one optimizer step of this rank's share of a global batch.

        Args:
            share: windows and labels, micro-batch after micro-batch.
            divisor: float64 on the device: valid pixels (or summed weights) of the whole global batch, one number per term.

        Returns:
            What this share adds to the loss of the global batch: a scalar on the device.
        """
        parts, processes = self.parts, self.parts.processes
        step = self.progress.step + 1
        # Gradients are averaged over the processes, so each one's share counts world_size times. The division comes before
        # the backward pass: summed gradients overflow fp16.
        scale = processes.world_size / torch.where(divisor > 0, divisor, 1.0)
        set_step(parts.optimizer, parts.config.schedule, step, self.progress.schedule_start)
        push = scale
        if self._scaler is not None:  # no switch of the optimizer's is ours then: a gradient that overflows is skipped
            push = torch.where(self._finite.bad_step > 0, torch.inf, scale)
        totals: Any = processes.sum_
        if parts.loss.has_statistics and len(share.batches) > 1:
            with self._weights.lent(is_last=False):
                totals = processes.sum_(self._gradient.count(self._clock.timed(share.batches), self._device))
        sums: list[Tensor] = []
        ids: list[str] = []
        for number, batch in enumerate(self._clock.timed(share.batches), start=1):
            ids += batch.ids
            there = batch.on(self._device)
            tensors = there.windows, there.labels, there.keys
            is_last = number == len(share.batches)
            with processes.accumulate(parts.wrapped, is_last=is_last), self._weights.lent(is_last=is_last):
                backward = processes.accelerator.backward
                sums.append(
                    self._gradient.add(*tensors, scale=push, borders=there.borders, totals=totals, backward=backward)
                )
        losses = torch.cat(sums)  # (n,) or (n, T), a row per window
        self._finite.note(step, ids, losses)
        loss = (losses.sum(0) * scale).sum() / processes.world_size
        self._record.add(loss)
        self._update(step)
        self.progress.step = step
        return loss

    def _update(self, step: int) -> None:
        """Clip and apply the gradient; where it is not finite, leave weights and moments as they are."""
        optimizer, limit = self.parts.optimizer, self.parts.config.schedule.max_grad_norm
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)
        parameters = [p for p in self._parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        if self._scaler is not None:
            self._scaler.step(optimizer)
            self._scaler.update()
        is_masked = self._finite.judge(step, norm, is_scaled=self._scaler is not None)
        if self._scaler is None:
            # The fused AdamW's own switch, which the loss scaler uses too: found_inf = 1 makes the update a no-op.
            optimizer.grad_scale = None  # type: ignore[attr-defined]
            optimizer.found_inf = is_masked.float()  # type: ignore[attr-defined]
            optimizer.step()
        self._average.update(step, is_masked)
        if self.parts.processes.world_size > 1:
            optimizer.zero_grad(set_to_none=False)
        else:
            for parameter in parameters:
                parameter.grad = None
        self._grad_norm = norm

    def settle_buckets(self) -> None:
        """Make a backward pass whose gradient is zero and thrown away.

        After its first one, DDP lays its buckets anew, which changes the order of summation (at 3 processes 32,623 of 485,853
        values): so the first step of a resumed run would differ from the same step of an uninterrupted one.
        """
        model = self.parts.model
        was_training = model.training
        model.eval()  # leave the running statistics of batch normalisation alone
        if coarse_grids_of(model):  # whose heads take part from the first pass on; the layers inside stay as they are
            model.training = True
        blank = self.parts.shares.blank()
        windows, keys = blank.windows.to(self._device), blank.keys.to(self._device)
        with uncompiled():
            for _ in range(2):
                with self._weights.lent():
                    (added_up(self._gradient.outputs(windows, keys)) * 0).backward()
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
            ConfigError: a layer has no deterministic implementation.
        """
        try:
            outcome = self._fit(wish)
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise self._too_large(error) from error
            if found := find_undeterministic(error, as_module(self.parts.model)):
                raise ConfigError(
                    f"deterministic: got true, but {found} has no deterministic implementation in torch. Set --deterministic "
                    "false: runs then differ by rounding; or choose another network."
                ) from error
            raise
        finally:
            self.boundary.writer.close()
        if outcome == NO_WISH and self.parts.processes.is_main:
            self.boundary.write_model("last")
        for callback in self.parts.callbacks:
            callback.on_end(self.progress)
        return outcome

    def _fit(self, wish: StopWish) -> int:
        parts, progress, config = self.parts, self.progress, self.parts.config
        total = config.schedule.total_steps
        if parts.processes.world_size > 1:
            self.settle_buckets()
        with parts.teller.progress("step", total, progress.step) as bar:
            if self.boundary.is_evaluation_due:  # stopped in the validation of this step
                outcome = self.boundary.evaluate(wish, bar)
                if outcome != NO_WISH:
                    return self.boundary.leave(outcome, wish)
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
                began = time.perf_counter()
                for share in self._clock.waits(shares):
                    if self.boundary.is_early_stop:
                        parts.teller.say(
                            f"No better mean IoU in {progress.evals_without_better} validations: the run ends here."
                        )
                        break
                    divisor, outcome = self._agree(share, wish)
                    if outcome != NO_WISH:
                        return self.boundary.leave(outcome, wish)
                    loss = self.step(share, divisor)
                    for callback in parts.callbacks:
                        callback.on_step(progress.step, loss)
                    bar.advance(detail=self._clock.detail)
                    self._record.pace(time.perf_counter() - began)
                    if progress.step % config.run.log_steps == 0 or progress.step == total:
                        self._record.steps(self._grad_norm, bar)
                    if self.boundary.is_evaluation_due:
                        outcome = self.boundary.evaluate(wish, bar)
                        if outcome != NO_WISH:
                            return self.boundary.leave(outcome, wish)
                    if self.boundary.is_checkpoint_due:
                        self.boundary.save()
                    began = time.perf_counter()
        self.boundary.save()
        return NO_WISH

    def _agree(self, share: StepShare, wish: StopWish) -> tuple[Tensor, int]:
        """Sum what the processes must know of each other before a step: the divisor, and who wants to stop.

        Whether a step was finite is read at once on a CPU; on a GPU one step later, so that the host does not wait for the device.
        """
        asked = wish.now()
        if self._is_over_time():
            asked = max(asked, STOP_AND_REQUEUE)
        divisor = share.divisor(self.parts.loss)
        asks = torch.tensor([asked == STOP, asked == STOP_AND_REQUEUE], dtype=divisor.dtype)
        vector = torch.cat([asks, divisor.flatten()])
        # The hosts agree among themselves: a process that is gone is then an error of Python, where NCCL ends in an abort.
        vector = self.parts.processes.sum_(vector.to(self.parts.processes.host))
        stops, requeues = vector[:2].tolist()
        divisor = vector[2:].view(divisor.shape)
        if self._device.type == "cuda":
            divisor = divisor.pin_memory()
        divisor = divisor.to(self._device, non_blocking=True)
        self._flags.append(read_later(self._finite.bad_step[None]))
        if self._device.type != "cuda" or len(self._flags) > 1:
            (bad_step,) = self._flags.popleft()()
            self._record.flush(before=self.progress.step)
            if bad_step:
                self.boundary.diverged(int(bad_step))
        return divisor, STOP_AND_REQUEUE if requeues else STOP if stops else NO_WISH

    def _is_over_time(self) -> bool:
        limit = self.parts.config.schedule.time_limit_min
        return limit is not None and self._clock.total > limit * 60

    def _too_large(self, error: BaseException) -> StepTooLargeError:
        said = (str(error).splitlines() or ["no more to be had"])[0].partition(" GPU ")[0].rstrip(".")
        return StepTooLargeError(
            f"Memory ran out after step {self.progress.step}, on {self._device}: {said}. Set a smaller --micro_batch_size or "
            "--tile_size, or --checkpoint_activations true. Then run the same command to resume. unet-dist plan shows what fits."
        )
