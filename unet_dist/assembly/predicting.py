"""The labels of images as arrays, one image after the other, for scripts and notebooks.

Owns how whatever a caller calls an image gets a name and is opened. `predict_files` writes files and resumes; its labels are these.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from PIL import Image

from unet_dist.assembly.inference import choose_tiles
from unet_dist.assembly.opening import load_network
from unet_dist.assembly.run_data import layout_of
from unet_dist.assembly.sizes import resolve_tile_size
from unet_dist.config.sections import Precision
from unet_dist.data.sources.layout import Layout
from unet_dist.errors import DataError
from unet_dist.imaging.encoded import stem_of
from unet_dist.imaging.reader import ImageLike, open_image
from unet_dist.models.contract import Network, pixels_of
from unet_dist.prediction.image import predict_rasters
from unet_dist.prediction.jobs import find_sources
from unet_dist.prediction.values import Recipe
from unet_dist.processes.precision import choose_device_type, has_fast_bf16, resolve_precision

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Predicted(NamedTuple):
    """The prediction of an image.

    Attributes:
        name: the file's stem, or image-0, image-1, ... of pictures in memory.
        labels: (H, W) uint8 class ids.
        probabilities: (K, H, W) float32, where asked for.
        confidence: (H, W) float32, the probability of the label, where asked for.
    """

    name: str
    labels: np.ndarray
    probabilities: np.ndarray | None = None
    confidence: np.ndarray | None = None


def predict(
    model: str | Path | Network,
    images: ImageLike | Iterable[ImageLike],
    *,
    probabilities: bool = False,
    confidence: bool = False,
    tile_size: int | None = None,
    window_batch: int = 4,
    blend: bool = False,
    whole: bool = False,
    flip: bool = False,
    rotations: bool = False,
    mixed_precision: Precision = "auto",
    is_shared: bool = True,
) -> Iterator[Predicted]:
    """Predict images one after the other, by exact tiles where the network is local.

    Under a launcher each process yields its own part of the images: every WORLD_SIZE-th from its RANK on. `predict_files` also
    divides the tiles of one image.

    It needs memory for the arrays of one image and a batch of windows. Images may come from a generator.

    >>> for name, labels, *_ in predict("runs/mine", "photos/"):  # doctest: +SKIP
    ...     print(name, labels.shape)

    Args:
        model: a run's folder, a model folder, a hub id, several joined by + (an ensemble), or a network of models/contract,
            which stays on its device.
        images: a file, a folder, a glob, a picture ((H, W, C) or (H, W) uint8 array, Pillow image, reader), or several of these.
        probabilities: also yield those of every class.
        confidence: also yield the probability of each label.
        tile_size: largest side of a window, px; the labels do not depend on it, unless blended.
        window_batch: windows computed at once.
        blend, whole: overlapping windows, or every image in one: for networks without a finite halo.
        flip, rotations: average over the mirror image, or over all eight turns and mirror images.
        mixed_precision: auto is bf16 where the device is fast at it.
        is_shared: False yields all images on every process.

    Raises:
        DataError: an image that cannot be read or has other channels; names it.
        LocalityError: a network without a finite halo, and neither blend nor whole.
        ConfigError, CheckpointError, SizeError: the request cannot be met; says why.
    """
    network: Network
    folder: Path | None
    if isinstance(model, str | Path):
        network, trained, folder = load_network(str(model), _device())
    else:
        network, trained, folder = model, None, None
    device_type = next(network.parameters()).device.type
    precision = resolve_precision(mixed_precision, os.environ, device_type, has_fast_bf16(device_type))
    recipe = Recipe(
        "float32" if probabilities else "none", "float32" if confidence else "none", flip=flip, rotations=rotations
    )
    tiles = choose_tiles(
        network,
        recipe,
        blend=blend,
        whole=whole,
        window_batch=window_batch,
        must_be_asked=True,
        say=lambda _: None,
    )
    side = resolve_tile_size(tile_size, network, trained)

    def autocast() -> torch.autocast | nullcontext[None]:
        return torch.autocast(device_type, dtype=_DTYPES[precision]) if precision in _DTYPES else nullcontext()

    rank, world_size = (int(os.environ.get(key, alone)) for key, alone in (("RANK", "0"), ("WORLD_SIZE", "1")))
    named = _named(images, network, layout_of(folder))
    for name, opened in islice(named, rank, None, world_size) if is_shared else named:
        with opened() as image:
            try:
                rasters = predict_rasters(tiles, image, side, autocast)
            except DataError as error:
                raise DataError(f"{name}: {error}") from error
        yield Predicted(name, rasters["labels"], rasters.get("probabilities"), rasters.get("confidence"))


def _named(
    images: ImageLike | Iterable[ImageLike], network: Network, layout: Layout
) -> Iterator[tuple[str, Callable[[], AbstractContextManager[ImageLike]]]]:
    """Give every image a name and what opens it as the network takes it: words are expanded as the command does."""
    pixels = pixels_of(network)
    is_one = isinstance(images, str | os.PathLike | Image.Image) or hasattr(images, "shape")
    several = (cast(ImageLike, images),) if is_one else cast(Iterable[ImageLike], images)
    count = 0
    for image in several:
        if isinstance(image, str | os.PathLike):
            for source in find_sources([os.fspath(image)], masks_among=layout.masks_beside):
                opened = partial(
                    open_image, source, channels=network.in_channels, nodata=pixels.nodata, bands=pixels.bands
                )
                yield stem_of(source), opened
        else:
            yield f"image-{count}", partial(_as_it_is, image)
            count += 1


def _as_it_is(image: ImageLike) -> AbstractContextManager[ImageLike]:
    return nullcontext(image)


def _device() -> torch.device:
    """Where a script computes: its own GPU below a launcher, else the first, else the CPU."""
    accelerating = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kind = choose_device_type(None if accelerating is None else accelerating.type, os.environ)
    return torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device(kind)
