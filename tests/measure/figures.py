"""The figures that the documentation shows: what each is, what it is held against, and the command that measures it.

FOLDER in a command is an empty folder for its files. `python -m tests.measure.record` runs the commands.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A figure of the documentation.

    Attributes:
        topic: the page it stands on.
        what: the quantity; at most 60 characters.
        figure: its value, a template of the groups of the pattern and of `processor`, the processor time of the command.
        against: what to compare it with, such a template too.
        pattern: where in the command's output the groups are.
        command: the command, from the root of a checkout.
        is_headline: whether the first page of the benchmarks shows it.
    """

    topic: str
    what: str
    figure: str
    against: str
    pattern: str
    command: str
    is_headline: bool = False


TOPICS = {
    "exactness": "Exactness",
    "accuracy": "Accuracy",
    "memory": "Memory",
    "speed": "Speed",
    "stopping": "Stopping and resuming",
}
"""The pages by topic, and their titles."""

_TILES = "python -m tests.measure.tile_sizes --tile_sizes 572 668 --base_channels 2"
_GRADIENT = "python -m tests.measure.training_memory gradient --base_channels 2"
_MEMORY = "python -m tests.measure.training_memory memory --input_sizes 572 2108 4156"
_COST = "python -m tests.measure.prediction_overhead --size 4000x4000 8000x8000 --base_channels 2 --depth 1 --repeats 1"
_MONAI = "python -m tests.measure.against_monai --rounds 1"
_CROPS = "python -m tests.measure.cached_crop --rounds 3"
_START = "python -m tests.measure.startup --rounds 2"
_STOP = "python -m tests.measure.stop_time --rounds 4 --folder FOLDER"
_FILMS = "python -m tests.measure.accuracy camvid --folder runs/accuracy --films"
_ISBI = "python -m tests.measure.accuracy isbi2012 --folder runs/accuracy"
_QUICK = "unet-dist quickstart --output_path FOLDER/run --cache_path FOLDER/cache"

