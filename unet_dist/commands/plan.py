"""`unet-dist plan`: what a run will need, before anything is launched; it looks at headers of the data and needs no device."""

from __future__ import annotations

import os
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from unet_dist.assembly.planned import PlannedRun, plan_run
from unet_dist.assembly.sizes import training_halo
from unet_dist.command_line.command import Command
from unet_dist.config.options import PlanOptions
from unet_dist.config.sections import Config
from unet_dist.planner.fitting import (
    CUDA_CONTEXT_BYTES,
    Remedy,
    best_tile,
    largest_micro_batch,
    largest_side,
    prediction_bytes,
    remedies,
    training_bytes,
    usable_bytes,
)
from unet_dist.planner.memory import OPTIMIZER, PARTS, Peak
from unet_dist.planner.simulation import prediction_flops, prediction_peak, training_flops, training_peak
from unet_dist.processes.launcher import is_first
from unet_dist.terminal import Teller, make_console
from unet_dist.tiling.geometry import WindowSizes, plan_abutting
from unet_dist.wording import counted, one_line, size

COMMAND = Command(
    about="predict sizes, tiles, FLOPs and peak memory of a run, and what to change to fit; needs no device",
    usage="[CONFIG.yaml] [--memory 24GiB] [--key value ...]",
    place=80,
    takes_config=True,
    options="config.options:PlanOptions",
)

# The published experiment quotes this output for this input; the network gives 532 for 724.
_PUBLISHED_OUTPUT = {724: 540}


def run(config: Config, options: PlanOptions) -> None:
    """Print the plan of a config."""
    # Every process of a launcher plans the same; the first one says it.
    console = make_console(quiet=not is_first(os.environ))
    planned = plan_run(config, options, Teller(speaks=True, console=console))
    _introduce(planned, console)
    _print_sizes(planned, console)
    _print_tiles(planned, console)
    _print_work(planned, console)
    _print_memory(planned, options.memory_bytes(), console)


def _introduce(planned: PlannedRun, console: Console) -> None:
    config, model = planned.config, planned.setting.network
    parameters = sum(p.numel() for p in model.parameters())
    precision = config.run.dtype if planned.setting.precision == "no" else planned.setting.precision
    console.print(
        f"{one_line(config.data.data_path)}: {planned.data.num_classes} classes, images of {_shape(planned.data.image_shape)} px "
        f"({planned.data.known_from})"
    )
    console.print(
        f"{type(model).__name__}: {parameters:,} parameters{_options(planned)}; {precision} on {planned.setting.device_type}"
    )
    cut = planned.cut
    console.print(
        f"batch {config.schedule.batch_size} on {counted(cut.world_size, 'process', 'es')}: micro-batches of "
        f"{cut.micro_batch_size}, accumulation {-(-planned.share // cut.micro_batch_size)}"
    )


def _options(planned: PlannedRun) -> str:
    """The settings of the network, as ", base_channels 64, depth 4, norm none"; its variant where it has such."""
    known = dict(planned.setting.options)
    told = [f", {key} {known[key]}" for key in ("base_channels", "depth", "norm") if key in known]
    if known.get("stem_stride", 1) > 1:
        told.append(f", stem_stride {known['stem_stride']}")
    return "".join(told) or f", {planned.config.model.model}"


