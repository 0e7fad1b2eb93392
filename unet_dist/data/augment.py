"""Augmentation pipelines of albumentations.

Owns the one import of albumentations. A pipeline draws from a seed given with each sample, never from its own state: with
workers, seeded or not, that state repeats itself.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from unet_dist.data.labels import IGNORED
from unet_dist.errors import ConfigError, suggest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it looks for updates on the network at import
import albumentations


class Augmentation:
    """A pipeline named in the config.

    Args:
        transforms: each {name: an albumentations class, ...its arguments}, in order.

    Raises:
        ConfigError: an unknown transform or argument, or one that changes the size of the window.
    """

    def __init__(self, transforms: list[dict[str, Any]]) -> None:
        self._pipeline = albumentations.Compose([_build(dict(transform)) for transform in transforms])

    def __call__(self, image: np.ndarray, labels: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Transform an image (H, W, C) uint8 and its labels (H, W) uint8 alike, by the given seed."""
        self._pipeline.set_random_seed(seed)
        result = self._pipeline(image=np.ascontiguousarray(image), mask=np.ascontiguousarray(labels))
        moved, moved_labels = result["image"].reshape(*result["image"].shape[:2], -1), result["mask"]
        if moved.shape != image.shape or moved.dtype != np.uint8:
            raise ConfigError(
                f"augmentation: got {moved.dtype} windows of {moved.shape}, expected uint8 of {image.shape} as they went in. "
                "Remove the transforms that resize, crop or normalise: the window is cut and normalised already."
            )
        return moved, moved_labels


def _build(transform: dict[str, Any]) -> Any:
    name = transform.pop("name", None)
    known = {
        key: value
        for key, value in vars(albumentations).items()
        if isinstance(value, type) and issubclass(value, albumentations.BasicTransform)
    }
    if name not in known:
        near = suggest(str(name), known).partition("Valid:")[0]  # the whole list would fill the screen
        expected = "expected the name of an albumentations transform"
        raise ConfigError(f"augmentation: got name {name!r}, {expected}. {near}".rstrip())
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in transform.items()}
    import inspect
    import warnings

    parameters = inspect.signature(known[name]).parameters
    unknown = set(arguments) - set(parameters)
    if unknown:
        raise ConfigError(
            f"augmentation: {name}: unknown argument {sorted(unknown)[0]!r}. "
            f"{suggest(sorted(unknown)[0], set(parameters))}"
        )
    if "fill_mask" in parameters:  # what moves in from beyond the image has no label
        arguments.setdefault("fill_mask", IGNORED)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return known[name](**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"augmentation: {name}: {error}") from None
