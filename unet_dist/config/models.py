"""The list of architectures. They are in models/; this knows nothing of torch."""

from __future__ import annotations

from collections.abc import Callable

from unet_dist.registry import Registry

MODELS: Registry[Callable[..., object]] = Registry(
    "model",
    "unet_dist.models",
    {
        "unet": "unet_dist.models.unet:UNet",
        "encoder_unet": "unet_dist.models.encoder_unet:EncoderUNet",
        "segformer": "unet_dist.models.segformer:SegFormer",
        "smp": "unet_dist.models.smp:SegmentationModel",
    },
)
