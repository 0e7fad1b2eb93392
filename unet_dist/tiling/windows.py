"""Windows to labels: exact prediction of images of any size, a batch of windows at a time.

Owns what happens between a reader and a tile of labels: read the window, normalise on the device, forward, trim to what is
exact, argmax. It must not know processes or files: which tiles to compute is an argument (`batches.plan_batches` and
`geometry.assign` share them out), and whoever asks writes the labels.

Memory: one batch of windows and its activations, whatever the image's size.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unet_dist.errors import DataError, LocalityError
from unet_dist.imaging.reader import ImageLike, ImageReader, as_reader, read_window
from unet_dist.models.contract import Network
from unet_dist.tiling.batches import cut_batches
from unet_dist.tiling.geometry import (
    Locality,
    Tile,
    TilePlan,
    covering_tile_size,
    default_tile_size,
    plan_tiles,
)

Labels = npt.NDArray[np.uint8]


_CPU_AT_ONCE_PX = 400_000
"""Pixels of the windows that a CPU computes together."""


class Window(NamedTuple):
    """One window to be read and computed."""

    reader: ImageReader
    plan: TilePlan
    tile: Tile


def require_locality(model: Network) -> Locality:
    """Return the network's locality.

    Raises:
        LocalityError: it has none; the message names the layer that couples all pixels.
    """
    if model.locality is None:
        raise LocalityError(
            f"Got a network without a finite halo: {model.locality_obstacle}. Expected one whose output pixels depend on "
            "their surroundings only: without that the labels would depend on the tile size. Use a network without such a "
            "layer (of the U-Net's norms: none, weight and batch)."
        )
    return model.locality


def normalise(windows: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> Tensor:
    """Scale pixels to (pixel - mean) / std.

    Args:
        windows: (N, H, W, C) uint8, on the device that is to compute.
        mean, std: one a channel, in units of uint8.
        dtype: of the result. The arithmetic is float32 or float64, also for narrower types.

    Returns:
        (N, C, H, W), in channels-last memory. That is how it arrived, and how convolutions are fastest (U-Net 16 and 32
        wide, 572 px, 2 CPU cores, float32: 1.4 times in evaluation, equal in training).
    """
    compute = torch.promote_types(dtype, torch.float32)
    # Not blocking: a copy that waits for the device would be a synchronisation in every training step.
    scale, shift = (torch.tensor(values, dtype=compute).to(windows.device, non_blocking=True) for values in (std, mean))
    # Row by row: pixel by pixel a CPU goes through three values at a time (tests/measure/small_costs.py normalise).
    width, channels = windows.shape[2:]
    rows = windows.flatten(2).to(compute).sub_(shift.repeat(width)).div_(scale.repeat(width))  # (N, H, W * C)
    return rows.to(dtype).unflatten(2, (width, channels)).permute(0, 3, 1, 2)  # (N, C, H, W)


def classify(logits: Tensor, ignore_index: int | None) -> Tensor:
    """Choose the class with the largest logit, never the ignored one: (N, K, h, w) -> (N, h, w) uint8.

    Of equal ones the first. Nothing of the logits is copied: filling in -inf for the ignored class took four times as long
    (tests/measure/small_costs.py labels: four windows of 572 px and 35 classes, one CPU thread).
    """
    assert logits.shape[1] <= 256, logits.shape
    start, *more = _answers(logits.shape[1], ignore_index)
    best = logits[:, start].max(dim=1)
    labels = best.indices + start.start
    for after in more:
        other = logits[:, after].max(dim=1)
        labels = torch.where(other.values > best.values, other.indices + after.start, labels)
    return labels.to(torch.uint8)


def _answers(num_classes: int, ignore_index: int | None) -> list[slice]:
    """The classes before the ignored one and those after it, where there are any."""
    if ignore_index is None or not 0 <= ignore_index < num_classes or num_classes == 1:
        return [slice(0, num_classes)]
    parts = (slice(0, ignore_index), slice(ignore_index + 1, num_classes))
    return [part for part in parts if part.start < part.stop]


def windows_at_once(window: Sequence[int], device_type: str) -> int:
    """Say how many windows of a batch a device computes together: a GPU all of them, a CPU few.

    A CPU takes as long either way (tests/measure/small_costs.py windows), and alone they need the memory of one.

    Args:
        window: height and width, px.
        device_type: cpu or cuda.
    """
    return max(1, _CPU_AT_ONCE_PX // (window[0] * window[1])) if device_type == "cpu" else sys.maxsize


@torch.inference_mode()
def window_logits(model: Network, pixels: Tensor, *, halo: int, autocast: torch.dtype | None = None) -> Tensor:
    """Compute the exact logits inside windows, in evaluation mode.

    Args:
        pixels: (N, H, W, C) uint8.
        halo: of the windows' plan.
        autocast: type that the forward pass may use for its products; None leaves it to the caller's context.

    Returns:
        (N, K, H - 2 * halo, W - 2 * halo) on the model's device.
    """
    parameter = next(model.parameters())
    precision: AbstractContextManager[Any] = nullcontext()
    if autocast is not None:
        precision = torch.autocast(parameter.device.type, dtype=autocast)
    with _evaluation(model), precision:
        logits: Tensor = model(normalise(_upload(pixels, parameter.device), model.mean, model.std, parameter.dtype))
    trim = halo - model.window_sizes.margin
    height, width = (side - 2 * model.window_sizes.margin for side in pixels.shape[1:3])
    assert logits.shape[2:] == (height, width), (logits.shape, pixels.shape, model.window_sizes)
    return logits[:, :, trim : height - trim, trim : width - trim]


def predict_batch(
    model: Network,
    windows: Sequence[Window | tuple[ImageReader, TilePlan, Tile]],
    *,
    autocast: torch.dtype | None = None,
) -> list[Tensor]:
    """Predict the tiles of windows of one shape, which may come from several images.

    Returns:
        For each window the labels of its tile, (height, width) uint8 on the model's device; nothing waits for the device.

    Raises:
        DataError: an image has other channels than the network takes.
    """
    named = [Window(*window) for window in windows]
    return _label_tiles(model, _read(model, named), named, autocast)


def predict_batch_confidence(
    model: Network, windows: Sequence[Window | tuple[ImageReader, TilePlan, Tile]]
) -> list[tuple[Tensor, Tensor]]:
    """Predict as predict_batch does, and say how sure the network is.

    Returns:
        For each window the labels of its tile, (height, width) uint8, and the probability of each, (height, width) in float32
        at least; the ignored class has none of it.
    """
    named = [Window(*window) for window in windows]
    logits = window_logits(model, _read(model, named), halo=named[0].plan.halo)
    labels = classify(logits, model.ignore_index)  # (N, h, w)
    # exp(best - logsumexp) is the softmax of the best class without the softmax of all the others.
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    parts = [wide[:, answers] for answers in _answers(logits.shape[1], model.ignore_index)]
    best, total = (part.amax(dim=1) for part in parts), (part.logsumexp(dim=1) for part in parts)
    confidence = (reduce(torch.maximum, best) - reduce(torch.logaddexp, total)).exp_()
    return list(zip(_trim(labels, named), _trim(confidence, named), strict=True))


def predict_tiles(
    model: Network,
    reader: ImageReader,
    plan: TilePlan,
    batches: Iterable[Sequence[int]],
    *,
    autocast: torch.dtype | None = None,
) -> Iterator[tuple[Tile, Labels]]:
    """Predict tiles of one image: yields each tile and its labels (height, width) uint8, in the order of `batches`.

    The next batch is read, and a batch's labels are used by the caller, while the device computes.

    Args:
        batches: indices into `plan`, those of a batch computed at once (`batches.cut_batches`).

    Raises:
        DataError: the image has other channels than the network takes.
    """
    computing: tuple[list[Window], list[Tensor]] = [], []
    for batch in batches:
        windows = [Window(reader, plan, plan[index]) for index in batch]
        pixels = _read(model, windows)
        finished = _fetch(*computing)
        computing = windows, _label_tiles(model, pixels, windows, autocast)
        yield from finished
    yield from _fetch(*computing)


def predict_image(
    model: Network,
    image: ImageLike,
    tile_size: int | None = None,
    *,
    window_batch: int = 1,
    device: str | torch.device | None = None,
) -> Labels:
    """Predict an image: (H, W) uint8 class ids, the same for every `tile_size`.

    Computes in the model's own type. The model's training flags are left as they were.

    Args:
        image: (H, W, C) or (H, W) uint8 array, Pillow image, path or reader.
        tile_size: largest side of a window in pixels; None chooses one.
        window_batch: windows computed at once.
        device: moves the model there first; None computes where it is.

    Raises:
        LocalityError: the network has no finite halo, so that exact tiles do not exist.
        SizeError: the network does not take `tile_size`; names the nearest that it does.
        DataError: the image cannot be read, or has other channels than the network takes.
    """
    locality = require_locality(model)
    if device is not None:
        model.to(torch.device(device))
    with _opened(image) as reader:
        plan = _plan(model, reader, locality, tile_size)
        labels = np.empty(plan.image_shape, dtype=np.uint8)
        for tile, part in predict_tiles(model, reader, plan, cut_batches(range(len(plan)), window_batch)):
            labels[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] = part
    return labels


def predict_logits(model: Network, image: ImageLike, tile_size: int | None = None) -> Tensor:
    """Compute the logits of a whole image, (K, H, W) on the CPU; for calibration and proofs, as all of it is in memory.

    Args:
        tile_size: largest side of a window in pixels; None takes one window that covers the image.

    Raises:
        LocalityError, SizeError, DataError: as `predict_image`.
    """
    locality = require_locality(model)
    rows: list[Tensor] = []
    with _opened(image) as reader:
        if tile_size is None:
            tile_size = covering_tile_size(reader.shape[:2], model.window_sizes, locality)
        plan = _plan(model, reader, locality, tile_size)
        for row in range(plan.grid[0]):
            parts = []
            for index in plan.band(range(row, row + 1)):
                window = Window(reader, plan, plan[index])
                logits = window_logits(model, _read(model, [window]), halo=plan.halo)
                parts.append(logits[0, :, : window.tile.height, : window.tile.width].cpu())  # (K, height, width)
            rows.append(torch.cat(parts, dim=2))
    return torch.cat(rows, dim=1)


def _plan(model: Network, reader: ImageReader, locality: Locality, tile_size: int | None) -> TilePlan:
    if tile_size is None:
        tile_size = default_tile_size(model.window_sizes, locality)
    return plan_tiles(reader.shape[:2], tile_size, model.window_sizes, locality)


def _opened(image: ImageLike) -> AbstractContextManager[ImageReader]:
    """Open an image for a while; a reader that the caller opened stays open."""
    reader = as_reader(image)
    return nullcontext(reader) if reader is image else reader


def _read(model: Network, windows: Sequence[Window]) -> Tensor:
    """Read windows of one shape, mirrored at their image's border: (N, H, W, C) uint8 on the CPU."""
    shapes = {(window.plan.window_shape, window.plan.halo) for window in windows}
    assert len(shapes) == 1, shapes
    pixels = []
    for reader, plan, tile in windows:
        require_channels(model, reader)
        pixels.append(read_window(reader, *plan.window_origin(tile), *plan.window_shape))
    return torch.from_numpy(np.stack(pixels))


