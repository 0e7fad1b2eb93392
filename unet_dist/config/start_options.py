"""The options of a start: of a training, about the config itself, and about the processes. Knows nothing of torch or data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from unet_dist.config.quantities import EXPECTED_TIME, parse_time
from unet_dist.config.rules import Count, Main, OptionsSection, Reads, matching

DeviceWord = Annotated[str, matching(r"auto|cpu|cuda(:[0-9]{1,3})?", "auto, cpu, cuda or cuda:0")]


@dataclass(frozen=True, kw_only=True)
class TrainOptions(OptionsSection):
    """The start of a training"""

    dry_run: bool = False
    """Check the config and the data, write the decoded cache, print what the run needs, and stop."""
    time: Main[Annotated[str, Reads(parse_time, EXPECTED_TIME, "TIME")] | None] = None
    """Wall time of the training, such as 10min or 2h; starting and choosing come on top. With data_path alone, network and steps
    are chosen for it (see unet-dist configure). Default: 1h."""


@dataclass(frozen=True, kw_only=True)
class ConfigOptions(OptionsSection):
    """The config"""

    print_config: bool = False
    """Print every key with its value, as YAML that a run takes, and stop."""


@dataclass(frozen=True, kw_only=True)
class StartOptions(OptionsSection):
    """The processes"""

    processes: Count | None = None
    """Number of processes to start on this machine. Default: those of a launcher; else all GPUs (bench: one), or one process on
    a CPU."""
    device: DeviceWord = "auto"
    """auto is a GPU where there is one, else the CPU. cuda refuses to run without a GPU. cuda:1 is the second visible GPU."""
