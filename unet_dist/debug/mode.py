"""The debug mode: one process, the inputs as pictures, four crops to overfit, and a resume to try.

Owns which values are looked at and the words for them. It runs the training's own step, crops and checkpoints, given as
finished parts: a debug mode with a loop of its own would prove the wrong thing.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unet_dist.config.sections import Config, DataConfig, RunConfig
from unet_dist.data.batches.ids import ignored_of
from unet_dist.data.batches.shares import StepShare
from unet_dist.debug.inspection import InspectedStep, inspect_step, layer_table
from unet_dist.errors import UnetDistError
from unet_dist.imaging.palette import class_palette
from unet_dist.imaging.writer import write_label_map, write_picture
from unet_dist.models.contract import as_module
from unet_dist.report.figures import draw_fed
from unet_dist.runs.checkpoint import Checkpoint, list_checkpoints, read_checkpoint, write_checkpoint
from unet_dist.tiling.gradient import WindowGradient
from unet_dist.training.parts import Parts, Progress
from unet_dist.training.trainer import Trainer
from unet_dist.wording import duration

SAMPLES = 4
MAX_STEPS = 500
"""Steps in which four crops must be learnt, at most; fewer where total_steps says so."""
GOAL = 0.05
"""Share of its start that the loss must fall below."""
WARMUP_STEPS = 10
# The paper's network has no normalisation: without clipping, one step in its first dozens can throw it off.
MAX_GRAD_NORM = 1.0
SAVE_AT, REDO = 3, 2
"""The resume is tried after this many steps, over this many."""


class DebugFinding(UnetDistError):
    """The debug mode found something wrong."""


# ------------------------------------------------------------------------------------------------------------- settings


def debugging_config(config: Config) -> Config:
    """The config with what the debug mode settles: few crops, a constant rate, no workers, a folder of its own."""
    schedule, data = config.schedule, config.data
    batch = min(SAMPLES, schedule.batch_size)
    micro = schedule.micro_batch_size
    steps = min(MAX_STEPS, schedule.total_steps)
    changes: dict[str, Any] = {
        "batch_size": batch,
        "micro_batch_size": micro if micro is not None and batch % micro == 0 else None,
        "gradient_accumulation_steps": None,
        "total_steps": steps,
        "schedule": "constant",
        "warmup_fraction": min(0.5, WARMUP_STEPS / steps),
        "max_grad_norm": schedule.max_grad_norm or MAX_GRAD_NORM,
        "early_stopping_evals": None,
        "num_workers": 0,
        "deterministic": True,
        "cudnn_benchmark": False,
        "compile": False,
        "trackers": [],
        "allow_config_change": True,
        "output_path": str(debug_folder(config.run)),
    }
    is_unsized = (data.synthetic_images, data.synthetic_size) == (
        DataConfig.synthetic_images,
        DataConfig.synthetic_size,
    )
    if data.data_path == "synthetic" and is_unsized:  # drawn in seconds; the usual hundred large scenes take minutes
        changes |= {"synthetic_images": 12, "synthetic_size": "270x480"}
    return config.replace(**changes)


def debug_folder(run: RunConfig) -> Path:
    """Where a debug run writes: debug/ by default, else output_path; below it where that holds a run, which stays as it is."""
    if run.output_path == RunConfig.output_path:
        return Path("debug")
    folder = Path(run.output_path)
    holds_a_run = (folder / "config.yaml").exists() or list_checkpoints(folder / "checkpoints")
    return folder / "debug" if holds_a_run else folder


# ------------------------------------------------------------------------------------------------------- the fed batches


def write_fed(folder: Path, share: StepShare, class_names: Sequence[str]) -> list[Path]:
    """Write the windows and labels of a step as pictures: exact copies, and a figure of both one over the other.

    Returns:
        The figures' paths.
    """
    paths = []
    palette = class_palette(len(class_names))
    batches = (
        batch.on(torch.device("cpu")) for batch in share.batches
    )  # with the light and colour that the network sees
    pairs = ((w, y, name) for b in batches for w, y, name in zip(b.windows, b.labels, b.ids, strict=True))
    for number, (window, labels, name) in enumerate(pairs, start=1):
        if number > SAMPLES:
            break
        path = folder / f"debug-{number}.png"
        write_picture(path.with_name(f"debug-{number}-input.png"), window.numpy())
        write_label_map(path.with_name(f"debug-{number}-mask.png"), labels.numpy(), palette)
        draw_fed(path, window.numpy(), labels.numpy(), class_names, title=name)
        paths.append(path)
    return paths


# ---------------------------------------------------------------------------------------------------- overfit, resume


def check_resume(trainer: Trainer, restore: Callable[[Checkpoint], Progress]) -> tuple[Trainer, str | None]:
    """Save, make steps, restore, make the same steps again, and compare the two ends.

    Args:
        restore: puts a checkpoint into the model and its optimizer, as a resumed run does.

    Returns:
        The trainer of the saved state, and what differs as a sentence (None where nothing does).

    Raises:
        CheckpointError: the checkpoint could not be written or read.
    """
    parts, step = trainer.parts, trainer.progress.step
    scaler = parts.processes.accelerator.scaler
    if scaler is not None:
        trainer.progress.scaler = scaler.state_dict()
    with tempfile.TemporaryDirectory(dir=parts.folder, prefix=".debug-") as folder:
        path = write_checkpoint(Path(folder), trainer.checkpoint().on_host())
        _redo(trainer)
        expected = trainer.checkpoint().on_host()
        trainer = Trainer(parts, restore(read_checkpoint(path)))
        _redo(trainer)
        again = trainer.checkpoint().on_host()
        trainer = Trainer(parts, restore(read_checkpoint(path)))
    ends = [{**end.model, **end.optimizer} for end in (expected, again)]
    assert ends[0].keys() == ends[1].keys(), "a resume that loses or adds tensors"
    differing = [name for name, was in ends[0].items() if not torch.equal(was.nan_to_num(), ends[1][name].nan_to_num())]
    if not differing:
        return trainer, None
    return trainer, (
        f"The resume is not exact: saved at step {step} and made again, {REDO} steps end with other values in {len(differing)} of "
        f"{len(ends[0])} tensors ({', '.join(differing[:3])}, ...). A layer or a transform keeps a state that no checkpoint holds, "
        "or draws random numbers of its own."
    )


def _redo(trainer: Trainer) -> None:
    """Make steps of the run's own batches, read anew."""
    for _ in range(REDO):
        share = trainer.parts.shares[trainer.progress.step + 1]
        trainer.step(share, _divisor(trainer.parts, share))


