"""The files by which a run's folder describes the run.

Owns the name and the reading of its resolved config.
"""

from __future__ import annotations

from pathlib import Path

from unet_dist.config.sections import Config
from unet_dist.errors import CheckpointError
from unet_dist.storage.typed import read_yaml

CONFIG_FILE, METRICS_FILE, SPLITS_FILE, DATA_FILE = "config.yaml", "metrics.jsonl", "splits.json", "data.json"


def read_run_config(folder: Path) -> Config:
    """The resolved config of a run."""
    values = read_yaml(folder / CONFIG_FILE, dict[str, object], error=CheckpointError)
    try:
        return Config.from_flat(values)
    except TypeError as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: not readable: {error}") from None
