"""The debug mode: one process, the first step layer by layer, four crops to overfit, and a resume to try.

Owns what is looked at and what is said about it. What runs is the training's own step, crops and checkpoints, given as
finished parts: a debug mode with a loop of its own would prove the wrong thing.
"""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from unet_dist.checkpoint import Checkpoint, list_checkpoints, read_checkpoint, write_checkpoint
from unet_dist.config import Config, DataConfig, RunConfig
from unet_dist.data.crops import StepShare
from unet_dist.data.labels import IGNORED
from unet_dist.errors import UnetDistError
from unet_dist.figures import draw_fed
from unet_dist.imaging.palette import class_palette
from unet_dist.imaging.writer import write_label_map, write_picture
from unet_dist.tiling.training import WindowGradient
from unet_dist.tracking import duration
from unet_dist.trainer import Parts, Progress, Trainer

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


# ----------------------------------------------------------------------------------------------------------- first step


@dataclass
class Layer:
    """What one layer gave in a step.

    Attributes:
        shape: of its output, of the first micro-batch.
        low, mean, high: of its output.
        grad_norm: of the gradient of its parameters; None where it has none.
    """

    name: str
    shape: tuple[int, ...]
    low: float
    mean: float
    high: float
    grad_norm: float | None = None


@dataclass
class FirstStep:
    """A step, layer by layer, in the order of the forward pass.

    Attributes:
        loss: over the valid pixels.
        bad_output: the first layer whose output is not finite.
        bad_gradient: the first layer, from the loss down, that is given or gives its parameters a gradient that is not finite.
        bad_operation: autograd's name of the first operation whose gradient is not a number.
    """

    loss: float = math.nan
    layers: list[Layer] = field(default_factory=list)
    bad_output: str | None = None
    bad_gradient: str | None = None
    bad_operation: str | None = None

    @property
    def without_gradient(self) -> list[str]:
        """The layers whose parameters learn nothing."""
        return [layer.name for layer in self.layers if layer.grad_norm == 0]

    def complaint(self) -> str | None:
        """What is not finite, as a sentence with a remedy; None where all is."""
        if self.bad_output is not None:
            return (
                f"The first layer whose output is not finite is {self.bad_output}. Look at the rows of the layer before it and "
                "at its weights (--init_from, --resume); with mixed precision try --mixed_precision no."
            )
        operation = f" (in {self.bad_operation})" if self.bad_operation else ""
        if self.bad_gradient is not None:
            return (
                f"The first layer, from the loss down, whose gradient is not finite is {self.bad_gradient}{operation}. Every "
                "output is finite. Look at the range of its output; try --mixed_precision no or --norm weight."
            )
        if not math.isfinite(self.loss):
            return (
                f"The loss is {self.loss}{operation}, though every layer's output is finite. Look at --class_weights."
            )
        return None


def inspect_step(
    model: nn.Module, gradient: WindowGradient, share: StepShare, divisor: Tensor, device: torch.device
) -> FirstStep:
    """Make a forward and a backward pass under autograd's anomaly detection, and note what every layer gives.

    The gradient stays in the parameters; nothing is updated.
    """
    found = FirstStep()
    scale = 1 / torch.where(divisor > 0, divisor, 1.0)
    sums = []
    with _watched(model, found), warnings.catch_warnings(), torch.autograd.set_detect_anomaly(True):
        warnings.simplefilter("ignore")  # where the operation stands in our own code says less than the layer's name
        totals = gradient.count(share.batches, device) if gradient.loss.has_statistics else None
        for batch in share.batches:
            tensors = [t.to(device) for t in (batch.windows, batch.labels, batch.keys)]
            borders = None if batch.borders is None else batch.borders.to(device)
            try:
                added = gradient.add(*tensors, scale=scale, borders=borders, totals=totals)
                sums.append((added.sum(0) * scale).sum().item())
            except RuntimeError as error:
                if "returned nan values" not in str(error):
                    raise
                found.bad_operation = str(error).split("'")[1]
                sums.append(math.nan)
    found.loss = sum(sums)
    modules = dict(model.named_modules())
    for layer in reversed(found.layers):
        grads = [p.grad for p in modules[layer.name].parameters() if p.grad is not None] if layer.name else []
        if grads:
            layer.grad_norm = torch.nn.utils.get_total_norm(grads).item()
            if not math.isfinite(layer.grad_norm) and found.bad_gradient is None:
                found.bad_gradient = layer.name
    return found


