"""What keeps the activations of a network in scale: scaled weight standardisation, batch norm, group norm.

Owns the layers; which of them, and of other networks' layers, couple pixels or samples is read off a finished model here
too, so that exact tiles can be refused with the layer's name. Must not know the architecture around them.

Source: Brock, De, Smith, "Characterizing signal propagation to close the performance gap in unnormalized ResNets",
arXiv 2101.08692, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

NORMS = ("none", "weight", "batch", "group")

# What brings the variance of a rectified standard normal back to 1. The authors' constant (deepmind-research,
# nfnets/base.py: nonlinearities["relu"]); their closed form, section 4.2, is sqrt(2 / (1 - 1/pi)) = 1.7129.
RELU_GAIN = 1.7139588594436646
# The floor under fan-in x variance in the paper's published code (deepmind-research, nfnets/base.py: eps=1e-4). He's
# initialisation starts at fan-in x variance = 2.
EPSILON = 1e-4
# Wu and He 2018 (arXiv 1803.08494) use 32 groups; narrower layers get the largest divisor that both share.
GROUPS = 32


def standardise(weight: Tensor, gain: Tensor, *, dims: tuple[int, ...]) -> Tensor:
    """Give every filter mean 0 and variance 1 / fan-in, times its gain: gain * (w - mean(w)) / sqrt(N * var(w)).

    Args:
        weight: the filters, of any shape.
        gain: broadcast against `weight`; one value a filter.
        dims: the dimensions of `weight` that one output value sums over; their sizes multiply to the fan-in N.

    Costs 5 % of a forward pass at the paper's width on one 572 window (CPU, float32), less with any batch. Training standardises
    all filters together, once per step (models/step_weights.py).

    Source: arXiv 2101.08692, equation 3.
    """
    fan_in = math.prod([weight.shape[dim] for dim in dims])  # a list, which torch.compile can read
    variance, mean = torch.var_mean(weight, dim=dims, correction=0, keepdim=True)
    factor = torch.rsqrt((variance * fan_in).clamp(min=EPSILON)) * gain
    return (weight - mean) * factor


class ScaledStdConv2d(nn.Conv2d):
    """Convolve with standardised filters; `gain` (out_channels,) is learnt, 1 at the start.

    Touches weights only: it couples neither pixels nor samples, so tiles and world sizes stay exact.

    Args:
        output_gain: a constant factor; RELU_GAIN where a ReLU follows, 1 where nothing does.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        padding: int = 0,
        dilation: int = 1,
        output_gain: float,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation)
        self.output_gain = output_gain
        # One dimension, as biases have: the usual rule "no weight decay below two dimensions" then spares it.
        self.gain: nn.Parameter | None = nn.Parameter(torch.ones(out_channels))

    def forward(self, features: Tensor) -> Tensor:
        """Convolve (N, C, H, W) with standardised weights."""
        return self._conv_forward(features, self.filters(), self.bias)

    def filters(self) -> Tensor:
        """The standardised weight; without a gain it is one that was lent."""
        if self.gain is None:
            return self.weight
        return standardise(self.weight, (self.gain * self.output_gain).view(-1, 1, 1, 1), dims=(1, 2, 3))


class ScaledStdConvTranspose2d(nn.ConvTranspose2d):
    """Convolve, transposed and without overlap (stride = kernel side), with standardised filters and a learnt gain.

    Where nothing overlaps, an output pixel sums over the input channels at one position of the kernel only. That is its
    fan-in, so each (output channel, position) is standardised by itself; over the whole kernel, positions of unequal
    mean would print a checkerboard under the mean of the activations.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, output_gain: float) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=kernel_size)
        self.output_gain = output_gain
        self.gain: nn.Parameter | None = nn.Parameter(torch.ones(out_channels))

    def forward(self, features: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve (N, C, H, W) with standardised weights."""
        assert output_size is None, f"without overlap the size follows from the input, got output_size={output_size}"
        return F.conv_transpose2d(features, self.filters(), self.bias, self.stride)

    def filters(self) -> Tensor:
        """The standardised weight, (in, out, k, k); without a gain it is one that was lent."""
        if self.gain is None:
            return self.weight
        return standardise(self.weight, (self.gain * self.output_gain).view(1, -1, 1, 1), dims=(0,))


@contextmanager
def standardised_once(model: nn.Module) -> Iterator[None]:
    """Within it layers convolve with filters that were standardised when it began: for many passes while the weights stay.

    The values are those of each layer's own forward pass, to the bit. Within autocast they are of its type, to which it would cast
    them for each pass.
    """
    lent: list[tuple[nn.Module, Tensor, nn.Parameter]] = []
    try:
        with torch.no_grad():
            for layer in model.modules():
                if isinstance(layer, ScaledStdConv2d | ScaledStdConvTranspose2d) and layer.gain is not None:
                    lent.append((layer, layer.weight, layer.gain))
                    layer._parameters["weight"] = _as_cast(layer.filters())  # type: ignore[assignment]
                    layer.gain = None
        yield
    finally:
        for layer, weight, gain in lent:
            layer._parameters["weight"] = weight  # type: ignore[assignment]
            layer._parameters["gain"] = gain


def _as_cast(filters: Tensor) -> Tensor:
    kind = filters.device.type
    is_cast = torch.is_autocast_enabled(kind) and filters.dtype == torch.float32
    return filters.to(torch.get_autocast_dtype(kind)) if is_cast else filters


def activation_norm(norm: str, channels: int) -> nn.Module:
    """Build the layer between a convolution and its ReLU; nothing for the norms that leave activations alone."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return GroupNorm(math.gcd(GROUPS, channels), channels)
    return nn.Identity()


class GroupNorm(nn.GroupNorm):
    """As torch's, in the memory format and the type that come in.

    On a GPU torch's own gives contiguous values, of float32 in mixed precision: each layer that follows would copy them back.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        normalised = super().forward(features)
        if features.is_cuda and features.is_contiguous(memory_format=torch.channels_last):
            return normalised.to(features.dtype, memory_format=torch.channels_last)
        return normalised


def pixel_coupling(model: nn.Module, attention: tuple[type[nn.Module], ...] = ()) -> str | None:
    """Name the first layer of `model` whose output at a pixel depends on all pixels in evaluation, and why.

    A LayerNorm over channels alone treats every pixel by itself and is none; one over further dimensions is.

    Args:
        attention: kinds of layers, beside torch's own, that attend from each pixel to all.
    """
    for name, module in model.named_modules():
        reason = _coupling_of(module, attention)
        if reason is not None:
            return f"{name} ({type(module).__name__}): {reason}"
    return None


def _coupling_of(module: nn.Module, attention: tuple[type[nn.Module], ...]) -> str | None:
    statistics = "its mean and variance are taken over all pixels of the window"
    if isinstance(module, nn.GroupNorm | _InstanceNorm):
        return statistics
    if isinstance(module, nn.LayerNorm):
        return statistics if len(module.normalized_shape) > 1 else None
    if isinstance(module, (nn.MultiheadAttention, *attention)):
        return "each pixel attends to all pixels of the window"
    if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        return "it pools over all pixels of the window"
    return None


def batch_coupling(model: nn.Module) -> str | None:
    """Name the first layer of `model` that couples the samples of a batch in training, and why."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, _InstanceNorm):
            kind = type(module).__name__
            return f"{name} ({kind}): in training its mean and variance are taken over all samples of the micro-batch"
    return None
