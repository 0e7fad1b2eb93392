"""What the loss of a run is made of, in words: its terms and their weights.

Owns reading `cross_entropy + 0.5*dice` or a mapping, and what each term lets the user set. The formulas are in losses/; this
knows nothing of torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from unet_dist.errors import ConfigError, suggest

LOSSES = ("cross_entropy", "focal", "dice", "lovasz")
PIXELWISE = ("cross_entropy", "focal")
"""The terms that add one number a pixel: classes and pixels may weigh more or less in them."""
PER_IMAGE = ("lovasz",)
"""The terms that see an image as a whole: it cannot be cut into tiles."""


def parse_loss(loss: str | Mapping[str, float]) -> dict[str, float]:
    """Read the terms of a loss and their weights.

    >>> parse_loss("cross_entropy + 0.5*dice")
    {'cross_entropy': 1.0, 'dice': 0.5}

    Raises:
        ConfigError: an unknown term (names the nearest), one named twice, or a weight that is no number above 0.
    """
    pairs = list(loss.items()) if isinstance(loss, Mapping) else [_parse_term(word) for word in loss.split("+")]
    terms: dict[str, float] = {}
    for name, weight in pairs:
        if name not in LOSSES:
            raise ConfigError(f"loss: got {name!r}. {suggest(str(name), LOSSES)}")
        if name in terms:
            raise ConfigError(f"loss: got {name} twice, expected it once, with the sum of its weights.")
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not 0 < weight < float("inf"):
            raise ConfigError(f"loss: got the weight {weight!r} for {name}, expected a finite number above 0.")
        terms[name] = float(weight)
    if not terms:
        raise ConfigError(f"loss: got no term, expected one at least. Valid: {', '.join(LOSSES)}.")
    return terms


def _parse_term(word: str) -> tuple[str, float]:
    factor, star, name = word.rpartition("*")
    if not star:
        return name.strip(), 1.0
    if not re.fullmatch(r"\s*\d*\.?\d+(e-?\d+)?\s*", factor):
        raise ConfigError(f"loss: got {word.strip()!r}, expected a number before the *, such as 0.5*dice.")
    return name.strip(), float(factor)


def spell_loss(terms: Mapping[str, float]) -> str:
    """Write terms in the one way that parse_loss reads them back from: equal losses are equal words."""
    return " + ".join(name if weight == 1 else f"{weight:g}*{name}" for name, weight in terms.items())


def check_loss_settings(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse settings that the terms of a loss have no use for.

    Args:
        values: flat keys of a config.
        defaults: what they are where nobody says anything.

    Raises:
        ConfigError: a setting that would have no effect; names it.
    """
    terms = parse_loss(values["loss"])
    needs = {
        "label_smoothing": ("cross_entropy",),
        "focal_gamma": ("focal",),
        "class_weights": PIXELWISE,
        "border_class": PIXELWISE,
    }
    for key, owners in needs.items():
        if values[key] != defaults[key] and not any(name in terms for name in owners):
            raise ConfigError(
                f"{key}: got {values[key]!r}, which has no effect as the loss is {values['loss']}. Remove {key}, or name "
                f"{' or '.join(owners)} in --loss."
            )
    for key in ("border_weight", "border_sigma_px"):
        if values[key] != defaults[key] and values["border_class"] is None:
            raise ConfigError(
                f"{key}: got {values[key]!r}, which has no effect without border_class. Remove {key}, or set --border_class."
            )
