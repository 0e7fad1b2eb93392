"""`unet-dist prepare`: read a data set, check every pair, write the decoded cache and describe it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import numpy as np
from rich.table import Table

from unet_dist.assembly.data_set import open_data
from unet_dist.command_line.command import Command
from unet_dist.config.choosing import DATA_KEYS, words_of
from unet_dist.config.sections import Config
from unet_dist.data.decoded.cache import Cache, CachedSplit
from unet_dist.data.decoded.classes import warn_of_one_class, warn_of_void
from unet_dist.data.decoded.likeness import find_twins_in
from unet_dist.data.sources.groups import SEQUENCE, groups_of, torn_groups
from unet_dist.imaging.reader import as_reader
from unet_dist.metrics.table import MOST_NAMES, MOST_ROWS, WORST
from unet_dist.processes.launcher import is_first
from unet_dist.report.figures import Pair, draw_pairs
from unet_dist.terminal import Teller
from unet_dist.wording import counted, listed, one_line, size

_MOST_TWINS, _MOST_PAIRS, _DRAWN_PX = 3, 6, 1024

COMMAND = Command(
    about="read a data set, check every pair, write the decoded cache and statistics",
    usage="[CONFIG.yaml] [--key value ...]",
    place=60,
    takes_config=True,
)


def run(config: Config) -> None:
    """Prepare the data set of a config, and draw some of its pairs."""
    teller = Teller(speaks=True)
    cache = check(config, teller)
    if is_first(os.environ):
        name = cache.path.name.rpartition("-")[0]  # the data set's, fit for a file: those of several stay
        _draw(cache, Path(config.run.output_path) / "figures" / f"pairs-{name}.png", teller)
        if next_step := _next_step(config):
            teller.say(next_step)


def _next_step(config: Config) -> str | None:
    """The command that trains on data that only its keys describe; None where a config file or other keys belong to it."""
    if "data_path" not in config.given or config.given - DATA_KEYS:
        return None
    values = config.flat()
    kept = sorted(config.given - {"output_path"}, key=lambda key: (key != "data_path", key))
    return f"Next: unet-dist train {shlex.join(words_of(values, kept))} --output_path RUN"


def check(config: Config, teller: Teller) -> Cache:
    """Decode and check a data set and describe it; on several processes one does it and the others wait for its lock."""
    cache = open_data(config, teller)
    cache.check_all()  # also of a cache that stood before: what changed on the disk since then is found here
    teller.say(f"{cache.name}: decoded cache in {cache.path}")
    num_bytes = sum(file.stat().st_size for file in cache.path.iterdir())
    kind = "" if cache.dtype == "uint8" else f" of {cache.dtype}"
    heights, widths = cache.table["heights"], cache.table["widths"]
    sides = f"{heights.min()}x{widths.min()}"
    if heights.min() < heights.max() or widths.min() < widths.max():
        sides += f" to {heights.max()}x{widths.max()}"
    teller.say(
        f"{counted(len(cache), 'image')} of {sides} px, {counted(cache.channels, 'channel')}{kind}, {size(num_bytes)}"
    )
    scale = " (of 255)" if cache.dtype == "uint8" else ""
    teller.say(f"mean {_numbers(cache.mean)}, deviation {_numbers(cache.std)} of the training split{scale}")
    if cache.has_nodata:
        teller.say("Some pixels have no data: they count in no statistic and no loss.")
    teller.table(histogram_table(cache))
    for line in filter(None, (warn_of_void(cache), warn_of_one_class(cache))):
        teller.say(line)
    for line in describe_leaks(cache):
        teller.say(line)
    return cache


def _draw(cache: Cache, path: Path, teller: Teller) -> None:
    """Show some pairs, spread over all samples; without a folder to write into there is none."""
    samples = cache.split("all")
    number = min(_MOST_PAIRS, len(samples))
    chosen = [round(place * (len(samples) - 1) / max(1, number - 1)) for place in range(number)]
    try:
        draw_pairs(path, [_middle_of(samples, index) for index in chosen], cache.class_names)
    except OSError as error:
        teller.say(f"No picture of pairs: cannot write {path} ({error.strerror}). Set --output_path DIR.")
    else:
        teller.say(f"Look at {path}: {counted(number, 'pair')} of image and label")


def _middle_of(samples: CachedSplit, index: int) -> Pair:
    """The middle of a pair, as far as it can be looked at."""
    image, label = as_reader(samples.image(index)), samples.label(index)
    spans = []
    for side in image.shape[:2]:
        start = max(side - _DRAWN_PX, 0) // 2
        spans += [start, min(start + _DRAWN_PX, side)]
    top, bottom, left, right = spans
    return Pair(image.read(*spans), np.asarray(label[top:bottom, left:right]), samples.ids[index])


def describe_leaks(cache: Cache) -> list[str]:
    """Say in sentences where the splits know each other: films that are torn, and images that look alike."""
    lines = []
    groups = groups_of(cache.ids, cache.grouping.group_by or SEQUENCE)
    torn = torn_groups(groups, cache.splits)
    if torn and len(set(groups)) > 1:
        lines.append(
            f"{len(torn)} of {len(set(groups))} sequences of names, such as {torn[0]}..., lie in more than one split. If they are "
            "frames of one film, scores of them are too good: set --group_by sequence, with --folds where the data have splits."
        )
    twins = find_twins_in(cache)
    if twins:
        shown = "; ".join(f"{t.first} ({t.first_split}) and {t.second} ({t.second_split})" for t in twins[:_MOST_TWINS])
        more = f"; and {len(twins) - _MOST_TWINS} more" if len(twins) > _MOST_TWINS else ""
        alike = f"{counted(len(twins), 'pair')} of images in two splits look alike: {shown}{more}."
        lines.append(f"{alike} If they show the same, scores are too good.")
    return lines


def histogram_table(cache: Cache) -> Table:
    """Pixels of each class by split: class, then one column of shares per split."""
    splits = {name: cache.split(name).class_shares for name in cache.splits}
    table = Table(
        title="share of the valid pixels", title_justify="left", caption_justify="left", show_edge=False, pad_edge=False
    )
    table.add_column("class")
    for name, positions in cache.splits.items():
        table.add_column(f"{name} ({len(positions)})", justify="right")
    absent = [
        index
        for index in range(len(cache.class_names))
        if index != cache.ignore_index and not any(shares[index] for shares in splits.values())
    ]
    left_out = {cache.ignore_index, *absent}
    shown = [index for index in range(len(cache.class_names)) if index not in left_out]
    if len(shown) > MOST_ROWS:
        table.title = f"share of the valid pixels, the {WORST} rarest of {len(shown)} classes"
        shown = sorted(shown, key=lambda index: sum(shares[index] for shares in splits.values()))[:WORST]
    for index in shown:
        table.add_row(
            one_line(cache.class_names[index]),
            *(f"{shares[index]:.2%}" if shares[index] else "-" for shares in splits.values()),
        )
    if absent:
        names = [one_line(cache.class_names[index]) for index in absent]
        table.caption = f"Without a pixel: {listed(names, MOST_NAMES)}."
    return table


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" if abs(value) >= 1 or value == 0 else f"{value:.3g}" for value in values)
