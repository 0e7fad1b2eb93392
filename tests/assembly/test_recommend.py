"""Proves the rules that choose a config: what they give is a config, fits the memory, fills the time, and sees rare classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from unet_dist.assembly.planned import PlannedRun, plan_run
from unet_dist.assembly.recommend import Choice, Device, Fingerprint, as_yaml, classes, recommend
from unet_dist.config.chosen_keys import CHOSEN_KEYS
from unet_dist.config.options import PlanOptions
from unet_dist.config.sections import Config
from unet_dist.errors import ConfigError
from unet_dist.planner.fitting import usable_bytes
from unet_dist.planner.memory import OPTIMIZER
from unet_dist.planner.simulation import prediction_peak, training_peak
from unet_dist.terminal import Teller

CAMVID = Fingerprint(
    num_images=367, num_validation=101, image_shape=(360, 480), channels=3, num_classes=12, run_px=33, fine_px=15,
    shares=(0.175, 0.242, 0.0102, 0.33, 0.047, 0.101, 0.0122, 0.0117, 0.0611, 0.0067, 0.003),
)  # fmt: skip
CELLS = Fingerprint(
    num_images=20,
    num_validation=5,
    image_shape=(512, 512),
    channels=1,
    num_classes=2,
    run_px=24,
    fine_px=11,
    shares=(0.23, 0.77),
)
SCENES = Fingerprint(
    num_images=70, num_validation=20, image_shape=(1080, 1920), channels=3, num_classes=35, run_px=160, fine_px=43,
    shares=(0.7, 0.299, 0.001),
)  # fmt: skip
KINDS = {"camvid": CAMVID, "cells": CELLS, "scenes": SCENES}
DEVICES = {"core": Device("cpu", 8 * 2**30, 4e10), "GPU": Device("cuda", 24 * 2**30, 3e13)}


def values(data: Fingerprint, device: Device, time_s: float, encoder: str | None = None) -> dict[str, object]:
    return {key: choice.value for key, choice in recommend(data, device, time_s, encoder).items()}


def plan(data: Fingerprint, device: Device, chosen: dict[str, object]) -> PlannedRun:
    height, width = data.image_shape
    config = Config(**chosen, in_channels=data.channels, num_classes=data.num_classes)
    options = PlanOptions(image_size=f"{height}x{width}", device=device.kind)  # type: ignore[arg-type]
    return plan_run(config, options, Teller(speaks=False))


def peak_bytes(planned: PlannedRun) -> int:
    """Of training or of a validation beside the optimizer, whichever is more."""
    training = training_peak(planned.setting, planned.cut.micro_batch_size, planned.crop.window_shape)
    prediction = prediction_peak(planned.setting, planned.window_batch, planned.prediction_window)
    return max(training.total_bytes, prediction.total_bytes + training.parts[OPTIMIZER])


CASES = [
    pytest.param(
        data,
        device,
        encoder,
        id=f"{kind}-{name}-{encoder}",
        marks=pytest.mark.slow if data.channels == 3 and encoder else (),
    )
    for kind, data in KINDS.items()
    for name, device in DEVICES.items()
    for encoder in (None, "efficientnet_lite0")
    if data.channels == 3 or name == "core" or encoder is None  # one grey case shows that an encoder is left out
]


@pytest.mark.parametrize(("data", "device", "encoder"), CASES)
def test_every_kind_gets_a_config_that_fits(data: Fingerprint, device: Device, encoder: str | None) -> None:
    chosen = values(data, device, 3600, encoder)
    assert ("model" in chosen) == (encoder is not None and data.channels == 3)
    assert chosen["optimizer"] == ("muon" if data.channels == 3 else "adamw")
    config = Config(**chosen)
    assert chosen.keys() <= CHOSEN_KEYS | {"mixed_precision"}, "the help names them"
    assert chosen["mixed_precision"] == "auto"
    assert config.flat().items() >= chosen.items(), "nothing is read as something else"
    assert peak_bytes(plan(data, device, chosen)) <= usable_bytes(device.memory_bytes, device.kind)
    assert isinstance(config.schedule.input_size, int)


def test_what_is_known_here_is_found_again() -> None:
    """camvid_unet_best_cpu.yaml has 40 minutes of two cores, isbi2012_unet_cpu.yaml 11 minutes of one; both train with a halo."""
    camvid = values(CAMVID, Device("cpu", 8 * 2**30, 5e10), 2400)
    keys = ("stem_stride", "base_channels", "depth", "padding", "context_px", "input_size", "class_weights")
    assert [camvid[key] for key in keys] == [4, 32, 3, "same", 0, 256, "sqrt"]
    cells = values(CELLS, DEVICES["core"], 1800)
    keys = ("stem_stride", "base_channels", "depth", "class_weights", "augmentation")
    assert [cells[key] for key in keys] == [1, 16, 3, None, "paper"]


def test_small_objects_on_a_large_background_get_no_blocks() -> None:
    """The background alone would make the mean run long."""
    large = recommend(CAMVID, DEVICES["core"], 2400)["stem_stride"]
    assert large.value == 4
    assert "(33 px across in the mean, those of a fine class 15 px across)" in large.reason
    small = recommend(replace(CAMVID, run_px=200, fine_px=5.3), DEVICES["core"], 2400)["stem_stride"]
    assert small.value == 1
    assert small.reason.startswith("objects of a class are small (5 px across), and blocks of 4x4 px would make stairs")


@pytest.mark.slow
def test_colour_images_get_published_weights_where_they_are_installed() -> None:
    """As camvid_pretrained_cpu.yaml, a level less deep: a smaller halo, so quicker validations."""
    camvid = values(CAMVID, Device("cpu", 8 * 2**30, 5e10), 720, "efficientnet_lite0")
    keys = ("model", "depth", "base_channels", "padding", "input_size", "context_px", "batch_size", "learning_rate")
    assert [camvid[key] for key in keys] == ["unet:efficientnet_lite0", 4, 32, "same", 320, 0, 2, 0.0015]
    assert 1400 < camvid["total_steps"] < 1800  # type: ignore[operator]
    assert "model" not in values(replace(CAMVID, channels=4), DEVICES["core"], 720, "efficientnet_lite0")
    tight = values(CAMVID, replace(DEVICES["core"], memory_bytes=2**27), 720, "efficientnet_lite0")
    assert "model" not in tight, "where its step does not fit, a smaller network"


def test_steps_fill_the_time() -> None:
    short, long = (values(CAMVID, DEVICES["core"], time_s) for time_s in (1000, 2000))
    assert short["batch_size"] == long["batch_size"] == 1
    assert (short["base_channels"], short["depth"]) == (long["base_channels"], long["depth"])
    assert 1.9 < long["total_steps"] / short["total_steps"] < 2.2  # type: ignore[operator]
    assert values(CAMVID, DEVICES["core"], 1)["total_steps"] == 1, "too short a time still is a config"
    asked = recommend(CAMVID, DEVICES["core"], 1, None)["total_steps"].reason
    assert "too few to learn from, so give it more --time" in asked
    assert "too few" not in recommend(CAMVID, DEVICES["core"], 2000, None)["total_steps"].reason
    days = values(CAMVID, DEVICES["GPU"], 86400)
    assert days["batch_size"] == 16
    assert days["base_channels"] == 64


def test_a_class_of_a_thousandth_is_looked_for() -> None:
    def of(share: float, *, is_windowed: bool = False) -> tuple[object, object]:
        data = replace(CAMVID, shares=(1 - share, share), is_windowed=is_windowed)
        chosen = classes(data)
        return chosen["class_balance"].value, chosen["class_weights"].value

    assert of(0.001) == (0.3, None)
    assert of(0.01) == (0.0, "sqrt")
    assert of(0.3) == (0.0, None)
    assert of(0.001, is_windowed=True) == (0.0, "sqrt"), "train refuses to look through labels read by windows"


@pytest.mark.slow
def test_little_memory_cuts_the_step_and_none_is_refused() -> None:
    roomy = values(CELLS, DEVICES["core"], 50_000)
    need = peak_bytes(plan(CELLS, DEVICES["core"], roomy))
    device = replace(DEVICES["core"], memory_bytes=need // 3)
    chosen = values(CELLS, device, 50_000)
    assert chosen != roomy
    assert peak_bytes(plan(CELLS, device, chosen)) <= need // 3
    with pytest.raises(ConfigError, match=r"^memory: got 1\.0 MiB, which holds no step of the smallest network"):
        recommend(CELLS, replace(DEVICES["core"], memory_bytes=2**20), 3600)


def test_processes_share_batch_and_work() -> None:
    alone = recommend(CAMVID, DEVICES["GPU"], 3600)
    three = recommend(CAMVID, DEVICES["GPU"], 3600, processes=3)
    assert alone["batch_size"].value == 16
    assert three["batch_size"].value == 18
    assert three["base_channels"] == alone["base_channels"]
    crops, of_three = (chosen["total_steps"].value * chosen["batch_size"].value for chosen in (alone, three))
    assert of_three == pytest.approx(3 * crops, rel=0.01)


def test_each_line_has_its_reason() -> None:
    choices = {
        "label_map": Choice({"0-127": 0}, "as given"),
        "tile_size": Choice(None, "fits"),
        "loss": Choice("a: b #", "c"),
    }
    text = as_yaml(choices)
    assert [line.partition("  # ")[2] for line in text.splitlines()] == ["as given", "fits", "c"]
    assert yaml.safe_load(text) == {"label_map": {"0-127": 0}, "tile_size": None, "loss": "a: b #"}
