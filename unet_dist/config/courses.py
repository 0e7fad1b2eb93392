"""The list of courses of the learning rate. The courses are in training/courses.py; this knows nothing of torch."""

from __future__ import annotations

from collections.abc import Callable

from unet_dist.registry import Registry

COURSES: Registry[Callable[..., object]] = Registry(
    "schedule",
    "unet_dist.courses",
    {name: f"unet_dist.training.courses:{name}" for name in ("onecycle", "constant", "cosine", "poly")},
)
