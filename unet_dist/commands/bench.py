"""`unet-dist bench`: how fast a run is on this machine, against what the machine can do."""

from __future__ import annotations

import json
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unet_dist.assembly.opening import open_for, teller_of
from unet_dist.benchmark.baseline import Baseline, write_pairs
from unet_dist.benchmark.ceilings import Ceilings
from unet_dist.benchmark.inference import image_pixels
from unet_dist.benchmark.picture import draw_roofline
from unet_dist.benchmark.results import VERSION, Amounts, Result, figures_of, layers_as_json, speedups
from unet_dist.benchmark.setting import Setting, open_setting
from unet_dist.benchmark.step import endless
from unet_dist.benchmark.subject import (
    BYTES,
    FLOPS,
    LOOP,
    PREDICT,
    READ,
    STEP,
    BaselineSubject,
    Limits,
    Round,
    Subject,
    measure,
)
from unet_dist.benchmark.tables import comparison_tables, layer_table, result_table, scaling_table
from unet_dist.benchmark.timing import Spread
from unet_dist.command_line.command import Command
from unet_dist.config.options import BenchOptions
from unet_dist.config.sections import Config
from unet_dist.errors import ConfigError, DataError, LaunchError
from unet_dist.machine.description import device_name
from unet_dist.processes.group import Processes
from unet_dist.storage.files import write_whole
from unet_dist.wording import size

COMMAND = Command(
    about="measure a run's speed against the device's limits, by layer and over processes; compare settings",
    usage="[CONFIG.yaml] [--compare KEY=VALUE,VALUE] [--key value ...]",
    place=70,
    takes_config=True,
    options="config.options:BenchOptions",
    starts_processes=True,
)

# Settled by bench itself, the same for all settings, or without effect on the figures.
_NOT_COMPARED = frozenset(
    {
        *("output_path", "debug", "resume", "allow_config_change", "checkpoint_steps", "keep_checkpoints", "trackers"),
        *("total_steps", "eval_steps", "early_stopping_evals", "time_limit_min", "init_from", "schedule", "seed"),
        *("warmup_fraction", "expected_processes", "collective_timeout_s", "deterministic", "cache_path"),
    }
)

_BASELINE_IMAGES = 8
"""Pairs that the usual loop decodes, at least: more would take as long each."""


def run(config: Config, options: BenchOptions) -> None:
    """Measure a config, or the settings to compare."""
    configs = options.settings(config)
    _refuse(config, options)
    with open_for(endless(config)) as processes:
        if options.compare == "baseline" and processes.world_size > 1:
            raise LaunchError(
                f"compare: got baseline on {processes.world_size} processes, expected one. Start it without a launcher."
            )
        bench = _Bench(config, options, processes)
        folder = Path(config.run.output_path)
        with _scratch(folder, processes) as scratch:
            report = bench.compare(configs, scratch) if options.compare else bench.measure(scratch)
        if processes.is_main:
            write_whole(folder / "bench.json", (json.dumps(report, indent=1) + "\n").encode())
            bench.teller.say(f"All figures: {folder / 'bench.json'}")


def _refuse(config: Config, options: BenchOptions) -> None:
    if config.run.debug:
        raise ConfigError("debug: got true, expected false: bench measures runs as they are. Remove --debug.")
    key, _ = options.compared()
    if key in _NOT_COMPARED:
        raise ConfigError(
            f"compare: got {key}, expected a key that changes how a run is computed, such as micro_batch_size, tile_size, "
            "num_workers, mixed_precision or base_channels."
        )
    if options.compare == "baseline" and config.schedule.input_size == "full":
        raise ConfigError("compare: got baseline with input_size full, expected crops of one size. Set --input_size.")


