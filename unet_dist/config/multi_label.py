"""What goes with overlapping classes, and what does not.

Owns the refusals of keys that have no meaning where a pixel may have several classes. Knows nothing of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from unet_dist.config.loss_terms import parse_loss
from unet_dist.config.rules import Must
from unet_dist.config.transforms import is_recipe
from unet_dist.errors import ConfigError
from unet_dist.registry import parse_word

_PROBABILITY = "numbers above 0 and below 1"
LOSSES_OF_PLANES = ("cross_entropy", "dice", "focal")
"""Terms of --loss that have a form for overlapping classes."""


def _are_thresholds(value: float | list[float]) -> bool:
    each = value if isinstance(value, list) else [value]
    return bool(each) and all(isinstance(one, int | float) and 0 < one < 1 for one in each)


Threshold = Annotated[float, Must(_are_thresholds, _PROBABILITY)]
Thresholds = Annotated[list[float], Must(_are_thresholds, _PROBABILITY)]


def check_multi_label(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse keys that do not go with overlapping classes.

    Args:
        values: flat keys of a config.
        defaults: what they are where nobody says anything.

    Raises:
        ConfigError: names both keys.
    """
    if not values["multi_label"]:
        if values["thresholds"] is not None:
            raise ConfigError(
                f"thresholds: got {values['thresholds']}, which has no effect without multi_label. Remove thresholds, or set "
                "--multi_label true."
            )
        if values["num_classes"] == 1:
            raise ConfigError(
                "num_classes: got 1, expected 2 to 65535, or multi_label, where one class is there or not. Change num_classes in "
                "the config or --num_classes."
            )
        return
    for term in parse_loss(values["loss"]):
        if parse_word("loss", term).name not in LOSSES_OF_PLANES:
            raise _refusal(
                "loss", term, f"a sum of {', '.join(LOSSES_OF_PLANES)}, which have a form for each class by itself"
            )
    if values["data_path"] == "synthetic":
        raise _refusal(
            "data_path", "synthetic", "masks with a plane for each class: its scenes have one class per pixel"
        )
    for key, why in (
        ("border_class", "none: it parts objects of classes that exclude each other"),
        ("label_smoothing", "0: it spreads a label over classes that exclude each other"),
        ("classmix", "0: it pastes the pixels of classes, and here a pixel may have several"),
    ):
        if values[key] != defaults[key]:
            raise _refusal(key, values[key], why)
    augmentation = values["augmentation"]
    if augmentation is not None and not is_recipe(augmentation):
        raise _refusal(
            "augmentation", augmentation, "colour, paper, street, strong or trivial: other transforms take class ids"
        )


def _refusal(key: str, value: object, expected: str) -> ConfigError:
    return ConfigError(f"{key}: got {value!r} with multi_label true, expected {expected}. Change one of the two.")
