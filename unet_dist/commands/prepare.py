"""`unet-dist prepare`: read a data set, check every pair, write the decoded cache and say what is in it."""

from __future__ import annotations

from rich.table import Table

from unet_dist.assembly.data_set import open_data
from unet_dist.command_line.command import Command
from unet_dist.config.sections import Config
from unet_dist.data.decoded.cache import Cache
from unet_dist.terminal import Teller
from unet_dist.wording import printable, size

COMMAND = Command(
    about="read a data set, check every pair, write the decoded cache and its statistics",
    usage="[CONFIG.yaml] [--key value ...]",
    place=60,
    takes_config=True,
    begins="assembly.data_set:begin_drawing",
)


def run(config: Config) -> None:
    """Prepare the data set of a config; on several processes one does it and the others wait for its lock."""
    teller = Teller(speaks=True)
    cache = open_data(config, teller)
    teller.say(f"{cache.name}: decoded cache in {cache.path}")
    num_bytes = sum(file.stat().st_size for file in cache.path.iterdir())
    heights, widths = cache.table["heights"], cache.table["widths"]
    teller.say(
        f"{len(cache)} images of {heights.min()}x{widths.min()} to {heights.max()}x{widths.max()} px, "
        f"{cache.channels} channel(s), {size(num_bytes)}"
    )
    teller.say(f"mean {_numbers(cache.mean)}, deviation {_numbers(cache.std)} of the training split (of 255)")
    teller.table(histogram_table(cache))


def histogram_table(cache: Cache) -> Table:
    """Pixels of each class by split: class, then one column of shares a split."""
    splits = {name: cache.split(name).class_counts for name in cache.splits}
    table = Table(
        title="share of the valid pixels", title_justify="left", caption_justify="left", show_edge=False, pad_edge=False
    )
    table.add_column("class")
    for name, positions in cache.splits.items():
        table.add_column(f"{name} ({len(positions)})", justify="right")
    absent = [
        index
        for index in range(len(cache.class_names))
        if index != cache.ignore_index and not any(counts[index] for counts in splits.values())
    ]
    for index, name in enumerate(cache.class_names):
        if index == cache.ignore_index or index in absent:
            continue
        shares = [counts[index] / max(1, counts.sum()) for counts in splits.values()]
        table.add_row(printable(name), *(f"{share:.2%}" if share else "-" for share in shares))
    if absent:
        table.caption = f"Without a pixel: {', '.join(printable(cache.class_names[index]) for index in absent)}."
    return table


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)