class _Bench:
    """The subject of the measurement, on the processes there are."""

    def __init__(self, config: Config, options: BenchOptions, processes: Processes) -> None:
        self.config = config
        self.processes = processes
        self.teller = teller_of(processes)
        self.limits = Limits(options.bench_rounds, options.bench_steps, options.bench_seconds)
        self.varied, _ = options.compared()
        self.predicts = options.bench_predict and options.compare != "baseline"

    # ------------------------------------------------------------------------------------------------ one setting

    def measure(self, scratch: Path) -> dict[str, Any]:
        """Measure the run, and one process alone where there are several."""
        processes, teller = self.processes, self.teller
        folder, name = scratch / "together", _together(processes)
        together = open_setting(self.config, processes, folder, teller, name=name, predicts=self.predicts)
        teller.say(together.title)
        settings: list[Setting | None] = [together]
        if processes.world_size > 1:
            alone = together.alone(scratch / "alone", name="one process alone") if processes.is_main else None
            settings.insert(0, alone)
        rounds = self._rounds([None if setting is None else setting.subject for setting in settings])
        results = [setting.result(own) for setting, own in zip(settings, rounds, strict=True) if setting is not None]
        ceilings = Ceilings(*(Spread.of([own[name] for own in rounds[-1]]).median for name in (FLOPS, BYTES)))
        layers = together.layers(ceilings, self.limits)
        for result in results:
            teller.table(result_table(result, together.precision, together.image_shape))
        self._tell_memory(results[-1])
        teller.table(layer_table(layers, ceilings))
        report = {**self._head(), "results": [result.as_json() for result in results], "layers": layers_as_json(layers)}
        if processes.is_main:
            if processes.world_size > 1:
                report["scaling"] = self._scaling(results, rounds)
            path = Path(self.config.run.output_path) / "bench.png"
            draw_roofline(path, layers, ceilings, title=f"{together.title}\n{device_name(processes.device)}")
            teller.say(f"Roofline: {path}")
        return report

    def _scaling(self, results: Sequence[Result], rounds: Sequence[Sequence[Round]]) -> dict[str, Any]:
        """Compare what all processes do with what one does alone, each with as much work per process."""
        alone, together = results
        crops = together.amounts.crops / alone.amounts.crops
        pixels = together.amounts.image_pixels / max(1, alone.amounts.image_pixels)
        rows: list[tuple[str, float, float, Spread]] = []
        for what, name, rate, factor in (
            ("bare step, images/s", STEP, "bare_images_per_s", crops),
            ("real loop, images/s", LOOP, "images_per_s", crops),
            ("prediction, megapixels/s", PREDICT, "predicted_megapixels_per_s", pixels),
        ):
            spread = speedups(rounds[1], rounds[0], name, factor=factor)
            if spread is not None:
                rows.append((what, alone.figures[rate].median, together.figures[rate].median, spread))
        self.teller.table(scaling_table(rows, self.processes.world_size))
        return {what: asdict(spread) for what, _, _, spread in rows}

    def _tell_memory(self, result: Result) -> None:
        predicted = f"plan predicts {size(result.predicted_bytes or 0)} for the tensors of a step"
        if result.peak_bytes:
            self.teller.say(f"peak memory of the device: {size(result.peak_bytes)}; {predicted}")
        else:
            resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            self.teller.say(f"peak resident memory of the process: {size(resident)}; {predicted}")

    # ------------------------------------------------------------------------------------------- several settings

    def compare(self, configs: dict[str, Config], scratch: Path) -> dict[str, Any]:
        """Measure settings in turn; the first is what the others are held against."""
        teller = self.teller
        settings: list[Setting] = []
        first: list[BaselineSubject] = []
        for number, (name, config) in enumerate((configs or {"unet-dist": self.config}).items()):
            processes = self.processes
            if self.varied == "mixed_precision":
                processes = processes.in_precision(config.run.mixed_precision)
            folder = scratch / str(number)
            settings.append(open_setting(config, processes, folder, teller, name=name, predicts=self.predicts))
            teller.say(f"{name}: {settings[-1].title}")
        if not configs:
            first.append(_baseline(settings[0], scratch / "baseline"))
        rounds = self._rounds([*first, *(setting.subject for setting in settings)])
        results = [_baseline_result(settings[0], own) for own in rounds[: len(first)]]
        results += [setting.result(own) for setting, own in zip(settings, rounds[len(first) :], strict=True)]
        report = {**self._head(), "results": [result.as_json() for result in results]}
        if self.processes.is_main:
            ratios = [{name: speedups(own, rounds[0], name) for name in (STEP, LOOP, READ, PREDICT)} for own in rounds]
            for table in comparison_tables(results, ratios):
                teller.table(table)
            report["times_as_fast_as_the_first"] = [
                {name: asdict(spread) for name, spread in ratio.items() if spread is not None} for ratio in ratios
            ]
        return report

    # ------------------------------------------------------------------------------------------------------ shared

    def _rounds(self, subjects: Sequence[Subject | None]) -> list[list[Round]]:
        processes = self.processes
        return measure(subjects, self.limits, barrier=processes.barrier, share=processes.broadcast, say=self.teller.say)

    def _head(self) -> dict[str, Any]:
        """What the figures depend on beside the code."""
        return {
            "version": VERSION,
            "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "device": device_name(self.processes.device),
            "device_type": self.processes.device.type,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "precision": self.processes.precision,
            "world_size": self.processes.world_size,
            "limits": asdict(self.limits),
            "config": self.config.flat(),
        }


def _together(processes: Processes) -> str:
    return "the run" if processes.world_size == 1 else f"{processes.world_size} processes"


def _baseline(setting: Setting, folder: Path) -> BaselineSubject:
    """The loop that is usually written, on the images of a setting."""
    config, cache = setting.config, setting.cache
    side = setting.layout.crops.side
    assert side is not None
    samples = cache.split("train")
    count = max(_BASELINE_IMAGES, config.schedule.batch_size)
    positions = [i % len(samples) for i in range(count)]
    images = (image_pixels(samples.image(i)) for i in positions)
    labels = (samples.label(i) for i in positions)
    write_pairs(folder, ((x, np.asarray(y[: x.shape[0], : x.shape[1]])) for x, y in zip(images, labels, strict=True)))
    options = {
        "in_channels": 3,
        "num_classes": cache.num_classes,
        "base_channels": config.model.base_channels,
        "depth": config.model.depth,
    }
    baseline = Baseline(
        folder,
        options,
        side=side,
        batch_size=config.schedule.batch_size,
        device=setting.parts.processes.device,
        num_workers=config.data.num_workers,
    )
    return BaselineSubject("the usual loop", baseline)


def _baseline_result(setting: Setting, rounds: Sequence[Round]) -> Result:
    amounts = setting.amounts
    own = Amounts(amounts.crops, amounts.window_pixels, amounts.flops, amounts.share_crops)
    return Result("the usual loop", figures_of(rounds, own), own, len(rounds), steps=0)


@contextmanager
def _scratch(folder: Path, processes: Processes) -> Iterator[Path]:
    """A folder for files written on the way, below the run's folder, which all processes see."""
    path = None
    if processes.is_main:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = tempfile.mkdtemp(dir=folder, prefix=".bench-")
        except OSError as error:
            raise DataError(
                f"output_path: cannot write to {folder}: {error.strerror}. Choose another --output_path."
            ) from None
    shared = processes.broadcast(path)
    assert shared is not None
    try:
        yield Path(shared)
    finally:
        if processes.is_main:
            shutil.rmtree(shared, ignore_errors=True)
