"""What the constructors and the forward passes of all models check alike.

Owns the checks of what travels with every network (channels, classes, mean and deviation, names) and of the images that it
is given. Must not know any one architecture.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from unet_dist.errors import ConfigError, DataError, suggest
from unet_dist.wording import shorten

# Half of uint8's range: pixels become [-1, 1] where nobody measured the data set's own mean and deviation.
DEFAULT_MEAN = 127.5
DEFAULT_STD = 127.5

MOST = 65535
"""Of classes, what a mask of 16 bits holds; of channels, assumption: no sensor has more."""
MOST_LETTERS = 1000
"""Of a name. assumption: nobody has longer ones, and each stands in every table."""
_HALF = re.compile("[\ud800-\udfff]")
_LEAST, _LARGEST = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
"""In which images are normalised."""


class Description(TypedDict, total=False):
    """What every constructor takes beside in_channels and num_classes. It changes no network, and travels with it in config.json.

    mean: per input channel, in units of uint8 (0 to 255); None means 127.5.
    std: likewise.
    class_names: one per class, or None.
    ignore_index: the class that is no answer, or None.
    """

    mean: Sequence[float] | None
    std: Sequence[float] | None
    class_names: Sequence[str] | None
    ignore_index: int | None


class Described:
    """The attributes that keep_description gives a network."""

    in_channels: int
    num_classes: int
    mean: list[float]
    std: list[float]
    class_names: list[str] | None
    ignore_index: int | None


def require(is_valid: bool, name: str, got: object, expected: str) -> None:
    """Refuse a constructor's argument.

    Raises:
        ConfigError: it is not valid.
    """
    if not is_valid:
        raise ConfigError(f"Got {name} = {shorten(repr(got))}. Expected {expected}. Change {name}.")


def require_count(name: str, count: object) -> None:
    """Refuse a value that is no whole number of at least 1. Raises: ConfigError."""
    is_count = isinstance(count, int) and not isinstance(count, bool) and count >= 1
    require(is_count, name, count, "a whole number of at least 1")


def require_choice(name: str, choice: object, valid: Iterable[str]) -> None:
    """Refuse a word that is none of the valid ones, and name the nearest. Raises: ConfigError."""
    words = list(valid)
    if choice not in words:
        raise ConfigError(f'Got {name} = "{choice}". {suggest(str(choice), words)} Change {name}.')


def keep_description(
    model: Any,
    in_channels: int,
    num_classes: int,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    ignore_index: int | None = None,
) -> None:
    """Check what travels with a network, and keep it as the network's attributes.

    Raises:
        ConfigError: a number or its count is not valid.
    """
    require_count("in_channels", in_channels)
    require_count("num_classes", num_classes)
    require(in_channels <= MOST, "in_channels", in_channels, f"{MOST} at most")
    require(num_classes <= MOST, "num_classes", num_classes, f"{MOST} at most")
    model.in_channels = in_channels
    model.num_classes = num_classes
    model.mean = _per_channel("mean", mean, DEFAULT_MEAN, in_channels)
    model.std = _per_channel("std", std, DEFAULT_STD, in_channels)
    require(min(model.std) >= _LEAST, "std", model.std, "deviations above 0")
    is_list = class_names is None or isinstance(class_names, list | tuple)
    require(is_list, "class_names", class_names, "a list of names, or none")
    model.class_names = None if class_names is None else list(class_names)
    if model.class_names is not None:
        is_complete = len(model.class_names) == num_classes
        require(is_complete, "class_names", model.class_names, f"{num_classes} names, one per class")
        is_text = all(isinstance(name, str) for name in model.class_names)
        require(is_text, "class_names", model.class_names, "names that are texts")
        is_short = all(len(name) <= MOST_LETTERS and not _HALF.search(name) for name in model.class_names)
        require(
            is_short, "class_names", model.class_names, f"names of {MOST_LETTERS} letters at most, no half of a pair"
        )
        name, times = Counter(model.class_names).most_common(1)[0]
        require(times == 1, "class_names", model.class_names, f'names that differ, and not {times} times "{name}"')
    is_id = ignore_index is None or (hasattr(ignore_index, "__index__") and not isinstance(ignore_index, bool))
    require(is_id, "ignore_index", ignore_index, "a whole number, or none")
    model.ignore_index = None if ignore_index is None else int(ignore_index)  # numpy integers are not JSON


def check_images(model: Any, images: Tensor) -> None:
    """Refuse images that a network does not take.

    Raises:
        DataError: not a batch of images with its `in_channels` channels.
        SizeError: a side that it does not take; names the nearest that it does.
    """
    if images.ndim != 4 or images.shape[1] != model.in_channels:
        raise DataError(
            f"Got images of shape {tuple(images.shape)}. Expected (N, {model.in_channels}, height, width): this "
            f"network has in_channels = {model.in_channels}. Convert the images, or build the network with theirs."
        )
    model.window_sizes.require(images.shape[2], "image height")
    model.window_sizes.require(images.shape[3], "image width")


def scale_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring logits (N, K, h, w) to another size, bilinearly, in float32 at least."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.interpolate(wide, size=size, mode="bilinear", align_corners=False)


def _per_channel(name: str, values: Sequence[float] | None, default: float, in_channels: int) -> list[float]:
    values = [default] * in_channels if values is None else [float(value) for value in values]
    require(len(values) == in_channels, name, values, f"{in_channels} numbers, one per input channel")
    is_held = all(math.isfinite(value) and abs(value) <= _LARGEST for value in values)
    require(is_held, name, values, "finite numbers that float32 holds")
    return values
