"""`unet-dist quickstart`: from nothing to a trained network and its pictures, in a few minutes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
import yaml
from PIL import Image

from unet_dist.command_line.command import Command
from unet_dist.commands.configure import choose
from unet_dist.config.choosing import QuickstartOptions
from unet_dist.config.quantities import parse_shape
from unet_dist.config.sections import Config, DataConfig, ModelConfig
from unet_dist.errors import LaunchError, UnetDistError
from unet_dist.machine.cores import num_cores
from unet_dist.processes.starting import share_evenly
from unet_dist.scenes.synthetic import SyntheticScenes
from unet_dist.storage.files import require_writable
from unet_dist.terminal import Teller
from unet_dist.wording import counted, duration, hanging

COMMAND = Command(
    about="train, evaluate and predict on street scenes (or your data) in minutes, and show the result",
    usage="[CONFIG.yaml] [--data_path DIR] [--key value ...]",
    place=5,
    takes_config=True,
    default_config="synthetic_unet_quickstart.yaml",
    options="config.choosing:QuickstartOptions",
)
_SCENES_SEED = 572
"""The scenes of data_path synthetic have seed 0: these were seen by no run."""
_NUM_SCENES = 3
_NETWORK_KEYS = {field.name for field in fields(ModelConfig)} - {"in_channels", "num_classes"}
"""Whoever gives one of these has a config of their own; else one is chosen for own data."""


class StepError(UnetDistError):
    """A step ended; its own lines say why."""


def run(config: Config, options: QuickstartOptions) -> None:
    """Configure for own data, train, evaluate, predict and report."""
    if "RANK" in os.environ:
        raise LaunchError(
            "quickstart: got a launcher's process, expected none: it starts its own. Leave the launcher out."
        )
    require_writable(Path(config.run.output_path), "output_path")
    started = time.monotonic()
    gpus, folder = torch.cuda.device_count(), Path(config.run.output_path)
    is_synthetic = config.data.data_path == DataConfig.data_path
    if not is_synthetic and not _NETWORK_KEYS & config.given:
        _title(f"configure: a network and a course for {config.data.data_path}")
        config = choose(config, time=options.time, processes=max(gpus, 1))
    several = share_evenly(config.schedule.batch_size, gpus or min(num_cores(), 2))
    words = ["--processes", str(several)] if several > 1 else []
    place = counted(gpus, "GPU") if gpus else counted(num_cores(), "CPU core")
    with tempfile.TemporaryDirectory(prefix="unet-dist-") as scratch:
        file = Path(scratch) / "config.yaml"
        file.write_text(yaml.safe_dump(config.flat(), sort_keys=False), encoding="utf-8")
        _step(f"train: {counted(several, 'process', 'es')} on {place}", ["train", str(file), *words])
    _step("evaluate: the test split, by overlap-tile", ["evaluate", str(folder), "--split", "test", *words])
    if is_synthetic:
        _draw(folder / "scenes", parse_shape(config.data.synthetic_size))
        output = ["--output", str(folder / "predictions")]
        _step(
            "predict: scenes that the run has not seen",
            ["predict", str(folder), str(folder / "scenes"), *output, *words],
        )
    _step("report", ["report", str(folder)])
    _conclude(config, time.monotonic() - started, several)


def _title(title: str) -> None:
    print(f"\n== {hanging(title)}", flush=True)


def _say(text: str) -> None:
    """Print a line that holds names: of a name, no further line begins at the edge, nor does a terminal obey it."""
    print(hanging(text))


def _step(title: str, words: Sequence[str]) -> None:
    """Run a command of ours in processes of its own.

    Raises:
        StepError: it failed.
    """
    _title(title)
    done = subprocess.run([sys.executable, "-m", "unet_dist", *words], check=False)
    if done.returncode:
        raise StepError(
            f"{words[0]} ended with exit code {done.returncode}; its lines above say why. The same command again resumes."
        )


def _draw(folder: Path, shape: tuple[int, int]) -> None:
    """Write pictures of scenes that no run has seen."""
    scenes = SyntheticScenes(_NUM_SCENES, *shape, seed=_SCENES_SEED)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(_NUM_SCENES):
        Image.fromarray(scenes.render(index)[0]).save(folder / f"scene-{index}.png")


def _conclude(config: Config, seconds: float, several: int) -> None:
    """Print where the files are, the next commands for this machine, and a picture."""
    folder, is_synthetic = Path(config.run.output_path), config.data.data_path == DataConfig.data_path
    miou = json.loads((folder / "evaluation-test.json").read_text(encoding="utf-8"))["miou"]
    named, more = shlex.quote(str(folder)), f" --processes {several}" if several > 1 else ""
    _title(f"Done in {duration(seconds)}. In {folder}:")
    _say(
        f'  best/          the network (mean IoU {miou:.3f} on the test split): unet_dist.load_model("{folder / "best"}")'
    )
    print("  report.html    curves, IoU by class, confusion matrix and pictures, on one page: open it in a browser")
    print("  figures/       image, label and prediction side by side")
    if is_synthetic:
        print("  predictions/   label maps and overlays of three scenes it had not seen")
    print("  metrics.jsonl  loss, learning rate and mean IoU by step; tensorboard/ has them as curves")
    print("\nType next:")
    _say(f"  unet-dist predict {named} YOUR.jpg --output out")
    if is_synthetic:
        print("  unet-dist quickstart --data_path YOUR_FOLDER --output_path runs/mine")
    else:
        _say(
            f"  unet-dist configure {shlex.quote(config.data.data_path)} --time 2h --output_path runs/longer > longer.yaml"
        )
        print(f"  unet-dist train longer.yaml{more}")
    pictures = (
        [folder / "predictions" / "scene-0_overlay.png"] if is_synthetic else sorted(folder.glob("figures/test-*"))
    )
    if pictures:
        if pictures[0].is_file():
            Teller(speaks=True).picture(pictures[0])
        _say(f"\nA picture: {pictures[0]}")
