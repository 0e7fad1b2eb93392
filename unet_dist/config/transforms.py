"""What changes training crops, in words: a recipe of ours, or somebody else's transform by import path or entry point.

Owns the list of recipes. What they do is in data/batches/; this knows nothing of albumentations.
"""

from __future__ import annotations

from collections.abc import Callable

from unet_dist.errors import ConfigError
from unet_dist.registry import Registry, parse_word

# Where each recipe is written down: they are data, not code that is called.
TRANSFORMS: Registry[Callable[..., object]] = Registry(
    "augmentation",
    "unet_dist.transforms",
    {
        **dict.fromkeys(("colour", "paper", "street", "strong", "trivial"), "unet_dist.data.batches.recipes:RECIPES"),
    },
)


def is_recipe(augmentation: object) -> bool:
    """Whether a value of the key names a recipe of ours, which happens on the device."""
    return isinstance(augmentation, str) and TRANSFORMS.is_own(augmentation)


def spell_transform(text: str) -> str:
    """Check the name of a recipe or of a transform, without importing it, and write the word in the one way of spelling.

    Raises:
        ConfigError: there is none, or a recipe of ours has arguments.
    """
    word = parse_word("augmentation", text)
    if TRANSFORMS.is_own(word.name) and word.arguments:
        raise ConfigError(
            f"augmentation: got {text!r}, expected {word.name} without brackets. Remove them, or list albumentations transforms."
        )
    return TRANSFORMS.spell(text)
