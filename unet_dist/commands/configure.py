"""`unet-dist configure`: a config for a data set and this device, with a reason at each value, on stdout."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import yaml

from unet_dist.assembly.data_set import open_data, settings_of, source_of
from unet_dist.assembly.opening import open_for, teller_of
from unet_dist.assembly.recommend import Choice, Device, Fingerprint, as_yaml, recommend
from unet_dist.benchmark.ceilings import compute_dtype, matmul_rate
from unet_dist.benchmark.setting import open_setting
from unet_dist.benchmark.step import endless, run_loop
from unet_dist.benchmark.timing import affordable
from unet_dist.command_line.command import Command
from unet_dist.config.choosing import DATA_KEYS, ConfigureOptions, words_of
from unet_dist.config.sections import Config
from unet_dist.data.decoded.cache import Cache
from unet_dist.data.decoded.classes import find_void
from unet_dist.data.decoded.own_names import read_names
from unet_dist.data.decoded.statistics import measure_runs
from unet_dist.errors import ConfigError
from unet_dist.machine.memory import free_bytes
from unet_dist.models.encoders.efficientnet_lite import find_weights
from unet_dist.processes.group import Processes
from unet_dist.terminal import Teller
from unet_dist.wording import counted, duration, hanging, size

COMMAND = Command(
    about="print a config for a data set, this device and a time limit, with a reason for each value",
    usage="DATA [--memory 24GiB] [--time 2h] [--processes 2] > CONFIG.yaml",
    place=55,
    needs="a data set, such as a folder of images/ and masks/",
    options="config.choosing:ConfigureOptions",
)
# assumption: of a large product's rate, what training reaches; it only chooses the network that is then timed.
_EFFICIENCY = 0.3
_PROBE_S, _MOST_STEPS = 4.0, 20
# Of free memory: the rest is for what torch's record does not see. assumption, as in a prediction with --tile_size auto.
_USED_SHARE = 0.8


def run(words: Sequence[str], options: ConfigureOptions) -> None:
    """Print a config."""
    if len(words) != 1:
        raise ConfigError(f"configure: got {len(words)} data sets, expected one. Usage: {COMMAND.usage_line}")
    asked = options.asked() | {"data_path": words[0]}
    with redirect_stdout(sys.stderr):  # stdout is the config
        text = _configure(asked, options)
    print(text, end="")


def _configure(asked: dict[str, Any], options: ConfigureOptions) -> str:
    config = Config(**asked, trackers=[])
    with open_for(endless(config)) as processes, tempfile.TemporaryDirectory(prefix="unet-dist-") as scratch:
        teller = teller_of(processes)
        source, ignored = source_of(config, teller.say), None
        if config.data.ignore_index is None and not config.data.multi_label:  # there it would be a value of the planes
            ignored = find_void(read_names(source, settings_of(config, source)) or {})
        if ignored is not None:
            asked = asked | {"ignore_index": ignored}
            config = Config(**asked, trackers=[])
        data = fingerprint(open_data(config, teller, source))
        teller.say("Measuring this device for some seconds.")
        memory = options.memory_bytes() or int(_USED_SHARE * free_bytes(processes.device, 1))
        dtype = compute_dtype(processes.precision, torch.float32)
        encoder = None if find_weights("efficientnet_lite0") is None else "efficientnet_lite0"
        device = Device(processes.device.type, memory, _EFFICIENCY * matmul_rate(processes.device, dtype, 0.5))
        chosen = recommend(data, device, options.seconds(), encoder, processes=options.processes)
        for attempt in range(2):  # the measured rate may afford another network, which has a rate of its own
            timed = _work_of(chosen)
            values = {key: choice.value for key, choice in chosen.items()} | asked
            rate = probe(Config(**values), processes, Path(scratch) / f"{attempt}", teller)
            device = replace(device, flops_per_s=rate)
            chosen = recommend(data, device, options.seconds(), encoder, processes=options.processes)
            if _work_of(chosen) == timed:
                break
    given = {key: Choice(value, "as given") for key, value in asked.items()}
    if ignored is not None:
        given["ignore_index"] = Choice(ignored, "by its name this class holds the pixels without a label")
    height, width = data.image_shape
    number = counted(options.processes, "process", "es")
    head = (
        f"# {counted(data.num_images, 'image')} of {height}x{width} px to train on; {duration(options.seconds())} of "
        f"{number} on {device.kind} with {size(memory)} each, measured at {device.flops_per_s / 1e9:,.3g} GFLOP/s.\n"
    )
    return head + as_yaml({**given, **chosen, **given})


def choose(config: Config, *, time: str, processes: int = 1) -> Config:
    """The config of a run that is there already, else one chosen for the data and this device; given keys stand in both.

    A process of its own measures, so that nothing of it stays in this one's memory. What it chose is printed, and kept with
    its reasons in the run's folder.

    Args:
        time: wall time of the run, such as 10min.
        processes: that will train.

    Raises:
        SystemExit: nothing could be chosen; the process has printed why.
    """
    given = {key: value for key, value in config.flat().items() if key in config.given}
    folder = Path(config.run.output_path)
    settled = folder / "config.yaml"
    if settled.is_file():
        print(
            hanging(f"Taking the settings of the run in {folder} (config.yaml); --time is for a new run."), flush=True
        )
        return Config.from_flat(_read(settled.read_text(encoding="utf-8")) | given)
    words = [config.data.data_path, "--time", time, "--processes", str(processes)]
    words += words_of(given, sorted((DATA_KEYS - {"data_path"}) & given.keys()))
    program = [sys.executable, "-m", "unet_dist", "configure", *words]
    done = subprocess.run(program, check=False, stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode:
        sys.exit(done.returncode)
    print(done.stdout, end="", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chosen.yaml").write_text(done.stdout, encoding="utf-8")
    return Config.from_flat(_read(done.stdout) | given)


def _read(text: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def fingerprint(cache: Cache) -> Fingerprint:
    """What decides of a cached data set."""
    train = cache.split("train")
    positions = list(train.positions)
    heights, widths = (cache.table[key][positions] for key in ("heights", "widths"))
    counts = [int(count) for index, count in enumerate(train.class_counts) if count and index != cache.ignore_index]
    runs = measure_runs(train)
    return Fingerprint(
        num_images=len(train),
        num_validation=len(cache.split("validation")),
        image_shape=(int(np.median(heights)), int(np.median(widths))),
        channels=cache.channels,
        num_classes=cache.num_classes,
        shares=tuple(count / sum(counts) for count in counts),
        run_px=runs.mean_px,
        fine_px=runs.fine_px,
        is_windowed=any(position in cache.windowed for position in positions),
    )


def _work_of(chosen: Mapping[str, Choice]) -> list[Any]:
    """The values that decide what a step computes."""
    keys = (
        "model",
        "stem_stride",
        "base_channels",
        "depth",
        "input_size",
        "batch_size",
        "micro_batch_size",
        "tile_size",
    )
    return [chosen[key].value if key in chosen else None for key in keys]


def probe(config: Config, processes: Processes, scratch: Path, teller: Teller) -> float:
    """Train for some seconds on the data, into a scratch folder, and say how many operations per second that makes."""
    teller.say(f"Timing {config.model.base_channels} channels, depth {config.model.depth} for some seconds.")
    setting = open_setting(config, processes, scratch, Teller(speaks=False), name="probe", predicts=False)
    bare = setting.subject.bare
    bare.seconds(1)
    steps = affordable(_MOST_STEPS, bare.seconds(1), _PROBE_S)
    laps = run_loop(setting.parts, steps, scratch / "loop")
    return setting.amounts.flops / fmean(lap.seconds for lap in laps)
