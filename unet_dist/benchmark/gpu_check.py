"""A check of a device in stages: each is measured, skipped with its reason or failed with its error, and all is kept.

Owns the time, the order and the two files, check.json and check.md, which are written anew around every stage: a check that is
killed leaves what it found. Must not know what a stage measures.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from unet_dist.benchmark.setting import Setting, open_setting
from unet_dist.config.sections import Config
from unet_dist.errors import UnetDistError
from unet_dist.machine.memory import is_out_of_memory
from unet_dist.processes.group import Processes
from unet_dist.storage.files import write_whole
from unet_dist.terminal import Teller
from unet_dist.wording import duration, first_line, printable

VERSION = 1
"""Of the layout of check.json."""
JSON_FILE, PAGE_FILE = "check.json", "check.md"
DONE, SKIPPED, FAILED, RUNNING, NOT_REACHED = "done", "skipped", "failed", "running", "not reached"

Figures = dict[str, Any]
"""What a stage found: numbers, words, and lists of rows, as JSON has them."""


class NotHereError(Exception):
    """A stage has nothing to measure here; says why."""


@dataclass(frozen=True)
class Scale:
    """How large everything is that is measured.

    Attributes:
        keys: of a config.
        batches: batch sizes of the step.
        large_batch: crops of a micro-batch whose first map has more values than 32 bits count.
        tile_sizes: two, px; in the prediction of one image.
        steps: repetitions of a step, at most.
        matmul_side, copy_bytes: of the roofs; None is what fills the device.
        compiler: a backend of torch.compile.
        pace: what the stages need, as a part of what they need at full size.
    """

    name: str
    keys: Mapping[str, Any]
    batches: tuple[int, ...]
    large_batch: int
    tile_sizes: tuple[int, int]
    steps: int
    matmul_side: int | None
    copy_bytes: int | None
    compiler: str
    pace: float


FULL = Scale(
    name="full",
    keys={"base_channels": 64, "depth": 4, "input_size": 732, "synthetic_images": 10, "synthetic_size": "1080x1920"},
    batches=(2, 16),
    large_batch=66,
    tile_sizes=(572, 732),
    steps=20,
    matmul_side=None,
    copy_bytes=None,
    compiler="inductor",
    pace=1.0,
)
SMOKE = Scale(
    name="smoke",
    keys={"base_channels": 2, "depth": 2, "input_size": 60, "synthetic_images": 9, "synthetic_size": "48x80"},
    batches=(2,),
    large_batch=6,
    tile_sizes=(60, 76),
    steps=2,
    matmul_side=128,
    copy_bytes=2**20,
    compiler="aot_eager",  # needs no compiler of C++
    pace=0.02,
)


@dataclass
class Check:
    """What the stages share.

    Attributes:
        processes: this process alone, and its device.
        folder: scratch.
        deadline_s: of the clock; nothing is begun that would end later.
        matmul_flops_per_s: by type of number, once measured.
    """

    scale: Scale
    processes: Processes
    folder: Path
    deadline_s: float
    clock: Callable[[], float] = time.monotonic
    matmul_flops_per_s: dict[str, float] = field(default_factory=dict)
    _opened: int = 0

    @property
    def left_s(self) -> float:
        """Seconds to the deadline."""
        return self.deadline_s - self.clock()

    @property
    def keys(self) -> dict[str, Any]:
        """Of the config of every run of the check."""
        return {**self.scale.keys, "cache_path": str(self.folder / "cache"), "trackers": []}

    def open(self, batch_size: int, **keys: Any) -> Setting:
        """A run with this number of crops per step, with its parts ready to be measured."""
        self._opened += 1
        config = Config.from_flat({**self.keys, "batch_size": batch_size, **keys})
        folder = self.folder / f"setting-{self._opened}"
        return open_setting(config, self.processes, folder, Teller(speaks=False), name="check", predicts=False)

    def free(self) -> None:
        """Give back what a run held that is gone, so that the next finds the device empty."""
        self.processes.accelerator.free_memory()  # it keeps every network that it has prepared
        torch.compiler.reset()  # of each network a graph is kept, and only a few of one kind
        gc.collect()
        if self.processes.device.type == "cuda":
            torch.cuda.empty_cache()


def require_cuda(check: Check, why: str) -> None:
    """Leave a stage that other devices than CUDA's have nothing for.

    Raises:
        NotHereError: always, on another device.
    """
    if check.processes.device.type != "cuda":
        raise NotHereError(f"The device is {check.processes.device.type}: {why}.")


@dataclass(frozen=True)
class Stage:
    """Something to find out.

    Attributes:
        need_s: seconds it takes at full size, about; with less left it is skipped.
    """

    name: str
    title: str
    need_s: float
    measure: Callable[[Check], Figures]


@dataclass
class Outcome:
    """What became of a stage.

    Attributes:
        state: done, skipped, failed, running or not reached.
        reason: why it is not done.
    """

    name: str
    title: str
    state: str = NOT_REACHED
    reason: str = ""
    seconds: float = 0.0
    figures: Figures = field(default_factory=dict)


def run_stages(
    stages: Sequence[Stage], check: Check, head: Figures, output: Path, say: Callable[[str], object]
) -> list[Outcome]:
    """Run the stages in their order, and keep what they find.

    Args:
        head: what the figures depend on beside the code.
        output: folder of the two files.
        say: gets a line for each stage.

    Returns:
        An outcome for each stage. One that fails ends no other.
    """
    outcomes = [Outcome(stage.name, stage.title) for stage in stages]
    for number, (stage, outcome) in enumerate(zip(stages, outcomes, strict=True), start=1):
        need_s, left_s = stage.need_s * check.scale.pace, max(0.0, check.left_s)
        if need_s > left_s:
            outcome.state = SKIPPED
            outcome.reason = f"It needs about {need_s:.1f} s, and {left_s:.1f} s were left. Set a larger --minutes."
        else:
            outcome.state = RUNNING
            _write(output, head, outcomes)
            _measure(stage, outcome, check)
        _write(output, head, outcomes)
        say(f"{number}/{len(stages)} {stage.name}: {outcome.state}{_behind(outcome)}")
    return outcomes


def _measure(stage: Stage, outcome: Outcome, check: Check) -> None:
    started = check.clock()
    try:
        outcome.figures, outcome.state = stage.measure(check), DONE
    except NotHereError as error:
        outcome.state, outcome.reason = SKIPPED, str(error)
    except Exception as error:  # noqa: BLE001 a device, driver or library that fails is a finding, and other stages find more
        outcome.state, outcome.reason = FAILED, reason_of(error)
    try:
        check.free()
    except RuntimeError as error:  # the device is lost, to this process; those that later stages start find it anew
        outcome.state, outcome.reason = FAILED, outcome.reason or reason_of(error)
    outcome.seconds = round(check.clock() - started, 2)


def reason_of(error: Exception) -> str:
    """What failed, in a line."""
    if is_out_of_memory(error):
        return f"Memory ran out: {first_line(error)}"
    return str(error) if isinstance(error, UnetDistError) else f"{type(error).__name__}: {first_line(error)}"


def _behind(outcome: Outcome) -> str:
    return f", {duration(outcome.seconds)}" if outcome.state == DONE else f". {outcome.reason}"


def _write(output: Path, head: Figures, outcomes: Sequence[Outcome]) -> None:
    report = {"version": VERSION, **head, "stages": [asdict(outcome) for outcome in outcomes]}
    write_whole(output / JSON_FILE, (json.dumps(report, indent=1) + "\n").encode())
    write_whole(output / PAGE_FILE, page(head, outcomes).encode())


# ------------------------------------------------------------------------------------------------------------- the page


def page(head: Figures, outcomes: Sequence[Outcome]) -> str:
    """The page in Markdown: what the device is, what became of each stage, and its figures."""
    lines = ["# GPU check", "", *_table([{"": name, "value": value} for name, value in head.items()])]
    lines += ["## Stages", ""]
    lines += _table([{"stage": o.title, "": o.state, "s": o.seconds, "reason": o.reason} for o in outcomes])
    for outcome in outcomes:
        lines += [f"## {outcome.title}", ""]
        if outcome.state != DONE:
            lines += [_cell(f"{outcome.state}. {outcome.reason}".strip()), ""]
        plain = {name: value for name, value in outcome.figures.items() if not isinstance(value, list)}
        lines += _table([{"": name, "value": value} for name, value in plain.items()])
        for name, value in outcome.figures.items():
            if isinstance(value, list):
                lines += [f"{name}:", "", *_table(value)]
    return "\n".join(lines).rstrip() + "\n"


def _table(rows: Sequence[Figures]) -> list[str]:
    """Rows as a table with a column for each name that one of them has; nothing for no rows."""
    if not rows:
        return []
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([_cell(row.get(name, "")) for name in names] for row in rows)]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def _cell(value: object) -> str:
    """A value in a table: a number of four digits, or words without what Markdown takes for its own."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(str(value)).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
