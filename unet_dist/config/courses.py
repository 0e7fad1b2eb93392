"""The courses of the learning rate by name. They are declared in training/courses.py; this knows nothing of torch."""

from __future__ import annotations

from collections.abc import Callable

from unet_dist.registry import Registry

COURSES: Registry[Callable[..., object]] = Registry("schedule", "unet_dist.courses", "unet_dist.training")
