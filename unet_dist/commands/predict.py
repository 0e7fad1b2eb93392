"""`unet-dist predict`: label maps and overlays of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from unet_dist.assembly.file_prediction import predict_files
from unet_dist.command_line.command import Command
from unet_dist.config.options import PredictOptions
from unet_dist.errors import ConfigError

COMMAND = Command(
    about="label images: write label maps and overlays",
    usage="RUN INPUT... --output DIR [--key value ...]",
    place=30,
    needs="a run's folder, a model folder or a hub id, or several joined by +",
    options="config.options:PredictOptions",
    starts_processes=True,
    uses_all_gpus=True,
)


def run(words: Sequence[str], options: PredictOptions) -> None:
    """Predict INPUT... with RUN."""
    if len(words) < 2:
        raise ConfigError(f"predict: got RUN {words[0]} and no INPUT, expected image files, folders or globs after it.")
    keys = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    if predict_files(words[0], words[1:], is_silent=False, **keys).unreadable:
        raise SystemExit(1)