def require_channels(model: Network, reader: ImageReader) -> None:
    """Raises DataError: the image has other channels than the network takes."""
    got = reader.shape[2]
    if got != model.in_channels:
        raise DataError(
            f"Got an image with {_channels(got)}. Expected {_channels(model.in_channels)}, as the network was trained on. "
            "Convert the image, or use a network trained on such images."
        )


def _channels(count: int) -> str:
    kinds = {1: "1 channel (grey)", 3: "3 channels (colour)"}
    return kinds.get(count, f"{count} channels")


def _upload(pixels: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return pixels.to(device)
    return pixels.pin_memory().to(device, non_blocking=True)


def _label_tiles(
    model: Network, pixels: Tensor, windows: Sequence[Window], autocast: torch.dtype | None
) -> list[Tensor]:
    halo, device_type = windows[0].plan.halo, next(model.parameters()).device.type
    labels = [
        classify(window_logits(model, part, halo=halo, autocast=autocast), model.ignore_index)
        for part in pixels.split(windows_at_once(pixels.shape[1:3], device_type))
    ]
    return _trim(torch.cat(labels), windows)


def _trim(values: Tensor, windows: Sequence[Window]) -> list[Tensor]:
    """Cut (N, h, w) to the windows' tiles: one at the border is smaller than what its window determines."""
    return [part[: tile.height, : tile.width] for part, (_, _, tile) in zip(values, windows, strict=True)]


def _fetch(windows: Sequence[Window], labels: Sequence[Tensor]) -> list[tuple[Tile, Labels]]:
    """Wait for the device and bring labels to the CPU."""
    return [(window.tile, part.cpu().numpy()) for window, part in zip(windows, labels, strict=True)]


@contextmanager
def _evaluation(model: Network) -> Iterator[None]:
    """Set evaluation mode, then restore each layer's own flag: some may have been frozen on purpose."""
    was_training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in was_training:
            module.training = flag
