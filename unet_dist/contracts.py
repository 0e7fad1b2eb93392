"""The contracts of all parts.

Each line: the contract; the key that names the part; the entry points; the check in unet_dist.testing.

- network: `TrainableNetwork`, or any `nn.Module`, which is measured; `--model`; `unet_dist.models`; `check_model`
- encoder: `Encoder`, most easily a `LayeredEncoder`, with feature maps as `Placed` and ranges of a grid as `Span`;
  `--model unet:ENCODER`; `unet_dist.encoders`; `check_encoder`
- loss: `Loss`; `--loss`; `unet_dist.losses`; `check_loss`
- data: `Source`, of `RawPair`; `--data_path`; `unet_dist.sources`; `check_source`
- sample transform: `SampleTransform`; `--augmentation`; `unet_dist.transforms`; `check_transform`
- metric: `Metric`; `--metrics` of train and evaluate; `unet_dist.metrics`; `check_metric`
- image format: `ImageFormat`, which opens an `Encoded` by an `Opening` as an `ImageReader`; no key, but a file's suffix or bytes;
  `unet_dist.formats`; `check_format`
- course of the learning rate: `Course`; `--schedule`; `unet_dist.courses`; `check_course`

Name a part by its import path, `my_package.nets:make(width=8)`, or by its entry point. docs/howto/extending.md shows a package of
them.
"""

from __future__ import annotations

from unet_dist.data.batches.crops import SampleTransform
from unet_dist.data.sources.pairs import RawPair, Source
from unet_dist.imaging.encoded import Encoded
from unet_dist.imaging.image import ImageFormat, ImageReader, Opening
from unet_dist.losses.contract import Loss
from unet_dist.metrics.registry import Metric
from unet_dist.models.contract import Network, TrainableNetwork
from unet_dist.models.encoders.contract import Encoder, Layer, LayeredEncoder
from unet_dist.models.encoders.placement import Placed, Span
from unet_dist.training.courses import Course

__all__ = [
    "Course",
    "Encoded",
    "Encoder",
    "ImageFormat",
    "ImageReader",
    "Layer",
    "LayeredEncoder",
    "Loss",
    "Metric",
    "Network",
    "Opening",
    "Placed",
    "RawPair",
    "SampleTransform",
    "Source",
    "Span",
    "TrainableNetwork",
]
