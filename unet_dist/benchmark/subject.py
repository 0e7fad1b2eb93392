"""One setting, ready to be measured, and a round of measurements of it.

Owns which numbers a round has. Settings are compared by measuring a round of each in turn, so that whatever else happens on the
machine happens to all of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch

from unet_dist.benchmark.baseline import Baseline
from unet_dist.benchmark.ceilings import compute_dtype, measure_ceilings
from unet_dist.benchmark.inference import Prediction
from unet_dist.benchmark.step import BareStep, read_seconds, run_loop
from unet_dist.benchmark.timing import affordable
from unet_dist.models.contract import as_module
from unet_dist.training.parts import Parts

Round = dict[str, float]
"""The measurements of one round, by its name: FLOPS, BYTES, STEP, LOOP, WAIT, READ, PREDICT, PREDICT_BARE."""

FLOPS, BYTES = "matmul_flops_per_s", "copy_bytes_per_s"
STEP, LOOP, WAIT, READ = "step_s", "loop_s", "data_wait", "read_s"
PREDICT, PREDICT_BARE = "predict_s", "predict_bare_s"

# Shares of a setting's time. The data path is fast: a few of its steps say enough.
_TRAINING, _READING, _PREDICTION, _CEILINGS = 0.55, 0.05, 0.3, 0.1


@dataclass(frozen=True)
class Limits:
    """How long to measure.

    Attributes:
        rounds: at most.
        steps: of training in a round, at most.
        seconds: for all rounds of one setting; one repetition of each measurement is made whatever it takes.
    """

    rounds: int
    steps: int
    seconds: float


@dataclass
class Counts:
    """Repetitions, as the limits and the first of each allow."""

    rounds: int = 1
    steps: int = 1
    reads: int = 1
    predictions: int = 1


class Subject(Protocol):
    """A setting to be measured."""

    name: str

    def warm_up(self, limits: Limits) -> Counts:
        """Run everything once, and choose how much a round measures."""

    def round(self, number: int, counts: Counts) -> Round:
        """Measure everything once."""


@dataclass
class RunSubject:
    """A run's own step, loop, data path and prediction.

    Args:
        parts: of an endless run; wrapped for the processes that take part.
        prediction: None where it cannot be measured.
        folder: scratch of this setting.
        peak_bytes: the most memory that the device held in a loop; on a CPU it stays 0.
        steps: of a round.
    """

    name: str
    parts: Parts
    prediction: Prediction | None
    folder: Path
    bare: BareStep = field(init=False)
    peak_bytes: int = 0
    steps: int = 0

    def __post_init__(self) -> None:
        self.bare = BareStep(self.parts)

    def warm_up(self, limits: Limits) -> Counts:
        """Make the first step, reading and prediction, which are not counted, and see what the second ones take."""
        with self.parts.processes.without_the_others(as_module(self.parts.model)):
            return self._warm_up(limits)

    def _warm_up(self, limits: Limits) -> Counts:
        processes = self.parts.processes
        self.bare.seconds(1)
        step_s = self.bare.seconds(1)
        read_s = read_seconds(self.parts, 1)
        predict_s = 0.0
        if self.prediction is not None:
            predict_s = self.prediction.bare_seconds() + self.prediction.seconds()
        # The loop is warmed up by a step of its own each time.
        rounds = affordable(limits.rounds, 3 * step_s, _TRAINING * limits.seconds)
        steps = affordable(limits.steps, 2 * step_s, _TRAINING * limits.seconds / rounds - step_s)
        reads = affordable(10 * limits.steps, read_s, _READING * limits.seconds / rounds)
        reads = max(reads, 4 * self.parts.config.data.num_workers)  # so that what lay ready at the start counts little
        predictions = affordable(rounds, predict_s, _PREDICTION * limits.seconds)
        self._ceiling_s = _CEILINGS * limits.seconds / rounds / 2
        return Counts(**processes.broadcast(asdict(Counts(rounds, steps, reads, predictions))))

    def round(self, number: int, counts: Counts) -> Round:
        """Measure everything once."""
        with self.parts.processes.without_the_others(as_module(self.parts.model)):
            return self._round(number, counts)

    def _round(self, number: int, counts: Counts) -> Round:
        parts, device = self.parts, self.parts.processes.device
        run = parts.config.run
        dtype = compute_dtype(parts.processes.precision, getattr(torch, run.dtype))
        ceilings = measure_ceilings(device, dtype, self._ceiling_s)
        self.steps = counts.steps
        measured = {FLOPS: ceilings.flops_per_s, BYTES: ceilings.bytes_per_s}
        measured[STEP] = self.bare.seconds(counts.steps)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        folder = self.folder / f"loop-{number}-{parts.processes.rank}"
        laps = run_loop(parts, counts.steps, folder)
        shutil.rmtree(folder)
        if device.type == "cuda":
            self.peak_bytes = max(self.peak_bytes, torch.cuda.max_memory_allocated(device))
        if laps:
            measured[LOOP], measured[WAIT] = fmean(lap.seconds for lap in laps), fmean(lap.data_wait for lap in laps)
        measured[READ] = read_seconds(parts, counts.reads)
        if self.prediction is not None and number < counts.predictions:
            measured[PREDICT_BARE] = self.prediction.bare_seconds()
            measured[PREDICT] = self.prediction.seconds()
        return measured


@dataclass
class BaselineSubject:
    """The loop that is usually written, which has no bare step and no prediction."""

    name: str
    baseline: Baseline

    def warm_up(self, limits: Limits) -> Counts:
        """Make a first step."""
        step_s = self.baseline.seconds(1)
        rounds = affordable(limits.rounds, 3 * step_s, _TRAINING * limits.seconds)
        return Counts(rounds, affordable(limits.steps, step_s, _TRAINING * limits.seconds / rounds - step_s))

    def round(self, number: int, counts: Counts) -> Round:
        """Measure the loop, and its data path alone."""
        return {LOOP: self.baseline.seconds(counts.steps), READ: self.baseline.read_seconds(max(1, counts.reads))}


def measure(
    subjects: Sequence[Subject | None],
    limits: Limits,
    barrier: Callable[[], object],
    share: Callable[[Any], Any],
    say: Callable[[str], object],
) -> list[list[Round]]:
    """Measure settings in turn, round by round.

    Args:
        subjects: None where this process takes no part, and waits.
        limits: of one setting.
        barrier: waits for all processes.
        share: gives the main process's value to all.

    Returns:
        The rounds of each setting, as this process saw them; empty where it takes no part.
    """
    counts = []
    for subject in subjects:
        barrier()
        counts.append(Counts(**share(None if subject is None else asdict(subject.warm_up(limits)))))
    rounds: list[list[Round]] = [[] for _ in subjects]
    # All settings get as many rounds as the slowest can have, so that their ratios are of the same moments.
    total = min(count.rounds for count in counts)
    for number in range(total):
        for subject, count, measured in zip(subjects, counts, rounds, strict=True):
            barrier()
            if subject is not None:
                measured.append(subject.round(number, count))
        say(f"round {number + 1} of {total}")
    barrier()
    return rounds
