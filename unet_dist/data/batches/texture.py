"""Blur, sharpness and noise of training windows, as batched arithmetic on whole numbers.

Owns the random draw for a sample, and its application on any device. Noise is a hash of (sample, row, column, channel); a blur
reads MARGIN_PX more on each side. So tiles of one crop see one transform, and all kinds of processors make the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unet_dist.data.batches.colour import on_device
from unet_dist.data.batches.sampler import texture_generator
from unet_dist.models.dropout import hash_places

MARGIN_PX = 2
_SIGMA_PX = (0.4, 1.2)
_LARGEST_NOISE = 12.0  # its standard deviation, of 255
_UNIT = 64  # of a blur's weights: 255 * 64^2 is exact in float32
# The deviation of a sum of four even bytes, and the fixed point of their factor.
_SPREAD, _ONE = (4 * (256**2 - 1) / 12) ** 0.5, 2**16


@dataclass(frozen=True)
class Textures:
    """What happens to the texture of a batch's windows.

    Attributes:
        blurred, noisy: which windows, as the host knows them: nothing need be asked of the device.
        kernels: (len(blurred), 3) float32, weights of the middle, the nearest and the next pixels, in 64ths; negative ones sharpen.
        factors: (len(noisy),) int64, of the noise.
        keys: (len(noisy), 3) int64: position of the sample, and row and column of the window's first pixel in its crop.
        sharpens: whether one of the kernels has negative weights, so that values may leave 0 to 255.
    """

    blurred: list[int]
    noisy: list[int]
    kernels: Tensor
    factors: Tensor
    keys: Tensor
    sharpens: bool = False

    @property
    def margin(self) -> int:
        """Pixels that are read beyond the windows on each side."""
        return MARGIN_PX if self.blurred else 0

    def moved(self, move: Callable[[Tensor], Tensor]) -> Textures:
        """The same of other tensors."""
        return replace(self, kernels=move(self.kernels), factors=move(self.factors), keys=move(self.keys))


def draw_textures(seed: int, keys: list[tuple[int, int, int]], *, blur_p: float, noise_p: float) -> Textures:
    """Draw what happens to windows.

    Args:
        keys: of each, its sample's position in the run and the row and the column of its first pixel in the crop.
    """
    blurred, noisy, kernels, factors = [], [], [], []
    for number, (position, _, _) in enumerate(keys):
        random = texture_generator(seed, position)
        is_blurred, is_noisy = random.random(2) < (blur_p, noise_p)
        sigma, deviation = random.uniform(*_SIGMA_PX), random.uniform(0, _LARGEST_NOISE)
        if is_blurred:
            blurred.append(number)
            kernels.append(gaussian(sigma))
        if is_noisy:
            noisy.append(number)
            factors.append(round(deviation / _SPREAD * _ONE))
    return Textures(
        blurred,
        noisy,
        torch.tensor(kernels, dtype=torch.float32).view(-1, MARGIN_PX + 1),
        torch.tensor(factors, dtype=torch.int64),
        torch.tensor([keys[number] for number in noisy], dtype=torch.int64).view(-1, 3),
    )


def gaussian(sigma_px: float) -> tuple[float, float, float]:
    """The kernel of a blur."""
    bell = np.exp(-(np.arange(MARGIN_PX + 1) ** 2) / (2 * sigma_px**2))
    near, next_ = np.rint(_UNIT * bell[1:] / (2 * bell.sum() - 1)).tolist()
    return _UNIT - 2 * (near + next_), near, next_


def sharpening(factor: float) -> tuple[float, float, float]:
    """The kernel that blends a window with its smoothed self: 0 smooths, 1 leaves it, 2 sharpens.

    Source: Pillow's ImageEnhance.Sharpness, whose smoothing leaves 5/13 of a pixel to itself; here by rows and columns.
    """
    near = float(round(_UNIT * (1 - (5 / 13) ** 0.5) / 2 * (1 - factor)))
    return _UNIT - 2 * near, near, 0.0


def kernels_of(kernels: Sequence[tuple[float, float, float] | None]) -> Textures:
    """The textures of windows of which some have a kernel, and none noise."""
    blurred = [number for number, kernel in enumerate(kernels) if kernel is not None]
    of_each = [kernel for kernel in kernels if kernel is not None]
    return Textures(
        blurred,
        [],
        torch.tensor(of_each, dtype=torch.float32).view(-1, MARGIN_PX + 1),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, 3, dtype=torch.int64),
        sharpens=any(min(kernel) < 0 for kernel in of_each),
    )


def blur(windows: Tensor, textures: Textures) -> Tensor:
    """Blur some windows (n, h + 2 margin, w + 2 margin, C) uint8, and cut the margin off all of them."""
    margin = textures.margin
    if not margin:
        return windows
    height, width = (side - 2 * margin for side in windows.shape[1:3])
    kept = windows[:, margin : margin + height, margin : margin + width]
    at = on_device(textures.blurred, windows.device)
    values = windows.index_select(0, at).float()
    weights = textures.kernels[:, :, None, None, None]
    for axis, side in ((1, height), (2, width)):
        cuts = [values.narrow(axis, start, side) for start in range(2 * margin + 1)]
        values = (
            cuts[2] * weights[:, 0] + (cuts[1] + cuts[3]) * weights[:, 1] + (cuts[0] + cuts[4]) * weights[:, 2]
        )  # whole numbers below 2^24: exact
    rounded = (values / _UNIT**2 + 0.5).floor()
    rounded = rounded.clamp(0, 255) if textures.sharpens else rounded
    return kept.index_copy(0, at, rounded.to(windows.dtype))


def add_noise(windows: Tensor, textures: Textures) -> Tensor:
    """Add noise to some windows (n, h, w, C) uint8: about normal, and the same in every tile of a crop."""
    if not textures.noisy:
        return windows
    height, width, channels = windows.shape[1:]
    bits = hash_places(textures.keys, (channels, height, width)).permute(0, 2, 3, 1)  # (n, h, w, C) of 32 bits
    total = sum((bits >> shift) & 255 for shift in (0, 8, 16, 24)) - 510
    moved = (total * textures.factors.view(-1, 1, 1, 1) + _ONE // 2) >> 16
    at = on_device(textures.noisy, windows.device)
    noisy = (windows.index_select(0, at) + moved).clamp(0, 255).to(windows.dtype)
    return windows.index_copy(0, at, noisy)
