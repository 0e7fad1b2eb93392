"""Trackers over the life of a run: a run that is started again continues its curves.

Owns the name under which a tracker knows a run, the arguments of each at a start, and pictures for TensorBoard. Must not know
the figures' meaning.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unet_dist.errors import ConfigError, DataError
from unet_dist.storage.files import write_whole
from unet_dist.storage.typed import read_json

TRACKING_FILE = "tracking.json"


def tracking_id(folder: Path) -> str:
    """The name of a run for trackers that keep runs of many folders: made at its first start, then read from its folder."""
    path = folder / TRACKING_FILE
    try:
        known = read_json(path, dict[str, str]).get("id", "")
    except DataError:
        known = ""
    if known.isalnum():
        return known
    made = uuid.uuid4().hex[:12]
    write_whole(path, json.dumps({"id": made}).encode())
    return made


def tracker_settings(names: Sequence[str], folder: Path, step: int) -> dict[str, dict[str, object]]:
    """The arguments of each tracker at a start.

    Args:
        names: of trackers.
        folder: the run's.
        step: where the run resumes, 0 at first.

    Returns:
        By tracker the arguments of its start: W&B and trackio continue the run of this folder; TensorBoard forgets records
        after the step, as they are written again.
    """
    settings: dict[str, dict[str, object]] = {}
    if "tensorboard" in names and step > 0:
        settings["tensorboard"] = {"purge_step": step + 1}
    if "wandb" in names:
        settings["wandb"] = {"id": tracking_id(folder), "name": folder.resolve().name, "resume": "allow"}
    if "trackio" in names:
        settings["trackio"] = {"name": f"{folder.resolve().name}-{tracking_id(folder)}", "resume": "allow"}
    return settings


def show_pictures(folder: Path, pictures: Mapping[str, Path], step: int) -> None:
    """Put pictures beside a run's curves in TensorBoard; does nothing for a run without them.

    Args:
        folder: the run's.
        pictures: PNGs by the name that TensorBoard shows.
        step: of the network that made them.
    """
    curves = folder / "tensorboard"
    if not pictures or not curves.is_dir():
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # it was there when the run was trained
        return
    writer = SummaryWriter(str(curves))
    for name, path in pictures.items():
        with Image.open(path) as picture:
            writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")
    writer.close()


def refused_by(names: Sequence[str], error: Exception) -> ConfigError:
    """The sentence for a tracker that did not start: no key, no network, or a setting of its own."""
    own = type(error).__module__.partition(".")[0]
    name = own if own in names else ", ".join(names)
    said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    remedy = (
        "Run wandb login, or set WANDB_API_KEY, or WANDB_MODE=offline"
        if name == "wandb"
        else "Name output_path in UTF-8, and set LC_ALL=C.UTF-8 without PYTHONUTF8=0"
        if isinstance(error, UnicodeEncodeError)
        else f"Look at {name}'s settings"
    )
    return ConfigError(f"trackers: {name} did not start: {said}. {remedy}; or take it out of trackers.")