def _table(*columns: str, left: int = 1) -> Table:
    """A table whose first `left` columns are words."""
    table = Table(show_edge=False, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right")
    return table


def _head(console: Console, text: str) -> None:
    console.print(f"\n{text}", style="bold")


def _print_sizes(planned: PlannedRun, console: Console) -> None:
    sizes: WindowSizes = planned.setting.network.window_sizes
    asked = planned.config.schedule.input_size
    side = max(planned.input_shape) if asked == "full" else asked
    below, above = sizes.neighbours(side)
    halo = training_halo(planned.setting.network, planned.config.schedule.context_px)
    _head(console, f"sides of the input that the network takes: remainder {sizes.remainder} by {sizes.stride}")
    table = _table("side", "input", "output")
    rows = [("below", below), ("asked", side if sizes.is_valid(side) else None), ("above", above)]
    for name, value in rows:
        if value is not None:
            table.add_row(name, f"{value}", f"{value - 2 * halo}")
    console.print(table)


def _print_tiles(planned: PlannedRun, console: Console) -> None:
    model, shape = planned.setting.network, planned.data.image_shape
    sizes: WindowSizes = model.window_sizes
    _head(console, f"tiles of an image of {_shape(shape)}")
    table = _table("plan", "grid", "windows", "window", "step", "computed / image px")
    asked = planned.config.schedule.input_size
    side = planned.tile_size if planned.config.run.tile_size or asked == "full" else asked
    step = None
    if side > 2 * sizes.margin:
        abutting = plan_abutting(
            shape, side, margin=sizes.margin, output=_PUBLISHED_OUTPUT.get(side) if sizes.margin == 92 else None
        )
        step, count = abutting.output, abutting.rows * abutting.cols
        computed = count * side**2 / (shape[0] * shape[1])
        table.add_row(
            "abutting",
            f"{abutting.rows}x{abutting.cols}",
            f"{count}",
            f"{side}x{side}",
            f"{step}x{step}",
            f"{computed:.2f}",
        )
    tiles = planned.tiles
    if tiles is not None:
        cells = (_shape(tiles.grid), f"{len(tiles)}", _shape(tiles.window_shape), _shape(tiles.step))
        table.add_row("exact (ours)", *cells, f"{tiles.recompute:.2f}")
    console.print(table)
    if tiles is None:
        console.print(f"No exact tiles: {model.locality_obstacle}.")
        return
    share = 1 - 1 / tiles.recompute
    console.print(f"Recomputation: {share:.0%} of the pixels computed lie under a halo or past the border.")
    if step is not None and step % sizes.stride:
        console.print(
            f"A step of {step} is no multiple of {sizes.stride}: abutting tiles shift the pooling grid and compute another "
            "function than the whole image; the exact plan computes the same."
        )


def _print_work(planned: PlannedRun, console: Console) -> None:
    setting, crop = planned.setting, planned.crop
    _head(console, "work")
    table = _table("of", "windows", "operations")
    windows = len(crop) * planned.config.schedule.batch_size
    step = windows * training_flops(setting, crop.window_shape)
    name = f"training step (batch {planned.config.schedule.batch_size})"
    table.add_row(name, f"{windows} of {_shape(crop.window_shape)}", _flops(step))
    if planned.tiles is not None:
        image = len(planned.tiles) * prediction_flops(setting, planned.tiles.window_shape)
        cells = f"{len(planned.tiles)} of {_shape(planned.tiles.window_shape)}", _flops(image)
        table.add_row("prediction of an image", *cells)
    console.print(table)
    console.print(
        "The time depends on the machine: unet-dist bench with the same keys measures a step and a prediction."
    )


def _print_memory(planned: PlannedRun, memory_bytes: int | None, console: Console) -> None:
    setting, cut = planned.setting, planned.cut
    training = training_peak(setting, cut.micro_batch_size, planned.crop.window_shape)
    prediction = prediction_peak(setting, planned.window_batch, planned.prediction_window)
    _head(console, "predicted peak memory of a process")
    table = _table("part", "training", "prediction")
    for part in PARTS:
        name = f"{part} (assumption)" if part == "workspace" else part
        table.add_row(name, _size(training.parts[part]), _size(prediction.parts[part]))
    table.add_section()
    table.add_row("peak of torch's record", _size(training.total_bytes), _size(prediction.total_bytes))
    context = CUDA_CONTEXT_BYTES if setting.device_type == "cuda" else 0
    if context:
        table.add_row(
            "with the CUDA context (assumption)",
            _size(training.total_bytes + context),
            _size(prediction.total_bytes + context),
        )
    console.print(table)
    console.print(
        f"Parts are those of the worst moment; gradients come as activations go. Training takes "
        f"{counted(cut.micro_batch_size, 'window')} at a time, prediction {planned.window_batch}; a validation "
        f"during training holds the optimizer's {_size(training.parts[OPTIMIZER])} as well."
    )
    if memory_bytes is not None:
        _print_fitting(planned, training, prediction, memory_bytes, console)


def _print_fitting(planned: PlannedRun, training: Peak, prediction: Peak, memory_bytes: int, console: Console) -> None:
    setting, cut = planned.setting, planned.cut
    model, window = setting.network, planned.crop.window_shape
    usable = usable_bytes(memory_bytes, setting.device_type)
    table = _table("choice", "value", "needs", left=2)
    batch = largest_micro_batch(replace(setting, keeps_gradients=True), memory_bytes, planned.share, window)
    if batch is not None:
        need = training_bytes(
            replace(setting, keeps_gradients=batch < planned.share or cut.world_size > 1), batch, window
        )
        table.add_row(
            "micro-batch x accumulation", f"{batch} x {-(-planned.share // batch)} at {_shape(window)}", _size(need)
        )
    alone = replace(setting, keeps_gradients=True, held_bytes=0)
    side = largest_side(setting, memory_bytes, lambda side: training_bytes(alone, 1, (side, side)), start=max(window))
    if side is not None:
        table.add_row(
            "largest input without tiles", f"{side} px, 1 at a time", _size(training_bytes(alone, 1, (side, side)))
        )
    if model.locality is not None:
        tiles = best_tile(setting, memory_bytes, planned.data.image_shape, planned.config.run.window_batch)
        if tiles is not None:
            count = min(planned.config.run.window_batch, len(tiles))
            value = f"{_shape(tiles.window_shape)}, {counted(len(tiles), 'tile')}, {count} at a time"
            need = prediction_bytes(setting, count, tiles.window_shape)
            table.add_row("best tile for prediction", value, _size(need))
    if table.row_count:
        _head(console, f"within {_size(memory_bytes)}")
        console.print(table)
    if max(training.total_bytes, prediction.total_bytes + training.parts[OPTIMIZER]) <= usable:
        console.print(
            f"The run fits: {_size(usable - training.total_bytes)} of {_size(memory_bytes)} stay free in training."
        )
        return
    if training.total_bytes <= usable:
        console.print("Training fits, its validation does not: set --window_batch lower, or --tile_size smaller.")
        return
    found = remedies(setting, memory_bytes, share=planned.share, micro_batch_size=cut.micro_batch_size, window=window)
    console.print(
        f"The run does not fit: training needs {_size(training.total_bytes)}, {_size(max(usable, 0))} are usable."
    )
    _print_remedies(found, console)


def _print_remedies(found: list[Remedy], console: Console) -> None:
    if not found:
        console.print(
            "Nothing makes it fit but a smaller network (of the U-Net: --base_channels, --depth) or more memory."
        )
        return
    _head(console, "to fit, any of")
    table = _table("set", "costs", "needs", left=2)
    for remedy in found:
        table.add_row(remedy.keys, remedy.cost, _size(remedy.peak_bytes))
    console.print(table)


def _shape(shape: tuple[int, int]) -> str:
    return f"{shape[0]}x{shape[1]}"


def _size(num_bytes: float) -> str:
    return size(num_bytes) if num_bytes else "-"


def _flops(count: int) -> str:
    """Floating-point operations as people read them."""
    return f"{count / 1e12:,.2f} TFLOP" if count >= 1e11 else f"{count / 1e9:,.2f} GFLOP"
