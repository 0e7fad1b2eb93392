"""What the user may say to the commands that work on a finished run.

Owns the options of every command but train and prepare, whose keys are in config.py. Knows nothing of torch or data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unet_dist.config import Precision
from unet_dist.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class InferenceOptions:
    """How windows are computed"""

    tile_size: int | None = None
    """Side of the input window, px; the result does not depend on it. By default the run's."""
    window_batch: int = 4
    """Windows that a process computes at once."""
    mixed_precision: Precision = "auto"
    """auto is bf16 where the device is fast at it, else no; what accelerate launch says is honoured."""
    expected_processes: int | None = None
    """Refuse to start on another number of processes; a launch script states it."""
    collective_timeout_s: float = 1800.0
    """Seconds after which a process that waits for another ends the command."""

    def __post_init__(self) -> None:
        for key in ("tile_size", "window_batch", "expected_processes"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"{key}: got {value}, expected 1 or more. Change --{key}.")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(InferenceOptions):
    """Evaluation of a run or a model folder"""

    split: Literal["train", "validation", "test", "all"] = "test"
    """Part of the data set to evaluate on."""
    data_path: str | None = None
    """Another data set than the run's own."""
    ignore_index: int | None = None
    """Class id that counts nowhere; by default the model's."""
    label_map: dict[str, int] | None = None
    """Colour or id of a mask -> class id; by default the run's."""
    cache_path: str | None = None
    """Folder of the decoded caches; by default the run's."""
    output_path: str | None = None
    """Folder for evaluation-SPLIT.json; by default the run's."""
    seed: int | None = None
    """Seed of the split of another data set; by default the run's."""
    pictures: int = 4
    """Images whose label and prediction are drawn side by side, 0 or more."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions(InferenceOptions):
    """Prediction of images"""

    output: str = "predictions"
    """Folder for NAME.png (label map) and NAME_overlay.png."""
    overlay: bool = True
    """Write the overlays too."""
    max_pixels: int = 500_000_000
    """Refuse an ordinary image (PNG, JPEG, WebP) of more pixels: it is decoded whole."""
