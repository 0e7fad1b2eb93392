"""What a run minimises, from its config and its data set."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch

from unet_dist.config.courses import COURSES
from unet_dist.config.loss_terms import LOSS_KEYS, LOSSES, idle_key, parse_loss
from unet_dist.config.sections import ScheduleConfig
from unet_dist.data.decoded.cache import Cache
from unet_dist.errors import ConfigError
from unet_dist.losses.class_weights import weigh_classes
from unet_dist.losses.contract import Loss
from unet_dist.losses.mixture import Mixture, build_loss
from unet_dist.registry import parse_word, takes
from unet_dist.training.optimizer import course

if TYPE_CHECKING:
    from unet_dist.data.batches.borders import BorderWeights


def refuse_whole_images(loss: str | dict[str, float], setting: str) -> None:
    """Refuse to cut an image that a term of the loss sees as a whole.

    Raises:
        ConfigError: names the term.
    """
    whole = [term for term in parse_loss(loss) if build_loss({term: 1.0}).sees_whole_images]
    if whole:
        raise ConfigError(
            f"loss: got {whole[0]}, which sees an image as a whole and is not a sum over tiles, together with {setting}. "
            f"Expected whole crops. Take {setting} back, or set --loss cross_entropy+dice, which is exact by tiles."
        )


def require_loss(schedule: ScheduleConfig) -> None:
    """Refuse a loss that cannot be made, and keys that none of its terms takes, before any data is read.

    Raises:
        ConfigError: names the term, or the key.
    """
    terms = parse_loss(schedule.loss)
    has_borders = any(build_loss({term: 1.0}).takes_borders for term in terms)
    parts = [LOSSES.load(parse_word("loss", term).name) for term in terms]
    for field in dataclasses.fields(schedule):
        key, value = field.name, getattr(schedule, field.name)
        if key not in LOSS_KEYS or value == field.default:
            continue
        if not (has_borders if key == "border_class" else any(takes(part, key) for part in parts)):
            raise idle_key(key, value, schedule.loss)


def require_course(schedule: ScheduleConfig) -> None:
    """Refuse a course that cannot be made, or is none, before any data is read.

    Raises:
        ConfigError: names it.
    """
    course_ = course(schedule)
    for step in (1, schedule.total_steps):
        got: object = course_(step)
        if not (
            isinstance(got, tuple)
            and len(got) == 2
            and all(isinstance(x, float) and 0 <= x < float("inf") for x in got)
        ):
            raise ConfigError(
                f"schedule: {schedule.schedule} gave {got!r} for step {step}. Expected the learning rate and beta1, two "
                "finite numbers of 0 or more. Change schedule."
            )
    default = next(f.default for f in dataclasses.fields(schedule) if f.name == "warmup_fraction")
    part = COURSES.load(parse_word("schedule", schedule.schedule).name)
    if schedule.warmup_fraction != default and not takes(part, "warmup_fraction"):
        raise ConfigError(
            f"warmup_fraction: got {schedule.warmup_fraction}, which has no effect as the schedule is {schedule.schedule}. Remove "
            "warmup_fraction."
        )


def loss_of(schedule: ScheduleConfig, cache: Cache, device: torch.device) -> Loss:
    """The loss of a run on its data set."""
    class_weights = None
    if schedule.class_weights is not None:
        histogram = cache.split("train").class_counts.tolist()
        class_weights = weigh_classes(schedule.class_weights, histogram, cache.ignore_index).to(device)
    return build_loss(
        parse_loss(schedule.loss),
        class_weights=class_weights,
        ignore_index=cache.ignore_index,
        label_smoothing=schedule.label_smoothing,
        focal_gamma=schedule.focal_gamma,
        multi_label=cache.multi_label,
    )


def require_ids(loss: Loss, cache: Cache) -> None:
    """Refuse a loss of somebody's own that may take 255 for what counts nowhere, where it is a class.

    Raises:
        ConfigError: names it.
    """
    if cache.label_dtype != np.uint16:
        return
    for term in [term for _, term in loss.terms] if isinstance(loss, Mixture) else [loss]:
        if not getattr(term, "takes_16_bits", type(term).__module__.startswith("unet_dist.")):
            raise ConfigError(
                f"loss: got {type(term).__name__} with num_classes {cache.num_classes}, expected one that says takes_16_bits = "
                "True: labels of more than 255 classes are uint16, and 65535 counts nowhere. Change the loss, or num_classes."
            )


def border_weights_of(schedule: ScheduleConfig, cache: Cache) -> BorderWeights | None:
    """The extra weights of pixels between objects, None by default.

    Raises:
        ConfigError: the data set has no such class, or it counts nowhere.
    """
    border = schedule.border_class
    if border is None:
        return None
    require_border_class(border, cache)
    from unet_dist.data.batches.borders import BorderWeights  # scipy is slow to import, and most runs need none

    return BorderWeights(border, schedule.border_weight, schedule.border_sigma_px)


def require_border_class(border: int, cache: Cache) -> None:
    """Refuse a class between objects that is none.

    Raises:
        ConfigError: the data set has no such class, or it counts nowhere; lists those that it has.
    """
    if not 0 <= border < cache.num_classes or border == cache.ignore_index:
        named = ", ".join(f"{i} {name}" for i, name in enumerate(cache.class_names) if i != cache.ignore_index)
        raise ConfigError(f"border_class: got {border}, expected a class of {cache.name} that counts: {named}.")
