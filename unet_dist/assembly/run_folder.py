"""The files by which a run's folder describes the run.

Owns the name and the reading of its resolved config.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from unet_dist.config.sections import Config
from unet_dist.errors import CheckpointError

CONFIG_FILE, METRICS_FILE, SPLITS_FILE, DATA_FILE = "config.yaml", "metrics.jsonl", "splits.json", "data.json"


def read_run_config(folder: Path) -> Config:
    """The resolved config of a run."""
    try:
        values = yaml.safe_load((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        return Config.from_flat(values)
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: not readable: {error}") from None
