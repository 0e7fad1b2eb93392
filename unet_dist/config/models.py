"""The architectures by name. They are declared in models/; this knows nothing of torch."""

from __future__ import annotations

from collections.abc import Callable

from unet_dist.registry import Registry

MODELS: Registry[Callable[..., object]] = Registry("model", "unet_dist.models", "unet_dist.models")
