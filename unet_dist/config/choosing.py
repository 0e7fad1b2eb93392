"""The options of the commands that choose a config: configure, and the quick start on data of one's own.

Knows nothing of torch or data, nor how a config is chosen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

from unet_dist.config.decoding import Bytes
from unet_dist.config.quantities import EXPECTED_TIME, parse_bytes, parse_time
from unet_dist.config.rules import Count, Main, OptionsSection, PathWord, Reads
from unet_dist.config.sections import Config, DataConfig


@dataclass(frozen=True, kw_only=True)
class QuickstartOptions(OptionsSection):
    """The quick start"""

    time: Annotated[str, Reads(parse_time, EXPECTED_TIME, "TIME")] = "4min"
    """Wall time that a training on data of yours (data_path) is configured for, such as 10min or 2h."""


@dataclass(frozen=True, kw_only=True)
class ConfigureOptions(DataConfig):
    """The choice of a config"""

    memory: Main[Bytes | None] = None
    """Memory that a process may use, such as 24GiB. Default: 80 % of the free memory."""
    time: Main[Annotated[str, Reads(parse_time, EXPECTED_TIME, "TIME")]] = "1h"
    """Wall time of the training, such as 30min or 2h; its start comes on top."""
    processes: Main[Count] = 1
    """Number of processes that will train, one per GPU."""
    num_classes: Main[Count | None] = None
    """Number of classes. Default: as many as the masks hold."""
    output_path: Main[PathWord | None] = None
    """Folder of the run, written into the config. Default: output."""

    def memory_bytes(self) -> int | None:
        """The number of bytes of memory."""
        return None if self.memory is None else parse_bytes(self.memory)

    def seconds(self) -> float:
        """The time in seconds."""
        return parse_time(self.time)

    def asked(self) -> dict[str, object]:
        """The keys of a config that have another value than their default."""
        own = {"memory", "time", "processes"}
        named = [field for field in fields(self) if field.name not in own]
        return {field.name: getattr(self, field.name) for field in named if getattr(self, field.name) != field.default}


DATA_KEYS = frozenset(field.name for field in fields(ConfigureOptions)) - {"memory", "time", "processes"}
"""The keys of a config that name the data and the run's folder: `configure` takes them."""
_FREE_OF_CHOICE = frozenset(
    {
        "expected_processes",
        "collective_timeout_s",
        "num_workers",
        "seed",
        "resume",
        "time_limit_min",
        "checkpoint_steps",
    }
    | {"keep_checkpoints", "log_steps", "trackers"}
)


def words_of(values: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Spell keys and their values as the words of a command."""
    spelt = {key: value if isinstance(value := values[key], str) else json.dumps(value) for key in keys}
    return [word for key, value in spelt.items() for word in (f"--{key}", value)]


def leaves_the_choice(config: Config) -> bool:
    """Whether a config names data of the user's and nothing that the data and the device should decide."""
    is_own = config.data.data_path != DataConfig.data_path
    is_plain = config.run.resume in ("auto", "never") and not config.given - DATA_KEYS - _FREE_OF_CHOICE
    return is_own and is_plain and not config.given & {"class_balance", "augmentation"}
