"""From what data are like and what a device can do to a config, with a reason at each value.

Owns the rules, as pure functions of a `Fingerprint` and a `Device`: each names the measurement that it comes from
(docs/evidence), or is marked as an assumption. Must not read data, and must not measure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import yaml

from unet_dist.assembly.network import build_skeleton
from unet_dist.assembly.planned import PlannedRun, plan_run
from unet_dist.assembly.sizes import training_halo
from unet_dist.config.options import PlanOptions
from unet_dist.config.sections import Config
from unet_dist.errors import ConfigError
from unet_dist.planner.fitting import (
    largest_micro_batch,
    largest_side,
    operations,
    prediction_bytes,
    training_bytes,
    training_parts,
    usable_bytes,
)
from unet_dist.planner.memory import OPTIMIZER
from unet_dist.terminal import Teller
from unet_dist.tiling.geometry import smallest_tile_size
from unet_dist.wording import counted, duration, size

# Blocks of 4x4 px lead by 2.5 points on CamVid (experiments.md), where a run of one class has 33 px, and serve the quick start's
# scenes; the membranes of ISBI 2012 (24 px) are trained without. assumption: the limit lies between.
_STEM_STRIDE, _LONG_RUN_PX = 4, 28
# A large background lengthens the mean run, however small the objects on it are. Three blocks across: a quarter of CamVid's classes
# are finer than 15 px (the bicyclists), ISBI's membranes have 11. assumption: the limit lies between.
_FINE_RUN_PX = 3 * _STEM_STRIDE
# (base_channels, depth), the largest first, by whether there are blocks. 32 and 3 are camvid_unet_best_cpu.yaml, 32 and 2 the quick
# start, 16 and 3 isbi2012_unet_cpu.yaml, 64 and 4 the reference run; the last of each and 64 on blocks are assumptions.
_NETWORKS = {True: ((64, 3), (32, 3), (32, 2), (16, 2)), False: ((64, 4), (32, 3), (16, 3), (16, 2))}
# On an encoder with published weights, which led by 8 points and more on a film not seen (experiments.md):
# camvid_pretrained_cpu.yaml, whose crops of 320 px are 0.6 of an image. assumption: that this is so for every kind of colour image.
_ENCODER = {"depth": 4, "base_channels": 32}
_ENCODER_SHARE, _ENCODER_OUTPUT_PX, _ENCODER_BATCH = 0.6, 320, 2
# Crops that a network of so many channels wants: the reference run has 96,000. 1,500 taught CamVid's in the ablation, ISBI's had
# 1,800. assumption: half of the former, and as many without blocks.
_WANTED_CROPS = {64: 50_000, 32: 1_500, 16: 500}
# "Steps count for most": twice the crops per step lost 1.1 points at equal work (experiments.md). The longest run there has so many
# steps of one crop; only further crops make the batch larger.
_ENOUGH_STEPS, _LARGEST_BATCH = 10_000, 16
# Crops of a third of an image led by 11.8 points over whole ones at equal work (experiments.md); 388 px is the paper's output.
_SHARE_OF_IMAGE, _LARGEST_OUTPUT_PX = 1 / 3, 388
# The square root joins CamVid's 0.0015 at batch 1 to the quick start's 0.003 at 4; ISBI's 0.002 at 2 lies between. At batch 1 0.003
# diverged (experiments.md). assumption: a third of it from 64 channels on.
_RATE, _HIGHEST_RATE = 0.0015, 0.003
# The quick start and CamVid's recipe average so; over longer runs (assumption) ten times as many steps.
_AVERAGE, _LONG_AVERAGE, _LONG_STEPS = 0.99, 0.999, 20_000
# 0.01 % of the pixels is learnt by balanced crops only (tests/commands/test_class_balance.py); CamVid's rarest, 0.3 %, by weights.
# assumption: the limits, and the share of the crops.
_RARE, _SCARCE, _BALANCE = 0.002, 0.02, 0.3
# assumption: how often an image must be seen before light and colour, or scale and rotation too, tell it something new.
_SEEN_COLOUR, _SEEN_STRONG = 30, 100
# assumption: seconds that a run takes to start and to write, share of its time kept back, and what validations may take of it.
_START_S, _SPARE, _VALIDATING, _MOST_EVALS = 10.0, 0.05, 0.1, 10


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What decides of a data set.

    Attributes:
        num_images, num_validation: of the training and the validation split.
        image_shape: height and width of the usual image, px.
        shares: of the classes that occur in the training split, of its valid pixels, 0 to 1.
        run_px: mean length of a run of one class along rows and columns, px: how large regions are.
        fine_px: the same of a fine class, the background left out: how large small objects are.
        is_windowed: some images are read by windows from their files.
    """

    num_images: int
    num_validation: int
    image_shape: tuple[int, int]
    channels: int
    num_classes: int
    shares: tuple[float, ...]
    run_px: float
    fine_px: float
    is_windowed: bool = False


