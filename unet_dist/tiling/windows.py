"""Windows to labels: a batch of windows on its way through the network.

Owns what happens between pixels and labels: normalise on the device, forward, trim to exact pixels, argmax. It must not know
readers, processes or files: which windows are read and computed is decided in prediction/.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unet_dist.data.batches.ids import narrowed
from unet_dist.data.decoded.labels import IGNORED, ignored_in, label_dtype
from unet_dist.errors import DataError, LocalityError
from unet_dist.imaging.pixels import filled
from unet_dist.imaging.reader import ImageReader
from unet_dist.machine.uploading import uploading
from unet_dist.models.contract import Network, pixels_of, zero_of
from unet_dist.tiling.geometry import (
    Locality,
)

Labels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


_CPU_AT_ONCE_PX = 400_000
"""Pixels of the windows that a CPU computes together."""

_CACHED_VALUES = 2**18
"""Logits that are compared at once on a CPU: 1 MiB of float32. With half or twice as many it took a tenth longer."""


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


def normalise(
    windows: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    limits: Sequence[tuple[float, float]] | None = None,
) -> Tensor:
    """Scale pixels to (pixel - mean) / std.

    Args:
        windows: (N, H, W, C) uint8, uint16, int16 or float32, on the device that is to compute.
        mean, std: one per channel, in units of the pixels.
        dtype: of the result. The arithmetic is float32 or float64, also for narrower types.
        limits: low and high of each channel, to which pixels beyond them are set; None sets none.

    Returns:
        (N, C, H, W), in channels-last memory. That is how it arrived, and how convolutions are fastest (U-Net 16 and 32
        wide, 572 px, 2 CPU cores, float32: 1.4 times in evaluation, equal in training).
    """
    compute = torch.promote_types(dtype, torch.float32)
    # Row by row: pixel by pixel a CPU goes through three values at a time (tests/measure/small_costs.py normalise).
    width, channels = windows.shape[2:]
    row = _kept_row if windows.device.type == "cuda" else _row
    of_row = partial(row, width=width, dtype=compute, device=windows.device)
    rows = _as_floats(windows.flatten(2), compute)  # (N, H, W * C)
    if limits is not None:
        rows = rows.clamp_(*(of_row(tuple(float(pair[end]) for pair in limits)) for end in (0, 1)))
    rows = rows.sub_(of_row(tuple(map(float, mean)))).div_(of_row(tuple(map(float, std))))
    return rows.to(dtype).unflatten(2, (width, channels)).permute(0, 3, 1, 2)  # (N, C, H, W)


def _row(values: tuple[float, ...], *, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Values of channels, once for each pixel of a row: (W * C,)."""
    with torch.inference_mode(mode=False):  # training uses what a validation made
        # Not blocking: a copy that waits for the device would be a synchronisation in every training step.
        return torch.tensor(values, dtype=dtype).to(device, non_blocking=True).repeat(width)


_kept_row = lru_cache(maxsize=64)(_row)
"""They go to a GPU once, not with every window: two copies and two launches each. On a CPU nothing is gained, and the planner's
tensors, which have no values, must not be kept."""


