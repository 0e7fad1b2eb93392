"""The options of the commands that choose a config: configure, and the quick start on data of one's own.

Knows nothing of torch or data, nor how a config is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from unet_dist.config.options import Bytes, NotNegativeInt
from unet_dist.config.quantities import EXPECTED_TIME, parse_bytes, parse_time
from unet_dist.config.rules import Count, OptionsSection, PathWord, Reads


@dataclass(frozen=True, kw_only=True)
class QuickstartOptions(OptionsSection):
    """The quick start"""

    time: Annotated[str, Reads(parse_time, EXPECTED_TIME, "TIME")] = "4min"
    """Wall time that a training on data of yours (data_path) is configured for, such as 10min or 2h."""


@dataclass(frozen=True, kw_only=True)
class ConfigureOptions(OptionsSection):
    """The choice of a config"""

    memory: Bytes | None = None
    """Memory that a process may use, such as 24GiB. Default: 80 % of the free memory."""
    time: Annotated[str, Reads(parse_time, EXPECTED_TIME, "TIME")] = "1h"
    """Wall time of the run on one process, such as 30min or 2h."""
    num_classes: Count | None = None
    """Number of classes. Default: as many as the masks hold."""
    ignore_index: NotNegativeInt | None = None
    """Class id to ignore. Default: none."""
    label_map: dict[str, int] | None = None
    """Colour or id of a mask -> class id."""
    images_folder: str | None = None
    """Folder of the images below the data set, as train takes it."""
    masks_folder: str | None = None
    """Folder of the masks, likewise."""
    image_names: str | None = None
    """Names of images, where * is the part that they share with their masks, as train takes it."""
    mask_names: str | None = None
    """Names of masks, likewise."""
    value_range: str | None = None
    """LOW,HIGH: the values that become black and white, as train takes it."""
    group_by: str | None = None
    """Keep samples together on one side of a split, as in train: a regular expression, or sequence."""
    cache_path: PathWord | None = None
    """Folder of the decoded caches. Default: unet_dist in the user's cache folder."""
    output_path: PathWord | None = None
    """Folder of the run, written into the config. Default: output."""

    def memory_bytes(self) -> int | None:
        """The number of bytes of memory."""
        return None if self.memory is None else parse_bytes(self.memory)

    def seconds(self) -> float:
        """The time in seconds."""
        return parse_time(self.time)
