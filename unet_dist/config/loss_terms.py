"""What the loss of a run is made of, in words: its terms and their weights.

Owns reading `cross_entropy + 0.5*dice` or a mapping, and which settings its terms take. The losses are declared in losses/; this
knows nothing of torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from unet_dist.errors import ConfigError
from unet_dist.registry import Registry, parse_word, takes

LOSSES: Registry[Callable[..., object]] = Registry("loss", "unet_dist.losses", "unet_dist.losses")
LOSS_KEYS = ("label_smoothing", "focal_gamma", "class_weights", "border_class")
"""Keys that have an effect where a term of the loss takes them."""


def parse_loss(loss: str | Mapping[str, float]) -> dict[str, float]:
    """Read the terms of a loss and their weights. Nothing is imported.

    >>> parse_loss("cross_entropy + 0.5*my_package.losses:tversky(alpha=0.3)")
    {'cross_entropy': 1.0, 'my_package.losses:tversky(alpha=0.3)': 0.5}

    Raises:
        ConfigError: an unknown term (names the nearest), one named twice, or a weight that is no number above 0.
    """
    pairs = list(loss.items()) if isinstance(loss, Mapping) else [_parse_term(word) for word in _split(loss)]
    terms: dict[str, float] = {}
    for text, weight in pairs:
        word = parse_word("loss", str(text))
        LOSSES.find(word.name)
        name = str(word)
        if name in terms:
            raise ConfigError(f"loss: got {name} twice, expected it once, with the sum of its weights.")
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not 0 < weight < float("inf"):
            raise ConfigError(f"loss: got the weight {weight!r} for {name}, expected a finite number above 0.")
        terms[name] = float(weight)
    if not terms:
        raise ConfigError(f"loss: got no term, expected one at least. Valid: {', '.join(LOSSES.names())}.")
    return terms


def _split(loss: str) -> list[str]:
    """The terms of a sum; a + in brackets is an argument's."""
    return re.split(r"\+(?![^(]*\))", loss)


def _parse_term(text: str) -> tuple[str, float]:
    factor, star, name = text.partition("*")
    if not star or "(" in factor:
        return text.strip(), 1.0
    if not re.fullmatch(r"\s*\d*\.?\d+(e-?\d+)?\s*", factor):
        raise ConfigError(f"loss: got {text.strip()!r}, expected a number before the *, such as 0.5*dice.")
    return name.strip(), float(factor)


def spell_loss(terms: Mapping[str, float]) -> str:
    """Write terms in the one way that parse_loss reads them back from: equal losses are equal words."""
    return " + ".join(name if weight == 1 else f"{weight:g}*{name}" for name, weight in terms.items())


def check_loss_settings(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse settings that the terms of a loss have no use for. What somebody else's loss takes is known once it is built.

    Args:
        values: flat keys of a config.
        defaults: what they are where nobody says anything.

    Raises:
        ConfigError: a setting that would have no effect; names it.
    """
    names = [parse_word("loss", term).name for term in parse_loss(values["loss"])]
    for key in LOSS_KEYS:
        if values[key] != defaults[key] and not any(not LOSSES.is_own(name) or _takes(name, key) for name in names):
            raise idle_key(key, values[key], values["loss"])
    for key in ("border_weight", "border_sigma_px"):
        if values[key] != defaults[key] and values["border_class"] is None:
            raise ConfigError(
                f"{key}: got {values[key]!r}, which has no effect without border_class. Remove {key}, or set --border_class."
            )


def idle_key(key: str, value: object, loss: object) -> ConfigError:
    """The refusal of a key that no term of the loss takes."""
    owners = " or ".join(name for name in LOSSES.own if _takes(name, key))
    return ConfigError(
        f"{key}: got {value!r}, which has no effect as the loss is {loss}. Remove {key}, or name {owners} in --loss."
    )


def _takes(name: str, key: str) -> bool:
    """Whether a loss of ours takes a key. It is imported for that: asked only where a key has another value than by default."""
    part = LOSSES.load(name)
    return bool(getattr(part, "takes_borders", False)) if key == "border_class" else takes(part, key)