@contextmanager
def _watched(model: nn.Module, found: FirstStep) -> Iterator[None]:
    """Note the output of every layer without layers inside, and the gradient that it is given."""
    handles = [
        layer.register_forward_hook(partial(_note, found, name))
        for name, layer in model.named_modules()
        if next(layer.children(), None) is None
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _note(found: FirstStep, name: str, _layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    if not isinstance(output, Tensor) or (inputs and output is inputs[0]):  # a layer that does nothing
        return
    values = output.detach()
    values = values if values.dtype == torch.float64 else values.float()
    low, mean, high = values.min().item(), values.mean().item(), values.max().item()
    if not math.isfinite(low + mean + high) and found.bad_output is None:
        found.bad_output = name
    known = next((layer for layer in found.layers if layer.name == name), None)
    if known is None:
        found.layers.append(Layer(name, tuple(output.shape), low, mean, high))
    else:  # a later micro-batch, or activations that are computed again
        known.low, known.high = min(known.low, low), max(known.high, high)

    def check(gradient: Tensor) -> None:
        if found.bad_gradient is None and not bool(torch.isfinite(gradient).all()):
            found.bad_gradient = name

    if output.requires_grad:
        output.register_hook(check)


def layer_table(first: FirstStep) -> Table:
    """The first step as a table: layer, output shape and range, gradient norm of the parameters."""
    table = Table(title="first step", title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("output", overflow="fold")
    for name in ("min", "mean", "max", "gradient"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in first.layers:
        numbers = [f"{value:.3g}" for value in (layer.low, layer.mean, layer.high)]
        grad = "" if layer.grad_norm is None else f"{layer.grad_norm:.3g}"
        table.add_row(layer.name, "x".join(map(str, layer.shape)), *numbers, grad)
    return table


# ------------------------------------------------------------------------------------------------------- what was fed


def write_fed(folder: Path, share: StepShare, class_names: Sequence[str]) -> list[Path]:
    """Write the windows and labels of a step as pictures: exact copies, and a figure of both one over the other.

    Returns:
        The figures' paths.
    """
    paths = []
    palette = class_palette(len(class_names))
    pairs = ((w, y, name) for b in share.batches for w, y, name in zip(b.windows, b.labels, b.ids, strict=True))
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
        path = write_checkpoint(Path(folder), trainer.checkpoint())
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
    """Valid pixels, or their summed weights, of a step: float64 on the device, one number a term."""
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
    ignored = (labels == IGNORED).double().mean().item()
    if ignored > 0.5:
        found.append(f"{ignored:.0%} of the labels are ignored (ignore_index, or a crop larger than its image)")
    flat = [
        name for b in share.batches for w, name in zip(b.windows, b.ids, strict=True) if bool((w == w[:1, :1]).all())
    ]
    if flat:
        found.append(f"{', '.join(flat)} is one flat colour")
    if config.model.dropout:
        found.append(f"dropout {config.model.dropout:g} works against overfitting: try --dropout 0")
    found.append("the pictures of what was fed: does each mask lie on its image, and are the classes the right ones?")
    return found


# ------------------------------------------------------------------------------------------------------------ the mode


def debug(parts: Parts, restore: Callable[[Checkpoint], Progress], start: Progress) -> None:
    """Look at the first step, write what was fed, overfit its crops and try a resume on the way.

    Args:
        parts: what the run is made of, by debugging_config.
        restore: puts a checkpoint into the model and its optimizer, as a resumed run does.
        start: where the state of the parts stands; step 0 for a new network.

    Raises:
        DebugFinding: says what is wrong and what to look at.
    """
    began = time.perf_counter()
    say, device = parts.teller.say, parts.processes.device
    schedule = parts.config.schedule
    say(
        f"debug: {schedule.batch_size} crops again and again, learning rate {schedule.learning_rate:g} (constant after "
        f"{WARMUP_STEPS} steps), gradient clipped to {schedule.max_grad_norm:g}, deterministic, no workers"
    )
    share = parts.shares[start.step + 1]
    paths = write_fed(parts.folder / "figures", share, parts.class_names)
    say(f"debug: what the network is fed: {', '.join(map(str, paths))}; exact pixels in ...-input.png and ...-mask.png")
    divisor = _divisor(parts, share)
    if not (divisor > 0).any():
        raise DebugFinding(
            f"Every label of the crops {', '.join(share.ids)} is ignored, or of a class that weighs nothing: there is nothing to "
            "learn. Look at --ignore_index, --label_map, --class_weights and the pictures."
        )
    parts.model.train()
    gradient = WindowGradient(parts.model, parts.wrapped, parts.loss, trim=parts.trim, seed=parts.config.schedule.seed)
    first = inspect_step(parts.model, gradient, share, divisor, device)
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


def _tell_first(parts: Parts, first: FirstStep) -> None:
    """Print the first step.

    Raises:
        DebugFinding: something is not finite.
    """
    parts.teller.table(layer_table(first))
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
        raise DebugFinding(f"The first step is not finite. {complaint}")


def _name_culprit(parts: Parts, gradient: WindowGradient, share: StepShare, divisor: Tensor, step: int) -> None:
    """Look at the layers with the weights that a bad step left as they were.

    Raises:
        DebugFinding: always.
    """
    parts.optimizer.zero_grad(set_to_none=True)
    complaint = inspect_step(parts.model, gradient, share, divisor, parts.processes.device).complaint()
    raise DebugFinding(
        f"Step {step} of overfitting is not finite. {complaint or 'Made again, it is.'} Or lower --learning_rate (now "
        f"{parts.config.schedule.learning_rate:g})."
    )