def _divisor(parts: Parts, share: StepShare) -> Tensor:
    """Valid pixels, or their summed weights, of a step: float64 on the device, one number per term."""
    return share.divisor(parts.loss).to(parts.processes.device)


def advice(losses: Sequence[float], share: StepShare, config: Config, without_gradient: Sequence[str]) -> list[str]:
    """What to look at where crops could not be overfit: what the numbers say first, what only a person can see last."""
    rate, start, end = config.schedule.learning_rate, losses[0], losses[-1]
    found = []
    if without_gradient:
        found.append(
            f"{', '.join(without_gradient[:4])} got no gradient at all: with --norm none a layer may be dead from the start "
            "(another --seed, --norm weight)"
        )
    if end > 1.01 * start or not math.isfinite(end):
        found.append(f"the loss rose: lower --learning_rate (now {rate:g}) or --max_grad_norm")
    elif end > 0.9 * start:
        found.append(f"the loss hardly moved: raise --learning_rate (now {rate:g}), or try --norm weight")
    elif end < 0.8 * losses[len(losses) // 2]:
        found.append(
            f"the loss was still falling: raise --total_steps (now {len(losses)}) or --learning_rate (now {rate:g})"
        )
    else:
        found.append("the loss stopped falling: the labels may not be a function of the images")
    labels = torch.cat([batch.labels.flatten() for batch in share.batches])
    ignored = (labels == ignored_of(labels)).double().mean().item()
    if ignored > 0.5:
        found.append(f"{ignored:.0%} of the labels are ignored (ignore_index, or a crop larger than its image)")
    flat = [
        name
        for b in (batch.on(torch.device("cpu")) for batch in share.batches)
        for w, name in zip(b.windows, b.ids, strict=True)
        if bool((w.numpy() == w.numpy()[:1, :1]).all())
    ]
    if flat:
        found.append(f"{', '.join(flat)} is one flat colour")
    if config.model.dropout:
        found.append(f"dropout {config.model.dropout:g} works against overfitting: try --dropout 0")
    found.append("the pictures of the inputs: does each mask lie on its image, and are the classes the right ones?")
    return found


# ------------------------------------------------------------------------------------------------------------ the mode


def debug(parts: Parts, restore: Callable[[Checkpoint], Progress], start: Progress) -> None:
    """Write the inputs as pictures, look at the first step, overfit its crops and try a resume on the way.

    Args:
        parts: what the run is made of, by debugging_config.
        restore: puts a checkpoint into the model and its optimizer, as a resumed run does.
        start: where the state of the parts stands; step 0 for a new network.

    Raises:
        DebugFinding: names the fault and where to look.
    """
    began = time.perf_counter()
    say = parts.teller.say
    schedule = parts.config.schedule
    say(
        f"debug: {schedule.batch_size} crops again and again, learning rate {schedule.learning_rate:g} (constant after "
        f"{WARMUP_STEPS} steps), gradient clipped to {schedule.max_grad_norm:g}, deterministic, no workers"
    )
    share = parts.shares[start.step + 1]
    paths = write_fed(parts.folder / "figures", share, parts.class_names)
    names = f"{paths[0]} to {paths[-1].name}" if len(paths) > 1 else str(paths[0])
    say(
        f"debug: look at what the network is fed: {names}; its exact pixels are in ...-input.png, its labels in ...-mask.png"
    )
    divisor = _divisor(parts, share)
    if not (divisor > 0).any():
        raise DebugFinding(
            f"Every label of the crops {', '.join(share.ids)} is ignored, or of a class that weighs nothing: there is nothing to "
            "learn. Look at --ignore_index, --label_map, --class_weights and the pictures."
        )
    parts.model.train()
    gradient = WindowGradient(parts.model, parts.wrapped, parts.loss, trim=parts.trim, seed=parts.config.schedule.seed)
    first = _look(parts, gradient, share, divisor)
    _tell_first(parts, first)
    parts.optimizer.zero_grad(set_to_none=True)

    trainer = Trainer(parts, start)
    limit = schedule.total_steps
    losses: list[float] = []
    findings: list[str] = []
    with parts.teller.progress("overfit", limit) as bar:
        while len(losses) < limit and not (losses and losses[-1] < GOAL * losses[0]):
            losses.append(trainer.step(share, divisor).item())
            bar.advance(detail=f"loss {losses[-1]:.4f}")
            if not math.isfinite(losses[-1]):
                _name_culprit(parts, gradient, share, divisor, len(losses))
            if len(losses) % max(1, limit // 10) == 0:
                bar.tell(f"loss {losses[-1]:.4f}")
            if len(losses) == min(SAVE_AT, limit):
                trainer, finding = check_resume(trainer, restore)
                findings += [finding] if finding else []
                if not finding:
                    say(f"debug: resume: saved at step {SAVE_AT}, restored, {REDO} steps made again: the same bits")
    share_left = losses[-1] / losses[0]
    course = f"loss {losses[0]:.4f} -> {losses[-1]:.4f} ({share_left:.1%} of its start) in {len(losses)} steps"
    if share_left < GOAL:
        say(f"debug: {len(share.ids)} windows overfit: {course}: the network can learn what it is fed")
    else:
        looks = "; ".join(advice(losses, share, parts.config, first.without_gradient))
        findings.append(
            f"Could not overfit {len(share.ids)} windows: {course}, expected below {GOAL:.0%}. Look at: {looks}."
        )
    say(f"debug: done in {duration(time.perf_counter() - began)}; pictures in {parts.folder / 'figures'}")
    if findings:
        raise DebugFinding(" ".join(findings))


def _look(parts: Parts, gradient: WindowGradient, share: StepShare, divisor: Tensor) -> InspectedStep:
    """Look at a step as it is computed: of fp16 by its loss scale, or the first one below it whose gradient does not overflow."""
    scaler = parts.processes.accelerator.scaler
    scale = 1.0 if scaler is None else float(scaler.get_scale())
    while True:
        found = inspect_step(as_module(parts.model), gradient, share, divisor, parts.processes.device, scale)
        overflows = found.bad_output is None and (found.bad_gradient is not None or found.bad_operation is not None)
        if scale <= 1 or not overflows:
            return found
        scale /= 2
        parts.optimizer.zero_grad(set_to_none=True)


def _tell_first(parts: Parts, first: InspectedStep) -> None:
    """Print the first step.

    Raises:
        DebugFinding: something is not finite.
    """
    parts.teller.table(layer_table(first, "first step"))
    classes = len(parts.class_names)
    norms = [layer.grad_norm for layer in first.layers if layer.grad_norm is not None]
    parts.teller.say(
        f"debug: first step: loss {first.loss:.4f} (a blind guess among {classes} classes has {math.log(classes):.4f}), "
        f"gradient norm {math.hypot(*norms):.3g}"
    )
    if first.without_gradient:
        parts.teller.say(f"debug: no gradient at all in {', '.join(first.without_gradient)}")
    complaint = first.complaint()
    if complaint:
        raise DebugFinding(
            f"The first step is not finite. {complaint} Nothing has been learnt yet: look at where the weights come from "
            "(--init_from, --resume), at the loss and the class weights; with mixed precision try --mixed_precision no."
        )


def _name_culprit(parts: Parts, gradient: WindowGradient, share: StepShare, divisor: Tensor, step: int) -> None:
    """Look at the layers with the weights that a bad step left as they were.

    Raises:
        DebugFinding: always.
    """
    parts.optimizer.zero_grad(set_to_none=True)
    found = _look(parts, gradient, share, divisor)
    parts.teller.table(layer_table(found, f"step {step}, with the weights that step {step - 1} left"))
    schedule = parts.config.schedule
    raise DebugFinding(
        f"Step {step} of overfitting is not finite. {found.complaint() or 'Made again, it is.'} Lower --learning_rate (now "
        f"{schedule.learning_rate:g}) or --max_grad_norm (now {schedule.max_grad_norm:g}); with mixed precision try "
        "--mixed_precision no."
    )
