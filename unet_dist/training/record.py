"""The record of a run: the mean loss since the last record, its pace, and where both are written.

Owns metrics.jsonl and the trackers of a run under way. Must not know how a loss or a score is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unet_dist.runs.metrics_log import MetricsLog
from unet_dist.terminal import ProgressBar
from unet_dist.training.pace import Clock, Forecast
from unet_dist.training.parts import Parts, Progress
from unet_dist.wording import duration, size

WORTH_TELLING_S = 60.0
"""Nobody plans a day by less."""
LONG_S = 3600.0
"""Who sees that it takes longer may prefer other settings."""


class Record:
    """Writes down what a run does.

    Args:
        parts: what the run is made of.
        progress: where it stands.
        clock: of its loop.
    """

    def __init__(self, parts: Parts, progress: Progress, clock: Clock) -> None:
        self._parts = parts
        self._progress = progress
        self._clock = clock
        self._metrics = MetricsLog(parts.folder / "metrics.jsonl")
        self._forecast = Forecast()
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=parts.processes.device)
        self._noted: tuple[int, Callable[[], None]] | None = None
        if progress.logged_step is None:
            progress.logged_step = progress.step
        rank, sums = parts.processes.rank, progress.loss_sums
        if len(sums) == parts.processes.world_size:
            self._loss_sum += sums[rank]
        elif rank == 0:  # of another number of processes: only the sum over them counts
            self._loss_sum += sum(sums)

    def add(self, loss: Tensor) -> None:
        """Take the loss of a step in, () on the device."""
        self._loss_sum += loss

    def sums(self) -> list[float]:
        """The losses since the last record, summed up by each rank; waits for the device. All processes ask."""
        processes = self._parts.processes
        sums = torch.zeros(processes.world_size, dtype=torch.float64, device=processes.device)
        sums[processes.rank] = self._loss_sum
        return [float(one) for one in processes.sum_(sums).tolist()]

    def steps(self, grad_norm: Tensor, bar: ProgressBar) -> None:
        """Note the mean loss since the last record. On a GPU it is written by the next `flush`, so that nobody waits here."""
        parts, progress, processes = self._parts, self._progress, self._parts.processes
        summed = processes.sum_(self._loss_sum.clone())
        numbers = read_later(torch.stack([summed, grad_norm.double()]))
        self._loss_sum.zero_()
        assert progress.logged_step is not None
        step, summed_steps = progress.step, progress.step - progress.logged_step
        progress.logged_step = step
        learning_rate = parts.optimizer.param_groups[0]["lr"]
        steps, seconds, waited = self._clock.lap(step)

        def write() -> None:
            loss, norm = numbers()
            record = {
                "step": step,
                "split": "train",
                "loss": loss / max(1, summed_steps),
                "learning_rate": learning_rate,
                "grad_norm": norm,
                "images_per_s": steps * parts.config.schedule.batch_size / seconds,
                "data_wait": waited / seconds,
                "memory_bytes": _memory_bytes(processes.device),
            }
            self.write(record)
            self._clock.detail = (
                f"loss {record['loss']:.4f}  lr {record['learning_rate']:.2e}  {record['images_per_s']:.1f} images/s  "
                f"data wait {record['data_wait']:.0%}  {size(record['memory_bytes'])}"
            )
            left = (parts.config.schedule.total_steps - step) * seconds / max(1, steps)
            bar.tell(f"{self._clock.detail}  {duration(left)} left", is_routine=True)

        self.flush()
        self._noted = step, write
        if processes.device.type != "cuda":
            self.flush()

    def flush(self, before: int | None = None) -> None:
        """Write the record that was noted, if one was; waits for the device to have come that far.

        Args:
            before: leave a record of this step or later, as the device may be at it.
        """
        if self._noted is not None and (before is None or self._noted[0] < before):
            (_, write), self._noted = self._noted, None
            write()

    def pace(self, seconds: float) -> None:
        """Say once how long the rest will take, from the first steps of a start: where it is minutes, one wants to know.

        A step on a GPU is over later than its call, and the first record is near: nothing is printed there.

        Args:
            seconds: wall time of the last step, its waiting for data included.
        """
        parts, progress = self._parts, self._progress
        per_step = self._forecast.after(seconds)
        if parts.processes.device.type != "cpu" or per_step is None:
            return
        left = parts.config.schedule.total_steps - progress.step
        if per_step * left >= WORTH_TELLING_S:
            shorter = " unet-dist configure DATA --time 1h chooses settings for a time." * (per_step * left >= LONG_S)
            parts.teller.say(
                f"A step takes about {per_step:.1f} s, so the other {left:,} need about {duration(per_step * left)}, and the "
                f"validations more.{shorter}"
            )

    def write(self, record: dict[str, Any]) -> None:
        """Write one object to metrics.jsonl, and its numbers to the trackers."""
        if self._parts.processes.is_main:
            self._metrics.append(record)
        named = {**record, **record.get("metrics", {})}
        numbers = {f"{record['split']}/{name}": value for name, value in named.items() if isinstance(value, float)}
        self._parts.processes.accelerator.log(numbers, step=record["step"])


def read_later(tensor: Tensor) -> Callable[[], list[float]]:
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


def _memory_bytes(device: torch.device) -> float:
    """Peak memory on a GPU, else the resident memory of the process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