def _as_floats(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert pixels to floats of their own memory. Torch computes little with uint16: its bits are read as int16."""
    if pixels.dtype == torch.uint16:
        return pixels.view(torch.int16).to(torch.int32).bitwise_and_(0xFFFF).to(dtype)
    return pixels.to(dtype, copy=True)


def classify(logits: Tensor, ignore_index: int | None) -> Tensor:
    """Choose the class with the largest logit, never the ignored one: (N, K, h, w) -> (N, h, w) uint8, or uint16 as `label_dtype`.

    Of equal ones the first. Where the largest is NaN or infinite there is no answer: 255, or 65535 of 16 bits, which is no class.
    Nothing of the logits is copied as a whole.
    """
    if type(logits) is Tensor and logits.device.type == "cpu":  # the planner's, of a type of their own, have no values
        labels = _by_planes(logits.detach(), ignore_index)
        if labels is not None:
            return labels
    start, *more = _answers(logits.shape[1], ignore_index)
    values, labels = logits[:, start].max(dim=1)
    labels += start.start
    for after in more:
        other = logits[:, after].max(dim=1)
        labels = torch.where(other.values > values, other.indices + after.start, labels)
        values = torch.maximum(values, other.values)
    nothing = ignored_in(label_dtype(logits.shape[1]))
    labels.masked_fill_(values.sub_(values) != 0, nothing)  # inf - inf is NaN, which nothing equals
    return narrowed(labels, logits.shape[1])


def _answers(num_classes: int, ignore_index: int | None) -> list[slice]:
    """The classes before the ignored one and those after it, where there are any."""
    if ignore_index is None or not 0 <= ignore_index < num_classes or num_classes == 1:
        return [slice(0, num_classes)]
    parts = (slice(0, ignore_index), slice(ignore_index + 1, num_classes))
    return [part for part in parts if part.start < part.stop]


def _by_planes(logits: Tensor, ignore_index: int | None) -> Tensor | None:
    """Choose classes on a CPU, some rows at a time; None where a largest logit is not finite.

    In the memory of a pixel's logits one after the other, torch looks at one value at a time. Turned into planes that stay in the
    cache, many pixels are compared at once: half the time (tests/measure/small_costs.py labels).
    """
    num_classes, (height, width) = logits.shape[1], logits.shape[2:]
    answers = _answers(num_classes, ignore_index)
    # The first of equal ones has the largest mark; 0 is no answer.
    marks = np.zeros((num_classes, 1), dtype=np.uint8 if num_classes <= IGNORED else np.uint16)
    for part in answers:
        marks[part, 0] = num_classes - np.arange(part.start, part.stop)
    labels = np.empty((len(logits), height, width), dtype=label_dtype(num_classes))
    rows = max(1, _CACHED_VALUES // (num_classes * width))

    def choose(number: int, row: int) -> bool:
        planes = _planes(logits[number, :, row : row + rows])
        best = np.maximum.reduce([np.maximum.reduce(planes[part], axis=0) for part in answers])
        mark = np.maximum.reduce((planes == best).view(np.uint8) * marks, axis=0)
        labels[number, row : row + rows] = (num_classes - mark).reshape(-1, width)
        return bool(np.isfinite(best).all())

    pieces = [(number, row) for number in range(len(logits)) for row in range(0, height, rows)]
    num_threads = min(torch.get_num_threads(), len(pieces))
    if num_threads <= 1:
        all_found = all(choose(*piece) for piece in pieces)
    else:
        with ThreadPoolExecutor(num_threads) as threads:
            all_found = all(threads.map(lambda piece: choose(*piece), pieces))
    return torch.from_numpy(labels) if all_found else None


def _planes(rows: Tensor) -> np.ndarray:
    """Turn (K, h, w) into planes (K, h * w) of float32 or wider, which hold the same values."""
    import cv2  # here: who only trains starts without it

    narrow = rows.dtype == torch.bfloat16  # unknown to numpy: the upper half of a float32
    rows = rows.view(torch.int16) if narrow else rows
    if rows.stride(0) == 1:
        values = cv2.transpose(rows.permute(1, 2, 0).reshape(-1, len(rows)).numpy())
    else:
        values = rows.reshape(len(rows), -1).numpy()
    if narrow:
        return np.left_shift(values.view(np.uint16), 16, dtype=np.uint32).view(np.float32)
    return values.astype(np.float32) if values.dtype == np.float16 else values


def windows_at_once(window: Sequence[int], device_type: str) -> int:
    """Say how many windows of a batch a device computes together: a GPU all of them, a CPU few.

    A CPU takes as long either way (tests/measure/small_costs.py windows), and alone they need the memory of one.

    Args:
        window: height and width, px.
        device_type: cpu or cuda.
    """
    return max(1, _CPU_AT_ONCE_PX // (window[0] * window[1])) if device_type == "cpu" else sys.maxsize


@torch.inference_mode()
def window_logits(model: Network, pixels: Tensor, *, halo: int, scaled_to: tuple[int, int] | None = None) -> Tensor:
    """Compute the exact logits inside windows, in evaluation mode.

    Args:
        pixels: (N, H, W, C), of the type that the network was trained on.
        halo: of the windows' plan.
        scaled_to: (height, width) of the logits, where the windows are whole images that were scaled.

    Returns:
        (N, K, H - 2 * halo, W - 2 * halo) on the model's device, or (N, K, *scaled_to).
    """
    parameter = next(model.parameters())
    with _evaluation(model):
        with uploading(parameter.device) as upload:
            there = upload(pixels.pin_memory() if parameter.is_cuda else pixels)
        images = normalise(there, model.mean, model.std, parameter.dtype, pixels_of(model).limits)
        if scaled_to is not None:
            return model.scaled_logits(images, scaled_to)
        logits: Tensor = model(images)
    trim = halo - model.window_sizes.margin
    height, width = (side - 2 * model.window_sizes.margin for side in pixels.shape[1:3])
    assert logits.shape[2:] == (height, width), (logits.shape, pixels.shape, model.window_sizes)
    return logits[:, :, trim : height - trim, trim : width - trim]


def as_seen(model: Network, reader: ImageReader) -> ImageReader:
    """Give an image as a network sees it: of its type and channels, and filled where there are no data.

    Raises:
        DataError: the image has other channels or another type than the network takes.
    """
    got = reader.shape[2]
    if got != model.in_channels:
        raise DataError(
            f"Got an image with {_channels(got)}. Expected {_channels(model.in_channels)}, as the network was trained on. "
            "Convert the image, or use a network trained on such images."
        )
    pixels_of(model).require(reader, "the image")
    return filled(reader, zero_of(model))


def _channels(count: int) -> str:
    kinds = {1: "1 channel (grey)", 3: "3 channels (colour)"}
    return kinds.get(count, f"{count} channels")


@contextmanager
def _evaluation(model: Network) -> Iterator[None]:
    """Set evaluation mode, then restore each layer's own flag: some may have been frozen on purpose."""
    was_training = [(module, module.training) for module in model.modules()]
    if any(
        flag for _, flag in was_training
    ):  # else nothing is set: torch sets a flag in microseconds, a hundred times a batch
        model.eval()
    try:
        yield
    finally:
        for module, flag in was_training:
            if flag:
                module.training = flag