FIGURES: dict[str, Figure] = {
    "tiles": Figure(
        "exactness",
        "Logits by tiles of 668 px against one pass, float64",
        "difference {difference}",
        "tiles laid side by side: up to {abutting}",
        r"^\| aligned \| 668 [^\n]*\| (?P<difference>\S+) \|$.*^\| abutting \| 668 [^\n]*\| (?P<abutting>\S+) \|$",
        _TILES,
        True,
    ),
    "tile_labels": Figure(
        "exactness",
        "Labels that change with the tile size, random weights",
        "{labels}",
        "tiles laid side by side: {abutting}",
        r"^\| aligned \| 668 \|[^|]*\|[^|]*\| (?P<labels>\S+) .*^\| abutting \| 668 \|[^|]*\|[^|]*\| (?P<abutting>\S+) ",
        _TILES,
    ),
    "gradient": Figure(
        "exactness",
        "Gradient of a crop of 1100 px by tiles, float64",
        "relative difference {double}",
        "float32 rounding: {single}",
        r"float64: [^\n]*global (?P<double>\S+),.*float32: [^\n]*global (?P<single>\S+),",
        _GRADIENT,
        True,
    ),
    "training_memory": Figure(
        "memory",
        "A training step on a crop of 4156 px, by tiles of 572",
        "{large} MiB of tensors",
        "a crop of 572 px: {small} MiB",
        r"input 572:[^\n]*tensors (?P<small>\S+) MiB.*input 4156:[^\n]*tensors (?P<large>\S+) MiB",
        _MEMORY,
        True,
    ),
    "prediction_memory": Figure(
        "memory",
        "Predicting an image of 8000x8000",
        "{large} MiB in the process",
        "an image of 4000x4000: {small} MiB",
        r"^4000x4000: [^\n]* (?P<small>\d+) MiB.*^8000x8000: [^\n]* (?P<large>\d+) MiB",
        _COST,
        True,
    ),
    "monai_memory": Figure(
        "memory",
        "Predicting 1080x1920, 16 wide: memory added",
        "{ours} MiB",
        "MONAI 1.6.1, sliding windows: {theirs} MiB",
        r"^ours: (?P<ours>\d+) MiB.*^monai: (?P<theirs>\d+) MiB",
        _MONAI,
        True,
    ),
    "planned_memory": Figure(
        "memory",
        "Memory of a training step, 16 wide, 300 px, 2 crops",
        "{predicted} MiB predicted",
        "measured: {measured} MiB",
        r"\| (?P<predicted>\d\S+) \| (?P<measured>\d\S+) \| \S+ \|$",
        "python -m tests.memory_table --cases 3",
    ),
    "monai_time": Figure(
        "speed",
        "Predicting 1080x1920, 16 wide, one CPU thread",
        "{ours} s",
        "MONAI 1.6.1, sliding windows: {theirs} s",
        r"ours (?P<ours>\S+) s, MONAI (?P<theirs>\S+) s",
        _MONAI,
        True,
    ),
    "cached_crops": Figure(
        "speed",
        "Reading a crop of 572 px from the cache, CPU time",
        "{cache} ms",
        "decoding its files: {files} ms",
        r"cache: (?P<cache>\S+) ms.*files: (?P<files>\S+) ms",
        _CROPS,
        True,
    ),
    "help": Figure(
        "speed",
        "`unet-dist train --help`",
        "{seconds} s",
        "",
        r"^train --help: (?P<seconds>\S+) s",
        _START,
    ),
    "first_step": Figure(
        "speed",
        "First step of the quick start, from the command",
        "{drawn} s, scenes drawn first",
        "with the cache there: {there} s",
        r"^first step, data made: (?P<drawn>\S+) s.*^first step, data there: (?P<there>\S+) s",
        _START,
    ),
    "stopping": Figure(
        "stopping",
        "SIGTERM to a saved exit, 1 and 2 processes, 8 stops",
        "longest {longest} s, {failures} failures",
        "",
        r"^(?P<failures>\d+) failures; longest (?P<longest>\S+) s",
        _STOP,
        True,
    ),
    "kills": Figure(
        "stopping",
        "Runs killed at random moments and started again",
        "{kills} kills, {failures} ended with other bytes",
        "the run that was never killed",
        r"^(?P<kills>\d+) kills, \d+ runs compared, (?P<failures>\d+) failures",
        "python -m tests.measure.kill_campaign --kills 10 --seed 1 --processes 1 2 --folder FOLDER",
        True,
    ),
    "clean_exits": Figure(
        "stopping",
        "Whole runs of 1, 2 and 3 processes with exit code 0",
        "{clean} of {runs}",
        "",
        r"^(?P<clean>\d+) of (?P<runs>\d+) runs ended with exit code 0",
        "python -m tests.measure.clean_exits --runs 6 --processes 1 2 3 --folder FOLDER/runs",
    ),
    "quick_start": Figure(
        "accuracy",
        "Quick start: mean IoU on test scenes",
        "{miou}",
        "{processor} of processor time on a CPU",
        r"mean IoU (?P<miou>\S+) on the test split",
        _QUICK,
        True,
    ),
    "camvid_pretrained": Figure(
        "accuracy",
        "CamVid, films not trained on, in turn: pretrained encoder",
        "mean IoU {pretrained}, {long}",
        "U-Net of version 0.2: {before}, {short}",
        r"pretrained encoder \|( \S+ \|){3} (?P<pretrained>\S+) \| (?P<long>[^|]+) \|"
        r".*version 0.2 \|( \S+ \|){3} (?P<before>\S+) \| (?P<short>[^|]+) \|",
        f"{_FILMS} 0 1 2 --recipes 'pretrained encoder' 'U-Net of version 0.2'",
        True,
    ),
    "camvid_scratch": Figure(
        "accuracy",
        "CamVid, one film not trained on: U-Net from scratch",
        "mean IoU {scratch}, {long}",
        "U-Net of version 0.2: {before}, {short}",
        r"scratch \| \S+ \| (?P<scratch>\S+) \| (?P<long>[^|]+) \|.*version 0.2 \| \S+ \| (?P<before>\S+) \| (?P<short>[^|]+) \|",
        f"{_FILMS} 1 --recipes 'U-Net from scratch' 'U-Net of version 0.2'",
    ),
    "isbi2012": Figure(
        "accuracy",
        "ISBI 2012 membranes, slices not trained on",
        "V_rand {rand}, V_info {info}",
        "trained in {time} of processor time",
        r"Trained in (?P<time>\S+ min).*V_rand (?P<rand>\S+) .*V_info (?P<info>\S+) ",
        _ISBI,
        True,
    ),
}