@dataclass(frozen=True)
class Device:
    """What a process has: its kind (cuda or cpu), its memory, and the operations per second of training steps, data included."""

    kind: str
    memory_bytes: int
    flops_per_s: float


class Choice(NamedTuple):
    """A value and the reason for it, in a line."""

    value: Any
    reason: str


# The quick start reached 0.76 after 1,400 steps with all of a window counted, 0.60 after 2,000 with a sixteenth (experiments.md).
_PADDED = {
    "padding": Choice("same", "zeros around a window, so that all of it counts"),
    "context_px": Choice(0, "all of a window counts: more is learnt per step, for worse borders"),
}


def recommend(
    data: Fingerprint, device: Device, time_s: float, encoder: str | None = None, *, processes: int = 1
) -> dict[str, Choice]:
    """Choose the keys of a run that fills a time.

    Args:
        device: what each of the processes has.
        encoder: name of one whose published weights are at hand; for colour images.
        processes: that share each batch, one per device; they divide its size.

    Raises:
        ConfigError: the memory holds no network of ours.
    """
    networks = _networks(data, encoder)
    for network, wanted in networks:
        network |= {"input_size": _input_size(data, network)}  # here, as it builds the network
        planned = _plan(data, device, network | {"batch_size": Choice(1, "")})
        fitting = _fitting(planned, device)
        crop_s = (
            len(planned.crop)
            * operations(planned.setting, planned.crop.window_shape, is_training=True)
            / device.flops_per_s
        )
        eval_s = _evaluation_flops(planned, data) / device.flops_per_s
        evals = max(1, min(_MOST_EVALS, int(_VALIDATING * time_s / max(eval_s, 1e-9))))
        left_s = max((1 - _SPARE) * time_s - _START_S - evals * eval_s, crop_s)
        crops = int(processes * left_s / crop_s)
        if fitting is None or ("context_px" in network and fitting[1] is not None):
            continue  # context_px and tiles exclude each other
        if crops >= wanted or network is networks[-1][0]:
            break
    else:
        smallest = networks[-1][0]["base_channels"].value
        raise ConfigError(
            f"memory: got {size(device.memory_bytes)}, which holds no step of the smallest network here ({smallest} channels). "
            "Free some, or set --memory higher."
        )
    reason = f"{wanted:,} crops or more fit the time" if wanted and crops >= wanted else "the smallest: time is short"
    if "model" not in network:
        network = network | {"base_channels": Choice(network["base_channels"].value, reason)}
    chosen = network | _course(data, crops, crop_s, evals, eval_s, network, processes)
    chosen |= classes(data) | _augmentation(data, chosen)
    chosen["mixed_precision"] = Choice("auto", "bf16 where the device is fast at it")
    share = Choice(chosen["batch_size"].value // processes, "")
    return chosen | _cut(_plan(data, device, chosen | {"batch_size": share}), device)


def as_yaml(choices: Mapping[str, Choice]) -> str:
    """One line per key, the reason behind it."""
    lines = []
    for key, (value, reason) in choices.items():
        word = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
        lines.append(f"{key}: {word.removesuffix('...' + chr(10)).strip()}  # {reason}")
    return "\n".join(lines) + "\n"


def _stem_stride(data: Fingerprint) -> Choice:
    mean, fine = f"{data.run_px:.0f} px across in the mean", f"{data.fine_px:.0f} px across"
    if data.run_px < _LONG_RUN_PX:
        return Choice(1, f"regions of one class are small ({mean}), and blocks of pixels would blur them")
    if data.fine_px < _FINE_RUN_PX:
        return Choice(
            1, f"objects of a class are small ({fine}), and blocks of 4x4 px would make stairs of their outlines"
        )
    reason = (
        f"regions of one class are large ({mean}, those of a fine class {fine}): blocks of 4x4 px see four times as far"
    )
    return Choice(_STEM_STRIDE, reason)


def _networks(data: Fingerprint, encoder: str | None) -> list[tuple[dict[str, Choice], int]]:
    """The networks to choose from, the most wanted first, each with the crops that it wants: 0 where it needs none to be taken.

    Those whose windows have a halo, and so train by tiles too, are for a memory that holds no padded crop of the others.
    """
    norm = Choice("weight", "3.5 points over none on CamVid; keeps tiles exact")
    networks = []
    if encoder is not None and data.channels == 3:
        chosen = {
            "model": Choice(f"unet:{encoder}", "colour images, and its ImageNet weights are installed"),
            "norm": norm,
            "padding": Choice("same", "as the encoder was trained; exact tiles trim the border"),
            "context_px": Choice(0, "context of a whole halo would make a training window several times the crop"),
            "encoder_learning_rate_factor": Choice(0.3, "keeps more of what ImageNet taught"),
        }
        chosen |= {key: Choice(value, "as measured with this encoder") for key, value in _ENCODER.items()}
        networks.append((chosen, 0))
    stem = _stem_stride(data)
    ladder = _NETWORKS[stem.value > 1]
    for padding, (width, depth) in product((_PADDED, {}), ladder):
        chosen = {
            "stem_stride": stem,
            "norm": norm,
            **padding,
            "base_channels": Choice(width, ""),
            "depth": Choice(depth, "goes with this width in the runs measured"),
        }
        networks.append((chosen, 0 if padding and (width, depth) == ladder[-1] else _WANTED_CROPS[width]))
    return networks


def _input_size(data: Fingerprint, chosen: Mapping[str, Choice]) -> Choice:
    has_encoder = "model" in chosen
    share = _ENCODER_SHARE if has_encoder else _SHARE_OF_IMAGE
    largest_px = _ENCODER_OUTPUT_PX if has_encoder else _LARGEST_OUTPUT_PX
    config = Config(**{key: choice.value for key, choice in chosen.items()})
    model = build_skeleton(config)
    context = config.schedule.context_px
    sizes, shape = model.window_sizes, data.image_shape
    halo = training_halo(model) if context is None else context
    output = min(math.sqrt(shape[0] * shape[1] * share), largest_px)
    assert model.locality is not None
    side = sizes.round_up(int(output) + 2 * halo)
    if context is None:
        side = max(side, smallest_tile_size(sizes, model.locality))
    margin = f" and {halo} px of context on each side" if halo else ""
    told = f"crops of {side - 2 * halo} px{margin} from images of {shape[0]}x{shape[1]} px: many small crops beat whole images"
    return Choice(side, told)


def _plan(data: Fingerprint, device: Device, chosen: Mapping[str, Choice]) -> PlannedRun:
    """Plan a config without its data: their shape, channels and classes are known."""
    values = {key: choice.value for key, choice in chosen.items()}
    config = Config(**values, in_channels=data.channels, num_classes=data.num_classes)
    height, width = data.image_shape
    options = PlanOptions(image_size=f"{height}x{width}", device="cuda" if device.kind == "cuda" else "cpu")
    return plan_run(config, options, Teller(speaks=False))


def _fitting(planned: PlannedRun, device: Device) -> tuple[int | None, int | None] | None:
    """Micro-batch and tile size that fit a memory, each None where it need not be set; None where none does."""
    setting, window, cut = planned.setting, planned.crop.window_shape, planned.cut
    usable = usable_bytes(device.memory_bytes, device.kind)
    training = training_parts(setting, cut.micro_batch_size, window)
    prediction = prediction_bytes(setting, planned.window_batch, planned.prediction_window)
    if max(training.total_bytes, prediction + training.parts[OPTIMIZER]) <= usable:
        return None, None
    alone = replace(setting, keeps_gradients=True)
    micro = largest_micro_batch(alone, device.memory_bytes, planned.share, window)
    if micro is not None and prediction + training.parts[OPTIMIZER] <= usable:
        return micro, None

    def need(side: int) -> int:
        predicted = prediction_bytes(setting, planned.config.run.window_batch, (side, side)) + training.parts[OPTIMIZER]
        return max(training_bytes(alone, 1, (side, side)), predicted)

    # assumption: a 20th for the tiles read ahead, which overlap and so are more pixels than the crops that were planned.
    tile = largest_side(setting, device.memory_bytes * 19 // 20, need, start=max(window))
    return None if tile is None else (1, tile)


def _evaluation_flops(planned: PlannedRun, data: Fingerprint) -> float:
    assert planned.tiles is not None
    return (
        data.num_validation
        * len(planned.tiles)
        * operations(planned.setting, planned.tiles.window_shape, is_training=False)
    )


def _course(
    data: Fingerprint,
    crops: int,
    crop_s: float,
    evals: int,
    eval_s: float,
    network: Mapping[str, Choice],
    processes: int,
) -> dict[str, Choice]:
    """Batch, steps, learning rate and its course."""
    least = _ENCODER_BATCH if "model" in network else 1
    batch = _LARGEST_BATCH
    while batch > least and crops // batch < _ENOUGH_STEPS:
        batch //= 2
    batch = math.ceil(batch / processes) * processes
    told = f"steps count for most: more crops per step only beyond {_ENOUGH_STEPS:,} steps"
    if processes > 1:
        told += f"; a multiple of {processes} processes"
    steps = max(1, crops // batch)
    evals = min(evals, steps)
    rate = min(_RATE * math.sqrt(batch / least), _HIGHEST_RATE) / (3 if network["base_channels"].value >= 64 else 1)
    seen = steps * batch / max(data.num_images, 1)
    few = "; too few to learn from, so give it more --time" if seen < 1 else ""
    average = _AVERAGE if steps < _LONG_STEPS else _LONG_AVERAGE
    return {
        "batch_size": Choice(batch, told),
        "total_steps": Choice(
            steps,
            f"fills the time at {crop_s * batch / processes:.3g} s per step; an image is seen {seen:.1f} times{few}",
        ),
        "eval_steps": Choice(
            math.ceil(steps / evals), f"{counted(evals, 'validation')} of about {duration(eval_s)} each"
        ),
        "optimizer": _optimizer(data),
        "learning_rate": Choice(round(rate, 6), f"0.0015 at batch {least} by the root of the batch, 0.003 at most"),
        "schedule": Choice("onecycle", "as in all runs measured"),
        "warmup_fraction": Choice(0.2, "as in the best CamVid recipe"),
        "max_grad_norm": Choice(1.0, "without it, training on CamVid diverged"),
        "ema_decay": Choice(average, f"averages about the last {min(round(1 / (1 - average)), steps):,} steps"),
    }


def _optimizer(data: Fingerprint) -> Choice:
    """Choose Muon where it was ahead of AdamW at equal steps: on colour images, from published weights or not (experiments.md)."""
    if data.channels != 3:
        return Choice("adamw", "muon was measured on colour images only")
    return Choice("muon", "it learns more per step than adamw")


def classes(data: Fingerprint) -> dict[str, Choice]:
    """Choose the keys that help rare classes."""
    rarest, even = min(data.shares, default=1.0), 1 / max(len(data.shares), 1)
    told = f"the rarest class has {rarest:.2%} of the pixels"
    is_rare, is_scarce = rarest <= _RARE and not data.is_windowed, rarest < min(_SCARCE, even / 4)
    weights = "sqrt" if is_scarce and not is_rare else None
    return {
        "class_balance": Choice(_BALANCE if is_rare else 0.0, told + (": crops look for it" if is_rare else "")),
        "loss": Choice("cross_entropy", "as in all runs measured"),
        "class_weights": Choice(weights, told + (", so it weighs more" if weights else "; crops do it" * is_rare)),
    }


def _augmentation(data: Fingerprint, chosen: Mapping[str, Choice]) -> dict[str, Choice]:
    seen = chosen["total_steps"].value * chosen["batch_size"].value / max(data.num_images, 1)
    told = f"an image is seen {seen:.0f} times"
    if "model" in chosen:
        return {"augmentation": Choice("street", "as measured with this encoder: colour, scale and blur")}
    if data.channels == 1:
        return {"augmentation": Choice("paper", "grey images: the U-Net paper's rotations and elastic deformations")}
    if seen < _SEEN_COLOUR or data.channels != 3:
        return {
            "augmentation": Choice(
                None, told + ": flips suffice" if data.channels == 3 else "no pipeline for such channels"
            )
        }
    if seen < _SEEN_STRONG:
        return {"augmentation": Choice("colour", told)}
    return {"augmentation": Choice("strong", told + ": colour, scale, rotation, blur and noise")}


def _cut(planned: PlannedRun, device: Device) -> dict[str, Choice]:
    """How memory is kept: micro-batch and tile size."""
    fitting = _fitting(planned, device)
    if fitting is None:
        raise ConfigError(f"memory: got {size(device.memory_bytes)}, which holds no step. Set --memory higher.")
    micro, tile = fitting
    need = size(training_bytes(planned.setting, planned.cut.micro_batch_size, planned.crop.window_shape))
    kept = f"a whole step needs {need} of {size(device.memory_bytes)}"
    cut = {} if micro is None else {"micro_batch_size": Choice(micro, kept)}
    return cut | {"tile_size": Choice(tile, kept + (", so crops stay whole" if tile is None else ""))}
